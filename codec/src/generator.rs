//! The input of generated bags: a pure function of kind, seed, task index and size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::keystream::Keystream;
use crate::text::TextWriter;

/// What generated input looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DataKind {
    /// The keystream itself: incompressible.
    Random,
    /// Words in lines: compresses about as English does.
    Text,
    /// Zero bytes.
    Zeros,
}

impl DataKind {
    /// Every kind, in the order that help texts list them.
    pub const ALL: [Self; 3] = [Self::Random, Self::Text, Self::Zeros];

    fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Text => "text",
            Self::Zeros => "zeros",
        }
    }
}

impl fmt::Display for DataKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for DataKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| Error::UnknownDataKind { text: text.to_owned() })
    }
}

/// Draws the input of one task, in parts of any size.
///
/// The rules are written down in `docs/generator.md`, for anyone to implement again. Equal arguments
/// give equal bytes on every machine, however the parts are cut.
///
/// # Examples
///
/// ```
/// use bagpress_codec::{DataKind, Generator};
///
/// let mut generator = Generator::new(DataKind::Random, 0, 7, 100);
/// let mut buffer = [0; 64];
/// assert_eq!(generator.fill(&mut buffer), 64);
/// assert_eq!(generator.fill(&mut buffer), 36);
/// assert_eq!(generator.fill(&mut buffer), 0);
/// ```
pub struct Generator {
    source: Source,
    remaining: u64,
}

/// Boxed, since the cipher and the text keep buffers.
enum Source {
    Random(Box<Keystream>),
    Text(Box<TextWriter>),
    Zeros,
}

impl Generator {
    /// Begins the input of task `index` of the bag with this seed, `bytes` long.
    #[must_use]
    pub fn new(kind: DataKind, seed: u64, index: u32, bytes: u64) -> Self {
        let source = match kind {
            DataKind::Random => Source::Random(Box::new(Keystream::new(seed, index))),
            DataKind::Text => Source::Text(Box::new(TextWriter::new(Keystream::new(seed, index)))),
            DataKind::Zeros => Source::Zeros,
        };
        Self { source, remaining: bytes }
    }

    /// Writes the next bytes to the front of `buffer` and returns how many: all of it, less at the
    /// end, 0 after.
    pub fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let bytes = usize::try_from(self.remaining).map_or(buffer.len(), |n| n.min(buffer.len()));
        let part = &mut buffer[..bytes];
        match &mut self.source {
            Source::Random(keystream) => keystream.fill(part),
            Source::Text(writer) => writer.fill(part),
            Source::Zeros => part.fill(0),
        }
        self.remaining -= bytes as u64;
        bytes
    }

    /// Bytes that are still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining
    }
}
