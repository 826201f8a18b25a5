//! Writes a stream, block by block.

use crate::buffer::{Buffer, DATA_BYTES};
use crate::header::Header;
use crate::value::Value;

/// Writes a header and blocks, and hands their bytes out as they are whole.
///
/// # Examples
///
/// ```
/// use bagpress_zfp::{Header, Kind, Parameters, Writer};
///
/// let parameters = Parameters::reversible();
/// let header = Header { kind: Kind::F32, shape: [4, 1, 1, 1], dimensions: 1, parameters };
/// let (mut writer, mut stream) = (Writer::new(&header).unwrap(), Vec::new());
/// writer.block(&[1.0_f32, 2.0, 3.0, 4.0], &mut stream);
/// writer.finish(&mut stream);
/// assert!(stream.starts_with(b"zfp"));
/// ```
pub struct Writer {
    buffer: Buffer,
    header: Header,
}

impl Writer {
    /// Begins a stream; nothing, if there is no memory.
    #[must_use]
    pub fn new(header: &Header) -> Option<Self> {
        let mut writer = Self { buffer: Buffer::new()?, header: *header };
        writer.buffer.set(header.parameters);
        let (front, rest, bits) = header.bits();
        #[expect(clippy::cast_possible_truncation, reason = "it is put in halves")]
        let (low, high) = (front as u64, (front >> 64) as u64);
        writer.buffer.put(low, 64);
        writer.buffer.put(high, (bits - 64).min(64));
        if bits > 128 {
            writer.buffer.put(rest.into(), bits - 128);
        }
        Some(writer)
    }

    /// Compresses one block, of 4 values in each dimension, the fastest varying first. Bytes that are whole may be
    /// appended to `output`, now or later.
    ///
    /// # Panics
    ///
    /// If the block is not one of the header's type and number of dimensions.
    pub fn block<T: Value>(&mut self, block: &[T], output: &mut Vec<u8>) {
        let dimensions = self.header.dimensions;
        assert!(T::KIND == self.header.kind && block.len() == 1 << (2 * dimensions));
        if self.buffer.written() >= (DATA_BYTES - 64) * 8 {
            self.drain(output);
        }
        // SAFETY: the handle is open; behind DATA_BYTES there is room for the largest block; and the block has as many values as
        // zfp reads, of the function's type.
        unsafe { T::ENCODE[dimensions - 1](self.buffer.zfp(), block.as_ptr()) };
    }

    /// Appends to `output` what is whole by now: what remains is less than 8 bytes.
    pub fn drain(&mut self, output: &mut Vec<u8>) {
        let bits = self.buffer.written();
        let (whole, rest) = (bits / 64 * 8, bits % 64);
        self.buffer.flush();
        let bytes = self.buffer.bytes();
        output.extend_from_slice(&bytes[..whole]);
        bytes.copy_within(whole..whole + 8, 0);
        self.buffer.write_at(rest);
    }

    /// Ends the stream: it is filled up to whole words of 8 bytes.
    pub fn finish(mut self, output: &mut Vec<u8>) {
        let bytes = self.buffer.written().div_ceil(64) * 8;
        self.buffer.flush();
        output.extend_from_slice(&self.buffer.bytes()[..bytes]);
    }
}
