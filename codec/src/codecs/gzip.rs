//! The gzip format (RFC 1952): one member, ten bytes of header, deflate, CRC-32 and size.

use crate::deflate::{
    DeflateEncoder, FINAL_BLOCK, Framing, LEVELS, LIBRARY, kept_bytes, output_bytes_max,
};
use crate::entry::{CodecInfo, Entry, FULL, Parameters};
use crate::inflate::Inflater;
use crate::join::{Seam, StreamSeam, Trailer};

pub(crate) static ENTRY: Entry = Entry {
    info: CodecInfo {
        name: "gzip",
        levels: Some(LEVELS),
        switches: &[FULL],
        takes_arrays: false,
        extension: ".gz",
        library: LIBRARY,
        summary: "deflate with a CRC-32, as gzip -d opens",
    },
    stores_nothing: false,
    length_in_front: false,
    output_bytes_max: |_, input_bytes| output_bytes_max(input_bytes),
    may_begin_with: |begin| begin == &[0x1f, 0x8b],
    encoder: |parameters| Box::new(DeflateEncoder::<Gzip>::new(parameters)),
    decoder: |_| Box::new(Inflater::gzip()),
    check: None,
    made_with: None,
    parts: None,
    seam: Some(seam),
};

#[derive(Default)]
struct Gzip {
    crc: crc32fast::Hasher,
    /// Input bytes modulo 2^32, as ISIZE has them.
    size: u32,
}

impl Framing for Gzip {
    const FORMAT: &'static str = "gzip";

    fn header(&self, level: u32, output: &mut Vec<u8>) {
        let xfl = match level {
            1 => 4, // fastest
            9 => 2, // smallest
            _ => 0,
        };
        // Magic, CM 8, no flags, no time, XFL, and OS unknown: nothing that tells machines apart.
        output.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, xfl, 255]);
    }

    fn update(&mut self, input: &[u8]) {
        self.crc.update(input);
        // Exact modulo 2^32, which is what the cast keeps.
        #[expect(clippy::cast_possible_truncation, reason = "ISIZE is modulo 2^32 by definition")]
        let bytes = input.len() as u32;
        self.size = self.size.wrapping_add(bytes);
    }

    fn trailer(&self, output: &mut Vec<u8>) {
        trailer(self.crc.clone().finalize(), self.size, output);
    }
}

fn trailer(crc: u32, size: u32, output: &mut Vec<u8>) {
    output.extend_from_slice(&crc.to_le_bytes());
    output.extend_from_slice(&size.to_le_bytes());
}

fn seam(parameters: Parameters) -> Seam {
    let mut header = Vec::new();
    Gzip::default().header(parameters.level, &mut header);
    Seam::Stream(StreamSeam {
        format: Gzip::FORMAT,
        header,
        last_block: &FINAL_BLOCK,
        trailer_bytes: 8,
        checksum: 0,
        read_trailer: |trailer| {
            let (crc, size) = (trailer.first_chunk()?, trailer.last_chunk()?);
            Some(Trailer {
                checksum: u32::from_le_bytes(*crc),
                input_bytes: Some(u32::from_le_bytes(*size)),
            })
        },
        combine,
        #[expect(clippy::cast_possible_truncation, reason = "ISIZE is modulo 2^32 by definition")]
        trailer: |crc, input_bytes, output| trailer(crc, input_bytes as u32, output),
        kept_bytes,
    })
}

/// The CRC-32 of two parts. The length of the first plays no role, and is left out so that no sum can overflow.
fn combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial_len(first, 0);
    crc.combine(&crc32fast::Hasher::new_with_initial_len(second, second_bytes));
    crc.finalize()
}
