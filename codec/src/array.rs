//! What follows the name of a codec of arrays: how they are compressed, and what its inputs are.
//!
//! `zfp:accuracy=1e-3` takes `.npy` files, which say type and shape themselves. `zfp:accuracy=1e-3,f32,100x500x500` takes bare
//! values. `zfp:accuracy=1e-3,raw` gives bare values, whose type and shape the file of zfp says: it only decodes.

use std::fmt;

use crate::Error;
use crate::error::ArrayFault;
use crate::grid::{Grid, Scalar};

/// How arrays are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// Bit for bit.
    Reversible,
    /// So many bits a value, on average.
    Rate(Positive),
    /// So many bit planes, 1 to 64.
    Precision(u32),
    /// No value off by more.
    Accuracy(Positive),
}

/// A positive, finite number, which equals another one if it has the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Positive(u64);

impl Positive {
    pub(crate) fn of(value: f64) -> Option<Self> {
        (value > 0.0 && value.is_finite()).then(|| Self(value.to_bits()))
    }

    pub(crate) fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl fmt::Display for Positive {
    /// The shorter one of `0.001` and `1e-3`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plain, power) = (self.get().to_string(), format!("{:e}", self.get()));
        formatter.write_str(if power.len() < plain.len() { &power } else { &plain })
    }
}

impl fmt::Debug for Positive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// What the inputs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// Files of numpy, with their header.
    Npy,
    /// Bare values of a type and shape that nobody has said.
    Raw,
    /// Bare values.
    Grid(Grid),
}

/// All that follows the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ArrayParameters {
    pub(crate) mode: Mode,
    pub(crate) form: Form,
}

/// The bits of a block that a type's exponent takes, and those of the flag before it.
fn block_bits_min(scalar: Scalar) -> f64 {
    match scalar {
        Scalar::I32 | Scalar::I64 => 1.0,
        Scalar::F32 => 9.0,
        Scalar::F64 => 12.0,
    }
}

impl ArrayParameters {
    /// Reads what follows the name and its colon.
    ///
    /// # Errors
    ///
    /// [`Error::BadMode`], [`Error::UnknownType`], [`Error::BadShape`], and those of [`check`](Self::check).
    pub(crate) fn parse(codec: &'static str, text: &str) -> Result<Self, Error> {
        let (mode, form) = text.split_once(',').map_or((text, None), |(m, f)| (m, Some(f)));
        let is_form = |form: &&str| *form == "raw" || form.parse::<Grid>().is_ok();
        if let Some(form) = form.filter(is_form).filter(|_| mode.is_empty()) {
            return Err(Self::no_mode(codec, form));
        }
        let mode = Self::parse_mode(codec, mode)?;
        let form = match form {
            None => Form::Npy,
            Some("raw") => Form::Raw,
            Some(grid) => Form::Grid(grid.parse()?),
        };
        if let Form::Grid(grid) = form {
            mode.check(&grid)?;
        }
        Ok(Self { mode, form })
    }

    /// That a codec's type and shape stand where its mode has to.
    fn no_mode(codec: &'static str, form: &str) -> Error {
        let hint = format!(
            "the mode comes first: {codec}:MODE,{form}, such as {codec}:reversible,{form} or {codec}:accuracy=1e-3,{form}"
        );
        Error::BadMode { codec, text: form.to_owned(), hint }
    }

    fn parse_mode(codec: &'static str, text: &str) -> Result<Mode, Error> {
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
        let refuse = |hint: &str| {
            let (text, hint) = (text.to_owned(), hint.to_owned());
            Error::BadMode { codec, text, hint }
        };
        let positive = || value.and_then(|value| value.parse().ok()).and_then(Positive::of);
        match (name, value) {
            ("reversible", None) => Ok(Mode::Reversible),
            ("rate", _) => {
                let rate = positive().filter(|rate| rate.get() <= 64.0);
                rate.map(Mode::Rate)
                    .ok_or_else(|| refuse("a rate is above 0 and at most 64 bits a value: rate=8"))
            }
            ("precision", _) => {
                let planes = value.and_then(|value| value.parse().ok());
                let planes = planes.filter(|planes| (1..=64).contains(planes));
                planes
                    .map(Mode::Precision)
                    .ok_or_else(|| refuse("a precision is 1 to 64 bit planes: precision=20"))
            }
            ("accuracy", _) => positive().map(Mode::Accuracy).ok_or_else(|| {
                refuse("an accuracy is the largest absolute error, above 0: accuracy=1e-3")
            }),
            _ => Err(refuse("use reversible, rate=8, precision=20 or accuracy=1e-3")),
        }
    }

