//! Reads a stream, block by block.

use crate::buffer::{Buffer, DATA_BYTES};
use crate::header::{HEADER_BYTES_MAX, HEADER_BYTES_MIN, Header, MAGIC};
use crate::value::Value;

/// A stream that begins with no header that zfp knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHeader;

/// Reads a header and blocks, from bytes that are fed in pieces of any size.
///
/// # Examples
///
/// ```
/// use bagpress_zfp::{Header, Kind, Parameters, Reader, Writer};
///
/// let parameters = Parameters::reversible();
/// let header = Header { kind: Kind::I32, shape: [4, 1, 1, 1], dimensions: 1, parameters };
/// let (mut writer, mut stream) = (Writer::new(&header).unwrap(), Vec::new());
/// writer.block(&[1_i32, -2, 3, 4], &mut stream);
/// writer.finish(&mut stream);
///
/// let mut reader = Reader::new().unwrap();
/// assert_eq!(reader.feed(&stream), stream.len());
/// assert_eq!(reader.header(), Ok(Some(header)));
/// let mut block = [0_i32; 4];
/// assert!(reader.block(&mut block));
/// assert_eq!(block, [1, -2, 3, 4]);
/// ```
pub struct Reader {
    buffer: Buffer,
    /// Bytes of the stream in the buffer, from its start; zeros follow. The position is never behind them.
    filled: usize,
    /// Bytes of the stream that were in the buffer before those.
    done: u64,
    header: Option<Header>,
}

impl Reader {
    /// Begins a stream; nothing, if there is no memory.
    #[must_use]
    pub fn new() -> Option<Self> {
        Some(Self { buffer: Buffer::new()?, filled: 0, done: 0, header: None })
    }

    /// Begins another stream.
    pub fn reset(&mut self) {
        let filled = self.filled;
        self.buffer.bytes()[..filled].fill(0);
        self.buffer.read_at(0);
        (self.filled, self.done, self.header) = (0, 0, None);
    }

    /// Begins in the middle of a stream that has this header, so many bits behind the start of the bytes that are fed next: fewer than
    /// a word of 64 has.
    ///
    /// # Panics
    ///
    /// If it is more, or bytes were fed before.
    pub fn enter(&mut self, header: &Header, bits: u32) {
        assert!(bits < 64 && self.filled == 0 && self.header.is_none());
        self.buffer.set(header.parameters);
        self.buffer.read_at(bits as usize);
        self.header = Some(*header);
    }

    /// Takes bytes from the front of `input`, as many as there is room for, and returns how many.
    pub fn feed(&mut self, input: &[u8]) -> usize {
        if input.is_empty() {
            return 0;
        }
        let (filled, read) = (self.filled, self.buffer.read());
        let done = read / 64 * 8;
        if done >= DATA_BYTES / 2 {
            let bytes = self.buffer.bytes();
            bytes.copy_within(done..filled, 0);
            bytes[filled - done..filled].fill(0);
            self.filled -= done;
            self.done += done as u64;
            self.buffer.read_at(read - done * 8);
        }
        let (taken, at) = (input.len().min(DATA_BYTES - self.filled), self.filled);
        self.buffer.bytes()[at..at + taken].copy_from_slice(&input[..taken]);
        self.filled += taken;
        // zfp may have read the word ahead that these bytes are in.
        self.buffer.read_at(self.buffer.read());
        taken
    }

    /// The header, once it is there.
    ///
    /// # Errors
    ///
    /// [`NoHeader`].
    pub fn header(&mut self) -> Result<Option<Header>, NoHeader> {
        if self.header.is_some() {
            return Ok(self.header);
        }
        let filled = self.filled;
        let front = &self.buffer.bytes()[..filled];
        let magic = front.len().min(MAGIC.len());
        if front[..magic] != MAGIC[..magic] {
            return Err(NoHeader);
        }
        // From here on it is known how long it is.
        if filled < HEADER_BYTES_MIN {
            return Ok(None);
        }
        let read = Header::read(front);
        let long = front[HEADER_BYTES_MIN - 2] >> 4 == 0xf && front[HEADER_BYTES_MIN - 1] == 0xff;
        if long && filled < HEADER_BYTES_MAX {
            return Ok(None);
        }
        let (header, bits) = read.ok_or(NoHeader)?;
        self.buffer.set(header.parameters);
        self.buffer.read_at(bits as usize);
        self.header = Some(header);
        Ok(self.header)
    }

    /// Decompresses the next block into `block`, of 4 values in each dimension; false, if more has to be fed before.
    ///
    /// # Panics
    ///
    /// If the block is not one of the header's type and number of dimensions.
    pub fn block<T: Value>(&mut self, block: &mut [T]) -> bool {
        let (kind, dimensions) = self.header.map(|header| (header.kind, header.dimensions)).unzip();
        let dimensions = dimensions.unwrap_or(1);
        assert!(Some(T::KIND) == kind && block.len() == 1 << (2 * dimensions));
        let position = self.buffer.read();
        // SAFETY: the handle is open; the position is not behind DATA_BYTES, and behind them are as many bytes as the largest
        // block may take, and a word more; and zfp writes as many values as the block has, of the function's type.
        unsafe { T::DECODE[dimensions - 1](self.buffer.zfp(), block.as_mut_ptr()) };
        // What it read is there, or was made of the zeros that follow.
        let is_there = self.buffer.read() <= self.filled * 8;
        if !is_there {
            self.buffer.read_at(position);
        }
        is_there
    }

    /// At which bit of all that was fed the next block begins; before the header was read, the header.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.done * 8 + self.buffer.read() as u64
    }

    /// Bytes that were fed and belong to no block that was read, but for those that fill up the last word.
    #[must_use]
    pub fn trailing_bytes(&self) -> usize {
        self.filled.saturating_sub(self.buffer.read().div_ceil(64) * 8)
    }
}
