//! The zlib format (RFC 1950): two bytes of header, deflate, Adler-32.

use simd_adler32::Adler32;

use crate::deflate::{
    DeflateEncoder, FINAL_BLOCK, Framing, LEVELS, LIBRARY, kept_bytes, output_bytes_max,
};
use crate::entry::{CodecInfo, Entry, FULL, Parameters};
use crate::inflate::Inflater;
use crate::join::{Seam, StreamSeam, Trailer};

pub(crate) static ENTRY: Entry = Entry {
    info: CodecInfo {
        name: "zlib",
        levels: Some(LEVELS),
        switches: &[FULL],
        takes_arrays: false,
        extension: ".zz",
        library: LIBRARY,
        summary: "deflate with an Adler-32, as Python's zlib.decompress opens",
    },
    stores_nothing: false,
    length_in_front: false,
    output_bytes_max: |_, input_bytes| output_bytes_max(input_bytes),
    // CM 8 (deflate), and FCHECK.
    may_begin_with: |begin| begin[0] & 0x0f == 8 && u16::from_be_bytes(*begin).is_multiple_of(31),
    encoder: |parameters| Box::new(DeflateEncoder::<Zlib>::new(parameters)),
    decoder: |_| Box::new(Inflater::zlib()),
    check: None,
    made_with: None,
    parts: None,
    seam: Some(seam),
};

/// CM 8 (deflate) and CINFO 7 (a window of 32 KiB).
const CMF: u8 = 0x78;
/// What both sums of an Adler-32 are modulo (RFC 1950 §9).
const ADLER_MODULUS: u32 = 65_521;

#[derive(Default)]
struct Zlib {
    adler: Adler32,
}

impl Framing for Zlib {
    const FORMAT: &'static str = "zlib";

    fn header(&self, level: u32, output: &mut Vec<u8>) {
        // FLEVEL as zlib sets it: fastest, fast, default, slowest.
        let flevel: u8 = match level {
            0 | 1 => 0,
            2..=5 => 1,
            6 => 2,
            _ => 3,
        };
        let flags = flevel << 6;
        // FCHECK makes the two bytes, most significant first, a multiple of 31.
        let check = 31 - u16::from_be_bytes([CMF, flags]) % 31;
        output.extend_from_slice(&(u16::from_be_bytes([CMF, flags]) + check).to_be_bytes());
    }

    fn update(&mut self, input: &[u8]) {
        self.adler.write(input);
    }

    fn trailer(&self, output: &mut Vec<u8>) {
        trailer(self.adler.finish(), output);
    }
}

fn trailer(adler: u32, output: &mut Vec<u8>) {
    output.extend_from_slice(&adler.to_be_bytes());
}

fn seam(parameters: Parameters) -> Seam {
    let mut header = Vec::new();
    Zlib::default().header(parameters.level, &mut header);
    Seam::Stream(StreamSeam {
        format: Zlib::FORMAT,
        header,
        last_block: &FINAL_BLOCK,
        trailer_bytes: 4,
        checksum: 1,
        read_trailer: |trailer| {
            let checksum = u32::from_be_bytes(*trailer.first_chunk()?);
            let (high, low) = sums(checksum);
            let possible = high < ADLER_MODULUS && low < ADLER_MODULUS;
            possible.then_some(Trailer { checksum, input_bytes: None })
        },
        combine,
        trailer: |adler, _, output| trailer(adler, output),
        kept_bytes,
    })
}

/// The two sums of an Adler-32: that of the low sum after each byte, and that of the bytes, which begins with 1.
fn sums(adler: u32) -> (u32, u32) {
    (adler >> 16, adler & 0xffff)
}

/// The Adler-32 of two parts. Had the second begun with the first's low sum, not with 1, then its low sum would be
/// greater by the difference at each of its bytes.
fn combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    let modulus = u64::from(ADLER_MODULUS);
    let ((high_1, low_1), (high_2, low_2)) = (sums(first), sums(second));
    let more = u64::from(low_1) + modulus - 1;
    let low = (more + u64::from(low_2)) % modulus;
    let high = (second_bytes % modulus) * more + u64::from(high_1) + u64::from(high_2);
    #[expect(clippy::cast_possible_truncation, reason = "both are less than 2^16")]
    let adler = ((high % modulus) << 16 | low) as u32;
    adler
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_zlibs_at_every_level() {
        let header = |level| {
            let mut output = Vec::new();
            Zlib::default().header(level, &mut output);
            output
        };
        assert_eq!(header(1), [0x78, 0x01]);
        assert_eq!(header(5), [0x78, 0x5e]);
        assert_eq!(header(6), [0x78, 0x9c]);
        assert_eq!(header(9), [0x78, 0xda]);
    }
}
