//! A codec by name: the text `name:level`, perhaps with switches as in `zlib:6,full`, looked up in the registry.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::array::{ArrayParameters, Form};
use crate::check::Check;
use crate::codecs::{REGISTRY, not_built_in};
use crate::entry::{CodecInfo, Entry, FULL, Parameters};
use crate::error::ArrayFault;
use crate::grid::Grid;
use crate::join::{Joined, Joiner, Seam};
use crate::parse::{parse_level, parse_switches, split_once};
use crate::parts::Parts;
#[cfg(doc)]
use crate::parts::Section;
use crate::stream::{Choice, Decoder, Encoder, SEGMENT_BYTES};

/// A codec with its parameters, such as `gzip:6` or `gzip:6,full`.
///
/// # Examples
///
/// ```
/// use bagpress_codec::Codec;
///
/// let codec: Codec = "zlib".parse()?;
/// assert_eq!(codec.to_string(), "zlib:6");
/// assert_eq!(
///     "zlib:10".parse::<Codec>().unwrap_err().to_string(),
///     "level 10 of zlib is out of range: 0 to 9",
/// );
/// # Ok::<(), bagpress_codec::Error>(())
/// ```
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Codec {
    entry: &'static Entry,
    parameters: Parameters,
}

impl Codec {
    /// The codecs there are, for help texts and for what workers say that they have.
    pub fn all() -> impl Iterator<Item = &'static CodecInfo> {
        REGISTRY.iter().map(|entry| &entry.info)
    }

    /// The name without the level: `zlib`, `gzip`, `zstd`, `store` or `noop`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.entry.info.name
    }

    /// The level, or nothing for a codec without levels.
    #[must_use]
    pub fn level(&self) -> Option<u32> {
        self.entry.info.levels.map(|_| self.parameters.level)
    }

    /// Whether every segment is compressed, also one in which a look finds nothing to win (`,full`): for comparisons
    /// that shall do the same work. Always false for a codec that never stores a segment unread.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.parameters.has(&FULL)
    }

    /// What the name of an output file gets, with its dot: `.zz` for zlib, `.gz` for gzip, `.zst` for zstd, nothing
    /// for the others.
    #[must_use]
    pub fn extension(&self) -> &'static str {
        self.entry.info.extension
    }

    /// Whether a file that begins with these two bytes may be an output of this codec; always, for one that has no
    /// format of its own.
    #[must_use]
    pub fn may_begin_with(&self, begin: &[u8; 2]) -> bool {
        (self.entry.may_begin_with)(begin)
    }

    /// Whether an output that begins with these bytes, [`BEGIN_BYTES`](Self::BEGIN_BYTES) or all that it has, was made with this
    /// codec's parameters: as far as its format says, which only that of arrays does.
    #[must_use]
    pub fn may_have_made(&self, begin: &[u8]) -> bool {
        self.entry.made_with.is_none_or(|made_with| made_with(self.parameters, begin))
    }

    /// How many bytes of an output have all that [`may_have_made`](Self::may_have_made) looks at.
    pub const BEGIN_BYTES: usize = 32;

    /// The library that makes the bytes, its version, and the revision of our own framing, such as
    /// `zlib-rs/0.6.8+2`.
    ///
    /// Equal text promises equal output for equal input and an equal codec: its name, its level and its switches.
    /// So `zlib:6` and `zlib:6,full` have the same text, as `zlib:6` and `zlib:9` have, though
    /// their outputs differ. With `full` they are those that revision 1 made. The version is the one that is linked: a
    /// test holds the constant against `Cargo.lock`.
    #[must_use]
    pub fn library(&self) -> String {
        self.entry.info.library.to_owned()
    }

    /// Whether the codec throws its input away (noop): there is an outcome, but never an output.
    #[must_use]
    pub fn stores_nothing(&self) -> bool {
        self.entry.stores_nothing
    }

    /// Whether an encoder has to be told how long its input is: [`Encoder::announce`].
    #[must_use]
    pub fn has_length_in_front(&self) -> bool {
        self.entry.length_in_front
    }

    /// The most bytes that `input_bytes` can become, framing included, if they are cut at
    /// [`SEGMENT_BYTES`](crate::SEGMENT_BYTES).
    ///
    /// For zlib and gzip that is `input + input/2048 + 64`, at every level, and for zstd `input + input/256 + 64`; store
    /// and noop add nothing. For zfp it is what the most bits of every block are, where the shape is known, and otherwise
    /// `4 × input + 2304`, as blocks that are not full are filled up.
    #[must_use]
    pub fn output_bytes_max(&self, input_bytes: u64) -> u64 {
        (self.entry.output_bytes_max)(self.parameters, input_bytes)
    }

    /// Begins to compress a stream. Its length has to be [announced](Encoder::announce), for zstd.
    #[must_use]
    pub fn encoder(&self) -> Box<dyn Encoder> {
        (self.entry.encoder)(self.parameters)
    }

    /// Begins to decompress a stream; any level's, and any maker's.
    #[must_use]
    pub fn decoder(&self) -> Box<dyn Decoder> {
        (self.entry.decoder)(self.parameters)
    }

    /// The parts of a stream that begins with these bytes, [`BEGIN_BYTES`](Self::BEGIN_BYTES) or all that it has, if all have one
    /// length: of an array, layers of four planes with a fixed rate.
    #[must_use]
    pub fn parts(&self, begin: &[u8]) -> Option<Parts> {
        self.entry.parts.as_ref().and_then(|of| (of.find)(self.parameters, begin))
    }

    /// Begins to decompress some parts of a stream that begins with these bytes: it takes what [`Section::stream`] says. None, if it
    /// has no such parts.
    #[must_use]
    pub fn part_decoder(&self, begin: &[u8], parts: Range<u64>) -> Option<Box<dyn Decoder>> {
        self.entry.parts.as_ref().and_then(|of| (of.decoder)(self.parameters, begin, parts))
    }

    pub(crate) fn check(&self) -> Option<Box<dyn Check>> {
        self.entry.check.map(|check| check(self.parameters))
    }

    /// Begins to make one file of blocks: of what encoders of this codec made of its parts.
    #[must_use]
    pub fn joiner(&self) -> Joiner {
        Joiner::new(self.seam())
    }

    /// Continues a file that another joiner of an equal codec left at `joined`, and of which
    /// [`Joined::output_bytes`] are there. It has to be [told](Joiner::recall) what these bytes are, for zstd.
    #[must_use]
    pub fn resume_joiner(&self, joined: Joined) -> Joiner {
        Joiner::resume(self.seam(), joined)
    }

    /// The longest part of a file, in input bytes, of which a block can be joined.
    #[must_use]
    pub fn block_bytes_max(&self) -> u64 {
        self.seam().block_bytes_max()
    }

    /// Whether a file of this codec may end in a [`SeekTable`](crate::SeekTable).
    #[must_use]
    pub fn has_seek_table(&self) -> bool {
        matches!(self.seam(), Seam::Frames(_))
    }

    /// What every block begins with; a joined file has it once. A decoder that was given it reads what the file has of any
    /// block, and nothing of the blocks before. It does not see an end then, unless the codec's blocks are frames.
    #[must_use]
    pub fn block_header(&self) -> Vec<u8> {
        self.seam().header()
    }

    /// How many bytes a joined file has of a block of `bytes` that decodes to `input_bytes`, besides the
    /// [header](Self::block_header); none if no block has these lengths.
    #[must_use]
    pub fn joined_bytes(&self, bytes: u64, input_bytes: u64) -> Option<u64> {
        self.seam().kept(bytes, input_bytes)
    }

    /// Whether a file may be cut into blocks, which are joined again. An array is not.
    #[must_use]
    pub fn can_be_cut(&self) -> bool {
        self.entry.seam.is_some()
    }

    /// Of a codec whose files are not cut, one by which no block can be joined.
    fn seam(&self) -> Seam {
        let none = || Seam::without_framing(self.name(), |_| u64::MAX..=u64::MAX);
        self.entry.seam.map_or_else(none, |seam| seam(self.parameters))
    }
}