    /// Whether an input may come back as other bytes.
    pub(crate) fn is_lossy(self) -> bool {
        self.mode != Mode::Reversible
    }
}

impl Mode {
    /// Whether arrays of this type and shape can be compressed so.
    ///
    /// # Errors
    ///
    /// [`Error::Array`]: [`ArrayFault::ModeDtype`] or [`ArrayFault::RateTooLow`].
    pub(crate) fn check(self, grid: &Grid) -> Result<(), Error> {
        let Grid { scalar, shape } = grid;
        let (fault, reason) = match self {
            Self::Accuracy(_) if !scalar.is_float() => {
                let reason = format!(
                    "an absolute error is no mode of {scalar}: use reversible, precision or rate"
                );
                (ArrayFault::ModeDtype, reason)
            }
            Self::Rate(rate) => {
                let dimensions = shape.extents().len();
                let values = f64::from(1_u32 << (2 * dimensions));
                if (rate.get() * values + 0.5).floor() >= block_bits_min(*scalar) {
                    return Ok(());
                }
                let least = block_bits_min(*scalar) / values;
                let reason = format!(
                    "a rate of {rate} is too low for {scalar} in {dimensions} dimensions: at least {least}"
                );
                (ArrayFault::RateTooLow, reason)
            }
            _ => return Ok(()),
        };
        Err(Error::Array { fault, reason })
    }
}

impl fmt::Display for ArrayParameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            Mode::Reversible => formatter.write_str("reversible")?,
            Mode::Rate(rate) => write!(formatter, "rate={rate}")?,
            Mode::Precision(planes) => write!(formatter, "precision={planes}")?,
            Mode::Accuracy(tolerance) => write!(formatter, "accuracy={tolerance}")?,
        }
        match self.form {
            Form::Npy => Ok(()),
            Form::Raw => formatter.write_str(",raw"),
            Form::Grid(grid) => write!(formatter, ",{grid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_text() {
        for (given, printed) in [
            ("accuracy=0.001", "accuracy=1e-3"),
            ("accuracy=1E-12,f64,3x4", "accuracy=1e-12,f64,3x4"),
            ("accuracy=0.010", "accuracy=0.01"),
            ("accuracy=1000000", "accuracy=1e6"),
            ("rate=8.0", "rate=8"),
            ("rate=2.25,f32,9", "rate=2.25,f32,9"),
            ("precision=20,raw", "precision=20,raw"),
            ("reversible,i64,7", "reversible,i64,7"),
        ] {
            let read = ArrayParameters::parse("zfp", given).unwrap();
            assert_eq!(read.to_string(), printed);
            assert_eq!(ArrayParameters::parse("zfp", printed), Ok(read));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_before_any_work() {
        for (text, why) in [
            ("", "use reversible"),
            ("lossless", "use reversible"),
            (",full", "use reversible"),
            (",f32,3", "zfp:MODE,f32,3"),
            (",raw", "zfp:MODE,raw"),
            ("reversible=1", "use reversible"),
            ("rate", "rate=8"),
            ("rate=0", "rate=8"),
            ("rate=65", "rate=8"),
            ("precision=0", "precision=20"),
            ("precision=65", "precision=20"),
            ("accuracy=0", "accuracy=1e-3"),
            ("accuracy=-1", "accuracy=1e-3"),
            ("accuracy=inf", "accuracy=1e-3"),
            ("accuracy=NaN", "accuracy=1e-3"),
            ("accuracy=1,f16,3", "known are i32"),
            ("accuracy=1,f32", "100x500x500"),
            ("accuracy=1,i32,3", "no mode of i32"),
            ("rate=2,f32,9", "at least 2.25"),
            ("rate=2.5,f64,9", "at least 3"),
        ] {
            let error = ArrayParameters::parse("zfp", text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(ArrayParameters::parse("zfp", "rate=0.5,f64,9x9").is_err());
        assert!(ArrayParameters::parse("zfp", "rate=0.75,f64,9x9").is_ok());
    }
}
