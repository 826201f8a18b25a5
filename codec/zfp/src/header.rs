//! What a stream's header says: type, dimensions, and how blocks are compressed. In plain Rust, as the format is documented.

/// What a block takes at most, in bytes, rounded up: 16,658 bits where it is packed densest (`ZFP_MAX_BITS`), and 32,768 where
/// a header asks for filling.
pub const BLOCK_BYTES_MAX: usize = 6 * 1024;
/// What a header takes at least, in bytes: 96 bits.
pub(crate) const HEADER_BYTES_MIN: usize = 12;
/// What a header takes at most, in bytes: 148 bits.
pub const HEADER_BYTES_MAX: usize = 19;

/// A type of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// Binary floating point, 32 bits.
    F32,
    /// Binary floating point, 64 bits.
    F64,
}

impl Kind {
    /// Every kind, in the order of their numbers in a header.
    pub const ALL: [Self; 4] = [Self::I32, Self::I64, Self::F32, Self::F64];

    /// Bits of a value.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::I32 | Self::F32 => 32,
            Self::I64 | Self::F64 => 64,
        }
    }

    /// The fewest bits of a block of this type: a common exponent and the flag before it have to fit.
    #[must_use]
    pub fn block_bits_min(self) -> u32 {
        match self {
            Self::I32 | Self::I64 => 1,
            Self::F32 => 1 + 8,
            Self::F64 => 1 + 11,
        }
    }
}

/// The most bits of a block (`ZFP_MAX_BITS`).
const BITS_MAX: u32 = 16_658;
/// The most bit planes (`ZFP_MAX_PREC`).
const PLANES_MAX: u32 = 64;
/// The lowest bit plane of any double (`ZFP_MIN_EXP`).
const EXPONENT_MIN: i32 = -1074;
/// The number of reversible compression among the short modes; behind it are tolerances, before it precisions.
const REVERSIBLE: u64 = 2048 + 128;
/// What stands in the place of a short mode where a long one follows.
const LONG: u64 = 0xfff;

/// How blocks are compressed, in zfp's own terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Least bits of a block: it is filled up to them.
    pub(crate) bits_min: u32,
    /// Most bits of a block.
    pub(crate) bits_max: u32,
    /// Most bit planes.
    pub(crate) planes: u32,
    /// The lowest bit plane that is kept; below [`EXPONENT_MIN`], nothing at all is lost.
    pub(crate) exponent_min: i32,
}

impl Parameters {
    /// Every bit is kept.
    #[must_use]
    pub fn reversible() -> Self {
        Self { exponent_min: EXPONENT_MIN - 1, ..Self::precision(PLANES_MAX) }
    }

