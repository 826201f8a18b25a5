//! The type and the shape of an array: `f32` and `100x500x500`.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The most dimensions of an array.
pub(crate) const DIMENSIONS_MAX: usize = 4;

/// A type of values, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// Signed, 4 bytes.
    I32,
    /// Signed, 8 bytes.
    I64,
    /// Binary floating point, 4 bytes.
    F32,
    /// Binary floating point, 8 bytes.
    F64,
}

impl Scalar {
    /// Every type, in the order that help texts list them.
    pub const ALL: [Self; 4] = [Self::I32, Self::I64, Self::F32, Self::F64];

    /// Bytes of a value.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether it is a floating point number.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    fn name(self) -> &'static str {
        match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Scalar {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|scalar| scalar.name() == text);
        found.ok_or_else(|| Error::UnknownType { text: text.to_owned() })
    }
}

/// How many values an array has in each of its one to four dimensions: at least one, and 2^48 in all at most.
///
/// Its text is `100x500x500`, the slowest dimension first, as numpy prints a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Those behind the dimensions are 1.
    extents: [u64; DIMENSIONS_MAX],
    dimensions: usize,
}

impl Shape {
    /// A shape of these extents, the slowest first.
    ///
    /// # Errors
    ///
    /// [`Error::BadShape`] if they are none or more than four, if one is 0, or if they are too large for a file of zfp.
    pub fn new(extents: &[u64]) -> Result<Self, Error> {
        let refuse = |reason: String| {
            let text: Vec<_> = extents.iter().map(ToString::to_string).collect();
            Error::BadShape { text: text.join("x"), reason }
        };
        let dimensions = extents.len();
        if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(refuse(format!("{dimensions} dimensions; 1 to 4 are possible")));
        }
        let most = Self::extent_max(dimensions);
        if let Some(extent) = extents.iter().find(|extent| !(1..=most).contains(*extent)) {
            return Err(refuse(format!(
                "{extent} values; 1 to {most} are possible in each of {dimensions} dimensions"
            )));
        }
        let mut all = [1; DIMENSIONS_MAX];
        all[..dimensions].copy_from_slice(extents);
        Ok(Self { extents: all, dimensions })
    }

    /// The most values in each of so many dimensions: what a header of zfp has room for, and zfp reads.
    fn extent_max(dimensions: usize) -> u64 {
        match dimensions {
            1 => 1 << 32,
            2 => 1 << 24,
            3 => 1 << 16,
            _ => 1 << 12,
        }
    }

    /// The extents, the slowest first.
    #[must_use]
    pub fn extents(&self) -> &[u64] {
        &self.extents[..self.dimensions]
    }

    /// How many values an array of this shape has.
    #[must_use]
    pub fn values(&self) -> u64 {
        self.extents.iter().product()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extents: Vec<_> = self.extents().iter().map(ToString::to_string).collect();
        formatter.pad(&extents.join("x"))
    }
}

impl FromStr for Shape {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || Error::BadShape {
            text: text.to_owned(),
            reason: "it is written as 100x500x500, the slowest dimension first".to_owned(),
        };
        // One text for one shape: no `+6`, no `06`.
        let extent = |text: &str| text.parse().ok().filter(|n: &u64| n.to_string() == text);
        let extents: Option<Vec<_>> = text.split('x').map(extent).collect();
        Self::new(&extents.ok_or_else(refuse)?)
    }
}

/// The type and the shape of an array; its text is `f32,100x500x500`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// The type of its values.
    pub scalar: Scalar,
    /// How many there are, in each dimension.
    pub shape: Shape,
}

impl Grid {
    /// The shape that generated input of so many bytes has where none is given, of values of a type: planes of 256 × 256 if
    /// it has two of them or more, or rows of 256, or a single row.
    ///
    /// # Errors
    ///
    /// [`Error::BadShape`] if the bytes are not whole values, or none.
    pub fn of_bytes(scalar: Scalar, bytes: u64) -> Result<Self, Error> {
        let (values, rest) = (bytes / scalar.bytes() as u64, bytes % scalar.bytes() as u64);
        if rest > 0 || values == 0 {
            let reason = format!("{bytes} bytes are not one value of {scalar} or more");
            return Err(Error::BadShape { text: String::new(), reason });
        }
        let shape = match (values.is_multiple_of(256), values / 256 % 256, values >> 16) {
            (true, 0, planes @ 2..) => Shape::new(&[planes, 256, 256]),
            (true, ..) => Shape::new(&[values / 256, 256]),
            (false, ..) => Shape::new(&[values]),
        };
        Ok(Self { scalar, shape: shape? })
    }

    /// Bytes of the array.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shape.values() * self.scalar.bytes() as u64
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{},{}", self.scalar, self.shape)
    }
}

impl FromStr for Grid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (scalar, shape) = text.split_once(',').unwrap_or((text, ""));
        Ok(Self { scalar: scalar.parse()?, shape: shape.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_reads_as_it_prints() {
        for text in ["f32,100x500x500", "i64,1", "f64,4096x4096x4096x4096", "i32,4294967296"] {
            let grid: Grid = text.parse().unwrap();
            assert_eq!(grid.to_string(), text);
        }
        let grid: Grid = "f64,3x5".parse().unwrap();
        assert_eq!((grid.bytes(), grid.shape.extents()), (120, &[3, 5][..]));
    }

    #[test]
    fn a_shape_that_cannot_be_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "100x500x500"),
            ("3x", "100x500x500"),
            ("03x4", "100x500x500"),
            ("3 x 4", "100x500x500"),
            ("0x4", "1 to 16777216"),
            ("1x1x1x1x1", "5 dimensions; 1 to 4"),
            ("4294967297", "1 to 4294967296"),
            ("4097x1x1x1", "1 to 4096"),
        ] {
            let error = text.parse::<Shape>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let error = "f16,3".parse::<Grid>().unwrap_err().to_string();
        assert_eq!(error, "unknown type `f16`: known are i32, i64, f32 and f64");
    }

    #[test]
    fn generated_input_has_a_shape_by_its_size() {
        let of = |scalar, bytes| Grid::of_bytes(scalar, bytes).map(|grid| grid.to_string());
        assert_eq!(of(Scalar::F32, 2 << 20), Ok("f32,8x256x256".to_owned()));
        assert_eq!(of(Scalar::F64, 2 << 20), Ok("f64,4x256x256".to_owned()));
        assert_eq!(of(Scalar::F32, 256 << 10), Ok("f32,256x256".to_owned()));
        assert_eq!(of(Scalar::F32, 3 << 10), Ok("f32,3x256".to_owned()));
        assert_eq!(of(Scalar::I32, 4000), Ok("i32,1000".to_owned()));
        assert!(of(Scalar::F64, 12).is_err() && of(Scalar::F32, 0).is_err());
    }
}
