//! The zlib format (RFC 1950): two bytes of header, deflate, Adler-32.

use simd_adler32::Adler32;

use crate::deflate::{DeflateEncoder, Framing, LEVELS, LIBRARY, output_bytes_max};
use crate::entry::{CodecInfo, Entry};
use crate::inflate::Inflater;

pub(crate) static ENTRY: Entry = Entry {
    info: CodecInfo {
        name: "zlib",
        levels: Some(LEVELS),
        takes_full: true,
        extension: ".zz",
        library: LIBRARY,
        summary: "deflate with an Adler-32, as Python's zlib.decompress opens",
    },
    stores_nothing: false,
    output_bytes_max,
    // CM 8 (deflate), and FCHECK.
    may_begin_with: |begin| begin[0] & 0x0f == 8 && u16::from_be_bytes(*begin).is_multiple_of(31),
    encoder: |level, full| Box::new(DeflateEncoder::<Zlib>::new(level, full)),
    decoder: || Box::new(Inflater::zlib()),
};

/// CM 8 (deflate) and CINFO 7 (a window of 32 KiB).
const CMF: u8 = 0x78;

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
        output.extend_from_slice(&self.adler.finish().to_be_bytes());
    }
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
