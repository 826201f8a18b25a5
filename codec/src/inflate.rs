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

    /// Begins the next member, if what follows an ended one may be that.
    fn continue_with(&mut self, next: u8) -> Result<(), Error> {
        if !self.members || next != GZIP_MAGIC {
            return Err(Error::TrailingBytes { format: self.format });
        }
        self.inner = (self.begin)();
        self.state = Position::Inside;
        Ok(())
    }
}

impl Decoder for Inflater {
    fn read_into(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Error> {
        if self.state == Position::Ended {
            match input.first() {
                Some(next) => self.continue_with(*next)?,
                None => return Ok(Progress { consumed: 0, produced: 0 }),
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
            Position::Ended => Ok(()),
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
