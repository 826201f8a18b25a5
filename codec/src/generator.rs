//! The input of generated bags: a pure function of kind, seed, task index and size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::field::{FieldWriter, Texture};
use crate::grid::Grid;
use crate::keystream::Keystream;
use crate::text::TextWriter;

/// What generated input looks like.
///
/// Its text is `random`, `text`, `zeros`, or that of a field with its type and shape, such as `field:f32,8x256x256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum DataKind {
    /// The keystream itself: incompressible.
    Random,
    /// Words in lines: compresses about as English does.
    Text,
    /// Zero bytes.
    Zeros,
    /// An array of numbers.
    Field {
        /// What it looks like.
        texture: Texture,
        /// Type and shape: as many bytes as it is generated with, or the slowest dimension goes on or is cut.
        grid: Grid,
    },
}

impl DataKind {
    /// Every kind that has no shape, in the order that help texts list them.
    pub const ALL: [Self; 3] = [Self::Random, Self::Text, Self::Zeros];

    /// Whether what it generates depends on its size alone, and neither on a seed nor on an index.
    #[must_use]
    pub fn is_the_same_for_all(self) -> bool {
        matches!(self, Self::Zeros)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Text => "text",
            Self::Zeros => "zeros",
            Self::Field { texture, .. } => texture.name(),
        }
    }
}

impl fmt::Display for DataKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field { grid, .. } => formatter.pad(&format!("{}:{grid}", self.name())),
            _ => formatter.pad(self.name()),
        }
    }
}

impl FromStr for DataKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownDataKind { text: text.to_owned() };
        if let Some((name, grid)) = text.split_once(':') {
            let texture = Texture::ALL.into_iter().find(|texture| texture.name() == name);
            return Ok(Self::Field { texture: texture.ok_or_else(unknown)?, grid: grid.parse()? });
        }
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(unknown)
    }
}

impl TryFrom<String> for DataKind {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<DataKind> for String {
    fn from(kind: DataKind) -> Self {
        kind.to_string()
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
    Field(Box<FieldWriter>),
}

impl Generator {
    /// Begins the input of task `index` of the bag with this seed, `bytes` long.
    #[must_use]
    pub fn new(kind: DataKind, seed: u64, index: u32, bytes: u64) -> Self {
        let source = match kind {
            DataKind::Random => Source::Random(Box::new(Keystream::new(seed, index))),
            DataKind::Text => Source::Text(Box::new(TextWriter::new(Keystream::new(seed, index)))),
            DataKind::Zeros => Source::Zeros,
            DataKind::Field { texture, grid } => {
                let keystream = Keystream::new(seed, index);
                Source::Field(Box::new(FieldWriter::new(texture, grid, keystream)))
            }
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
            Source::Field(writer) => writer.fill(part),
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