impl Codec {
    /// Whether its inputs are arrays.
    #[must_use]
    pub fn takes_arrays(&self) -> bool {
        self.entry.info.takes_arrays
    }

    /// Whether an input may come back as other bytes: as values that are near to its own.
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.parameters.array.is_some_and(ArrayParameters::is_lossy)
    }

    /// Type and shape of its inputs, where they are bare values of the same.
    #[must_use]
    pub fn grid(&self) -> Option<Grid> {
        match self.parameters.array?.form {
            Form::Grid(grid) => Some(grid),
            Form::Npy | Form::Raw => None,
        }
    }

    /// Whether it only decodes: nobody said of what type and shape the bare values are.
    #[must_use]
    pub fn only_decodes(&self) -> bool {
        self.parameters.array.is_some_and(|array| array.form == Form::Raw)
    }

    /// The same for inputs that are bare values of this type and shape.
    ///
    /// # Errors
    ///
    /// [`Error::Array`] if the mode is none of theirs, or the codec takes no arrays.
    pub fn with_grid(self, grid: Grid) -> Result<Self, Error> {
        let Some(array) = self.parameters.array else {
            let reason =
                format!("codec {} takes any bytes, whatever their type and shape", self.name());
            return Err(Error::Array { fault: ArrayFault::Unsupported, reason });
        };
        array.mode.check(&grid)?;
        let array = ArrayParameters { form: Form::Grid(grid), ..array };
        Ok(Self { parameters: Parameters::of_array(array), ..self })
    }

    /// The codec that restores a file of this name: what it was made of is a file of numpy if its name says so, and otherwise
    /// bare values. Any other codec's files say everything themselves.
    #[must_use]
    pub fn of_restored(self, name: &std::ffi::OsStr) -> Self {
        let Some(array) = self.parameters.array else { return self };
        let is_npy = name.as_encoded_bytes().ends_with(b".npy");
        let form = if is_npy { Form::Npy } else { Form::Raw };
        Self { parameters: Parameters::of_array(ArrayParameters { form, ..array }), ..self }
    }
}