    /// So many bits for each value on average, rounded to whole bits of a block of `dimensions`, 1 to 4; finite and positive.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from a float saturates, and is bounded next"
    )]
    pub fn rate(rate: f64, kind: Kind, dimensions: usize) -> Self {
        let bits = (rate * f64::from(1_u32 << (2 * dimensions)) + 0.5).floor() as u32;
        let bits = bits.clamp(kind.block_bits_min(), BITS_MAX);
        Self { bits_min: bits, bits_max: bits, planes: PLANES_MAX, exponent_min: EXPONENT_MIN }
    }

    /// So many bit planes, 1 to 64.
    #[must_use]
    pub fn precision(planes: u32) -> Self {
        let planes = planes.clamp(1, PLANES_MAX);
        Self { bits_min: 1, bits_max: BITS_MAX, planes, exponent_min: EXPONENT_MIN }
    }

    /// No value shall be off by more than `tolerance`, finite and positive. It shall: whoever needs it compares.
    #[must_use]
    pub fn accuracy(tolerance: f64) -> Self {
        Self { exponent_min: exponent(tolerance), ..Self::precision(PLANES_MAX) }
    }

    /// Whether nothing is lost.
    #[must_use]
    pub fn is_reversible(self) -> bool {
        self.exponent_min < EXPONENT_MIN
    }

    /// The most bits of a block.
    #[must_use]
    pub fn block_bits_max(self, kind: Kind, dimensions: usize) -> u32 {
        let around = match (kind, self.is_reversible()) {
            (Kind::I32, true) => 5,
            (Kind::I64, true) => 6,
            (Kind::I32 | Kind::I64, false) => 0,
            (Kind::F32, true) => 1 + 1 + 8 + 5,
            (Kind::F32, false) => 1 + 8,
            (Kind::F64, true) => 1 + 1 + 11 + 6,
            (Kind::F64, false) => 1 + 11,
        };
        let values = 1 << (2 * dimensions);
        let bits = around + values - 1 + values * self.planes.min(kind.bits());
        bits.min(self.bits_max).max(self.bits_min)
    }

    /// The bits of every block, if all have the same.
    #[must_use]
    pub fn block_bits(self) -> Option<u32> {
        (self.bits_min == self.bits_max).then_some(self.bits_max)
    }

    /// The short mode of a header, or the long one, and how many bits it has.
    fn mode(self) -> (u64, u32) {
        let Self { bits_min, bits_max, planes, exponent_min } = self;
        let short = if self == Self::reversible() {
            Some(REVERSIBLE)
        } else if self == Self::precision(PLANES_MAX) {
            // What every stream begins with before a mode is set: zfp writes it in full.
            None
        } else if self == Self::precision(planes) {
            Some(2048 + u64::from(planes) - 1)
        } else if bits_min == bits_max && planes == PLANES_MAX && exponent_min == EXPONENT_MIN {
            Some(u64::from(bits_max) - 1).filter(|mode| *mode < 2048)
        } else if self == (Self { exponent_min, ..Self::precision(PLANES_MAX) }) {
            let mode = u64::try_from(exponent_min - EXPONENT_MIN).ok();
            mode.map(|mode| mode + REVERSIBLE + 1).filter(|mode| *mode < LONG)
        } else {
            None
        };
        let long = || {
            let exponent = u64::try_from(exponent_min + 16_495).unwrap_or_default();
            let mode = exponent << 7 | u64::from(planes - 1);
            let mode = mode << 15 | u64::from(bits_max - 1);
            (mode << 15 | u64::from(bits_min - 1)) << 12 | LONG
        };
        short.map_or_else(|| (long(), 64), |mode| (mode, 12))
    }

    /// What a mode in a header says; none, if zfp has no such.
    fn of_mode(mode: u64) -> Option<Self> {
        let low =
            |bits: u64, count: u32| u32::try_from(bits & ((1 << count) - 1)).unwrap_or_default();
        let parameters = match mode {
            0..2048 => {
                let bits = low(mode, 12) + 1;
                let (bits_min, bits_max) = (bits, bits);
                let (planes, exponent_min) = (PLANES_MAX, EXPONENT_MIN);
                Self { bits_min, bits_max, planes, exponent_min }
            }
            2048..REVERSIBLE => {
                let planes = low(mode - 2048, 12) + 1;
                return (planes <= PLANES_MAX).then(|| Self::precision(planes));
            }
            REVERSIBLE => Self::reversible(),
            _ if mode < LONG => {
                let above = i32::try_from(mode - REVERSIBLE - 1).ok()?;
                Self { exponent_min: EXPONENT_MIN + above, ..Self::precision(PLANES_MAX) }
            }
            _ => Self {
                bits_min: low(mode >> 12, 15) + 1,
                bits_max: low(mode >> 27, 15) + 1,
                planes: low(mode >> 42, 7) + 1,
                exponent_min: i32::try_from(low(mode >> 49, 15)).ok()? - 16_495,
            },
        };
        let fits = parameters.bits_min <= parameters.bits_max && parameters.planes <= PLANES_MAX;
        fits.then_some(parameters)
    }
}

