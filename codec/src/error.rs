//! Everything that can be wrong with a name, a stream or a digest.

/// Why an array cannot be compressed as was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArrayFault {
    /// It is no array that the codec takes: another file, type, order or number of dimensions, or too large a plane.
    Unsupported,
    /// The input is longer or shorter than its type and shape say.
    ShapeMismatch,
    /// It has a value that is infinite or not a number, and the mode is not the reversible one.
    NonFinite,
    /// The mode is none of this type.
    ModeDtype,
    /// It has an integer that is too large for a mode that is not the reversible one.
    IntRange,
    /// The rate has no room for what each block needs.
    RateTooLow,
    /// A value came out further off than was asked.
    BoundViolated,
}

/// Why a codec, a digest or a generator refused.
///
/// The errors of a name (from [`std::str::FromStr`]) and those of a stored stream are permanent:
/// the same text or the same bytes will never do. What a [`Verifier`](crate::Verifier) reports is
/// about bytes that were made a moment ago, so making them again may well succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No codec has this name.
    #[error("unknown codec `{name}`: known are {known}")]
    UnknownCodec {
        /// The name as it was given.
        name: String,
        /// The names in the registry, for the message.
        known: String,
    },
    /// The codec has levels, but not this one.
    #[error("level {level} of {codec} is out of range: {level_min} to {level_max}")]
    LevelOutOfRange {
        /// The codec's name.
        codec: &'static str,
        /// The level as it was given; not always a number.
        level: String,
        /// The lowest level.
        level_min: u32,
        /// The highest level.
        level_max: u32,
    },
    /// The codec has no levels, and one was given.
    #[error("codec {codec} takes no level, but was given `{level}`")]
    TakesNoLevel {
        /// The codec's name.
        codec: &'static str,
        /// The level as it was given.
        level: String,
    },
    /// What follows the comma is no switch of the codec, or there twice, or in another order.
    #[error("codec {codec} takes no `,{switch}`: {hint}")]
    BadSwitch {
        /// The codec's name.
        codec: &'static str,
        /// What follows the comma.
        switch: String,
        /// What would do.
        hint: String,
    },
    /// The codec is known, and this program was built without it.
    #[error("codec {codec} is not built in: {hint}")]
    NotBuiltIn {
        /// The codec's name.
        codec: &'static str,
        /// How it is built in.
        hint: &'static str,
    },
    /// What follows the name of a codec of arrays does not say how they are compressed.
    #[error("codec {codec} takes no `:{text}`: {hint}")]
    BadMode {
        /// The codec's name.
        codec: &'static str,
        /// What follows the name and its colon.
        text: String,
        /// What would do.
        hint: String,
    },
    /// No type of values has this name.
    #[error("unknown type `{text}`: known are i32, i64, f32 and f64")]
    UnknownType {
        /// The text as it was given.
        text: String,
    },
    /// No array has this shape, or none of its type and size.
    #[error("shape `{text}`: {reason}")]
    BadShape {
        /// The text as it was given.
        text: String,
        /// Why not.
        reason: String,
    },
    /// An array that cannot be compressed as was asked. Permanent, but for [`ArrayFault::BoundViolated`], which is about bytes
    /// that were made a moment ago.
    #[error("{reason}")]
    Array {
        /// What kind of reason it is, for programs.
        fault: ArrayFault,
        /// What it is, and what to do.
        reason: String,
    },
    /// The bytes are not a stream of the codec: its structure or its checksum is wrong.
    #[error("corrupt {format} stream: {reason}")]
    Corrupt {
        /// What the bytes should have been.
        format: &'static str,
        /// What is wrong with them.
        reason: String,
    },
    /// The stream stops before its end.
    #[error("the {format} stream ended early")]
    EndedEarly {
        /// What the bytes should have been.
        format: &'static str,
    },
    /// Something follows the end of the stream.
    #[error("bytes follow the end of the {format} stream")]
    TrailingBytes {
        /// What the bytes should have been.
        format: &'static str,
    },
    /// The output decodes, but not to the input that made it.
    #[error("the output does not decode to its input: they differ at byte {offset}")]
    Mismatch {
        /// Position of the first difference, in bytes from the start of the input.
        offset: u64,
    },
    /// An encoder or a decoder was given bytes after its `finish`, or `finish` twice.
    #[error("the {format} stream was already finished")]
    Finished {
        /// The codec's format.
        format: &'static str,
    },
    /// The format has the length of the input in front, and nobody [announced](crate::Encoder::announce) it.
    #[error("the {format} encoder was not told how long its input is")]
    LengthUnknown {
        /// The codec's format.
        format: &'static str,
    },
    /// The input is longer or shorter than it was [announced](crate::Encoder::announce).
    #[error("the input is not {announced} bytes long, which {format} has to know before")]
    OtherLength {
        /// The codec's format.
        format: &'static str,
        /// How many bytes it should have had.
        announced: u64,
    },
    /// Decoding the stream takes more memory than is allowed.
    #[error(
        "the {format} stream needs a window of more than {} MiB; make it again with a smaller one",
        .most >> 20
    )]
    WindowTooLarge {
        /// What the bytes are.
        format: &'static str,
        /// The largest window, in bytes.
        most: u64,
    },
    /// The decompression library failed, which says nothing about the stream.
    #[error("the {format} decoder failed: {reason}")]
    Decoder {
        /// The codec's format.
        format: &'static str,
        /// What it said.
        reason: String,
    },
    /// The compression library broke its own promise.
    #[error("the {format} encoder failed: {reason}")]
    Encoder {
        /// The codec's format.
        format: &'static str,
        /// What it said, or did.
        reason: String,
    },
    /// A [`Joiner`](crate::Joiner) was given something that is not the next block.
    #[error("block {block} of the {format} file cannot be joined: {reason}")]
    Unjoinable {
        /// The codec's format.
        format: &'static str,
        /// Which block it is, from 0.
        block: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The text is not `sha256:` and 64 lower-case hexadecimal digits.
    #[error("`{text}` is not a digest: expected sha256: and 64 lower-case hexadecimal digits")]
    BadDigest {
        /// The text as it was given.
        text: String,
    },
    /// No kind of generated input has this name.
    #[error(
        "unknown kind of data `{text}`: known are random, text, zeros, field, field-rough and field-constant"
    )]
    UnknownDataKind {
        /// The text as it was given.
        text: String,
    },
}

impl Error {
    /// Whether a decoder says with it that the stream is not what it should be, and not that there was no memory to tell.
    #[must_use]
    pub fn is_of_stream(&self) -> bool {
        !matches!(self, Self::Decoder { .. })
    }
}
