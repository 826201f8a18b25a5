//! The decoder that zlib and gzip share. It reads every stream of its format, whoever made it.

use flate2::{Decompress, FlushDecompress, Status};

use crate::Error;
use crate::stream::{Decoder, Progress};

/// Base-2 logarithm of the largest window that the formats allow.
const WINDOW_BITS: u8 = 15;
/// The first byte of every gzip member.
const GZIP_MAGIC: u8 = 0x1f;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Before the end of a stream or of a gzip member.
    Inside,
    /// After one. A gzip file may continue with another member.
    Ended,
    /// Within zeros behind the last member, with which tapes and some file systems fill up: nothing else may follow.
    Zeros,
}

pub(crate) struct Inflater {
    format: &'static str,
    /// Makes the state of a new stream.
    begin: fn() -> Decompress,
    /// Whether another stream may follow the first one.
    members: bool,
    inner: Decompress,
    state: Position,
}

impl Inflater {
    pub(crate) fn zlib() -> Self {
        Self::new("zlib", false, || Decompress::new(true))
    }

    /// Several members decode to the concatenation, as `gzip -d` has it.
    pub(crate) fn gzip() -> Self {
        Self::new("gzip", true, || Decompress::new_gzip(WINDOW_BITS))
    }

    fn new(format: &'static str, members: bool, begin: fn() -> Decompress) -> Self {
        Self { format, begin, members, inner: begin(), state: Position::Inside }
    }

    /// Goes on behind the end of a stream: with the next member, or with zeros, of which it returns how many it passed over.
    fn continue_with(&mut self, input: &[u8]) -> Result<usize, Error> {
        let zeros = input.iter().take_while(|byte| **byte == 0).count();
        if self.members && zeros > 0 {
            self.state = Position::Zeros;
            return Ok(zeros);
        }
        if !self.members || self.state == Position::Zeros || input[0] != GZIP_MAGIC {
            return Err(Error::TrailingBytes { format: self.format });
        }
        self.inner = (self.begin)();
        self.state = Position::Inside;
        Ok(0)
    }
}

impl Decoder for Inflater {
    fn read_into(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Error> {
        if self.state != Position::Inside {
            let consumed = if input.is_empty() { 0 } else { self.continue_with(input)? };
            if self.state != Position::Inside {
                return Ok(Progress { consumed, produced: 0 });
            }
        }
        let (total_in, total_out) = (self.inner.total_in(), self.inner.total_out());
        let status =
            self.inner.decompress(input, output, FlushDecompress::None).map_err(|error| {
                Error::Corrupt {
                    format: self.format,
                    reason: error.message().unwrap_or("invalid data").to_owned(),
                }
            })?;
        if status == Status::StreamEnd {
            self.state = Position::Ended;
        }
        Ok(Progress {
            consumed: bytes(self.inner.total_in() - total_in),
            produced: bytes(self.inner.total_out() - total_out),
        })
    }

    fn finish(&mut self) -> Result<(), Error> {
        match self.state {
            Position::Ended | Position::Zeros => Ok(()),
            Position::Inside => Err(Error::EndedEarly { format: self.format }),
        }
    }

    fn reset(&mut self) {
        // For gzip this makes a new state: zlib-rs cannot reset to it.
        self.inner.reset(true);
        self.state = Position::Inside;
    }
}

/// What one call moved; never more than the slices it was given.
#[expect(clippy::cast_possible_truncation, reason = "bounded by the length of a slice")]
fn bytes(moved: u64) -> usize {
    moved as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codec, decompress_all};

    fn compress(codec: &Codec, text: &[u8]) -> Vec<u8> {
        let (mut encoder, mut stream) = (codec.encoder(), Vec::new());
        encoder.write(text, &mut stream).unwrap();
        encoder.finish(&mut stream).unwrap();
        stream
    }

    /// As `gzip -d` has it; what it only warns of, and leaves out, is an error.
    #[test]
    fn zeros_behind_a_gzip_file_are_passed_over_and_nothing_else() {
        let codec: Codec = "gzip:6".parse().unwrap();
        let (one, two) = (compress(&codec, b"one, "), compress(&codec, b"two"));
        let zeros = [0; 1000];
        let file = [&one[..], &two, &zeros].concat();
        assert_eq!(decompress_all(&codec, &file).unwrap(), b"one, two");
        let mut decoder = codec.decoder();
        for byte in &file {
            decoder.read_into(&[*byte], &mut [0; 64]).unwrap();
        }
        decoder.finish().unwrap();
        for bad in
            [[&one[..], &zeros, &two].concat(), [&one[..], &zeros, b"x"].concat(), zeros.to_vec()]
        {
            assert!(decompress_all(&codec, &bad).is_err());
        }
        let zlib: Codec = "zlib:6".parse().unwrap();
        let file = [&compress(&zlib, b"one")[..], &[0]].concat();
        assert!(matches!(decompress_all(&zlib, &file), Err(Error::TrailingBytes { .. })));
    }
}