/// The exponent of the largest power of two that is not above `tolerance`.
fn exponent(tolerance: f64) -> i32 {
    let bits = tolerance.to_bits() & !(1 << 63);
    let (biased, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
    let exponent = match biased {
        0 => i64::from(63 - fraction.leading_zeros().min(63)) - 1074,
        biased => i64::try_from(biased).unwrap_or_default() - 1023,
    };
    i32::try_from(exponent).unwrap_or(EXPONENT_MIN)
}

/// The codec's version, which a stream begins with.
pub(crate) const MAGIC: [u8; 4] = [b'z', b'f', b'p', 5];

/// A full header: magic, type and dimensions, mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The type.
    pub kind: Kind,
    /// Values in each dimension, the slowest first, each at least 1; unused ones behind are 1.
    pub shape: [u64; 4],
    /// How many dimensions there are, 1 to 4.
    pub dimensions: usize,
    /// How blocks are compressed.
    pub parameters: Parameters,
}

impl Header {
    /// The most values in each of so many dimensions, 1 to 4.
    #[must_use]
    pub fn extent_max(dimensions: usize) -> u64 {
        match dimensions {
            // 48 bits in the header, of which zfp reads 32.
            1 => 1 << 32,
            2 => 1 << 24,
            3 => 1 << 16,
            _ => 1 << 12,
        }
    }

    /// The header's bits, the first in the lowest place, and how many there are: 96 or 148.
    #[must_use]
    pub fn bits(&self) -> (u128, u32, u32) {
        let each = match self.dimensions {
            1 => 48,
            2 => 24,
            3 => 16,
            _ => 12,
        };
        let used = self.shape.iter().take(self.dimensions);
        let meta = used.fold(0, |meta, values| meta << each | (values - 1));
        let meta = meta << 2 | (self.dimensions as u64 - 1);
        let meta =
            meta << 2 | Kind::ALL.iter().position(|kind| *kind == self.kind).unwrap_or(0) as u64;
        let (mode, mode_bits) = self.parameters.mode();
        let magic = u128::from(u32::from_le_bytes(MAGIC));
        // The last of 148 bits do not fit, and come apart.
        let front = magic | u128::from(meta) << 32 | u128::from(mode) << 84;
        let rest = (mode >> 44) as u32;
        (front, rest, 84 + mode_bits)
    }

    /// Reads a header from the front of a stream, and how many bits it has; `None` if it is none that zfp knows. Bytes that
    /// are missing are zeros to it: the length is that of the whole header, from 12 bytes on.
    #[must_use]
    pub fn read(front: &[u8]) -> Option<(Self, u32)> {
        let mut bytes = [0; 32];
        let there = front.len().min(HEADER_BYTES_MAX);
        bytes[..there].copy_from_slice(&front[..there]);
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        if bytes[..4] != MAGIC {
            return None;
        }
        let meta = (word(4)) & ((1 << 52) - 1);
        let kind = *Kind::ALL.get(usize::try_from(meta & 3).ok()?)?;
        let dimensions = usize::try_from(meta >> 2 & 3).ok()? + 1;
        let (each, mut left) = ([48, 24, 16, 12][dimensions - 1], meta >> 4);
        let mut shape = [1; 4];
        for values in shape[..dimensions].iter_mut().rev() {
            *values = (left & ((1 << each) - 1)) + 1;
            left >>= each;
        }
        // The mode begins at bit 84, in the middle of a byte.
        let mode = word(10) >> 4 | word(18) << 60;
        let (mode, bits) = if mode & LONG == LONG { (mode, 64) } else { (mode & LONG, 12) };
        let parameters = Parameters::of_mode(mode)?;
        let fits = shape[..dimensions].iter().all(|values| *values <= Self::extent_max(dimensions));
        fits.then_some((Self { kind, shape, dimensions, parameters }, 84 + bits))
    }
}