impl Choice {
    /// The codec whose bytes the output has, such as `zstd:3`; none, if there is none of that level.
    #[must_use]
    pub fn codec(&self) -> Option<Codec> {
        format!("zstd:{}", self.level).parse().ok()
    }
}

impl PartialEq for Codec {
    fn eq(&self, other: &Self) -> bool {
        (self.name(), self.parameters) == (other.name(), other.parameters)
    }
}

impl Eq for Codec {}

impl Hash for Codec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name(), self.parameters).hash(state);
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(array) = self.parameters.array {
            return formatter.pad(&format!("{}:{array}", self.name()));
        }
        let level = self.level().map(|level| format!(":{level}")).unwrap_or_default();
        let on = self.entry.info.switches.iter().filter(|switch| self.parameters.has(switch));
        let switches: String = on.flat_map(|switch| [",", switch.name]).collect();
        formatter.pad(&format!("{}{level}{switches}", self.name()))
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Codec({self})")
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let name = text.split([':', ',']).next().unwrap_or_default();
        let entry = *REGISTRY.iter().find(|entry| entry.info.name == name).ok_or_else(|| {
            let known: Vec<_> = Self::all().map(|info| info.name).collect();
            let unknown = Error::UnknownCodec { name: name.to_owned(), known: known.join(", ") };
            not_built_in(name).unwrap_or(unknown)
        })?;
        if entry.info.takes_arrays {
            // A name alone means what loses nothing.
            let parameters = match &text[name.len()..] {
                "" => "reversible",
                more => more.strip_prefix(':').unwrap_or(more),
            };
            let array = ArrayParameters::parse(entry.info.name, parameters)?;
            return Ok(Self { entry, parameters: Parameters::of_array(array) });
        }
        let (text, switches) = split_once(text, ',');
        let (_, level) = split_once(text, ':');
        let level = parse_level(&entry.info, level)?;
        let parameters = Parameters::of_level(level.unwrap_or_default());
        Ok(Self { entry, parameters: parse_switches(&entry.info, parameters, switches)? })
    }
}

impl TryFrom<String> for Codec {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Codec> for String {
    fn from(codec: Codec) -> Self {
        codec.to_string()
    }
}

/// Decompresses a whole stream that is in memory: a convenience for tests and small data.
///
/// The output is unbounded; for anything from outside use [`Codec::decoder`] and a bound.
///
/// # Errors
///
/// Those of [`Decoder`]: [`Error::Corrupt`], [`Error::EndedEarly`] and [`Error::TrailingBytes`].
pub fn decompress_all(codec: &Codec, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut decoder = codec.decoder();
    let mut output = Vec::new();
    let mut rest = bytes;
    loop {
        let before = output.len();
        let consumed = decoder.read(rest, &mut output, SEGMENT_BYTES)?;
        rest = &rest[consumed..];
        if consumed == 0 && output.len() == before {
            break;
        }
    }
    decoder.finish()?;
    Ok(output)
}

#[cfg(test)]
mod tests;
