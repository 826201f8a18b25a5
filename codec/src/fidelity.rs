//! How far decoded values are off, measured while they are compressed.

use crate::digest::Digest;

/// What became of an array that was not compressed bit for bit.
///
/// As the stock `zfp -s` has them: *rmse* is the root of the mean squared error, *nrmse* that divided by the range of the values,
/// and *PSNR* 20 log₁₀(range ÷ (2 × rmse)).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fidelity {
    /// The largest absolute error of any value.
    pub max_abs_error: f64,
    /// Root of the mean squared error, divided by the range of the values; none, if all are equal.
    pub nrmse: Option<f64>,
    /// Signal to noise, in dB; none, if nothing was lost or all values are equal.
    pub psnr_db: Option<f64>,
    /// The largest absolute value, where no error was bounded and it is more than 2^30 times as large as many of the others, as those are that stand
    /// for a missing value: zfp makes the values beside such ones coarse.
    pub outlier: Option<f64>,
    /// Digest of what the output decodes to: another one than the input's.
    pub decoded_digest: Digest,
}

/// Sums up errors, value by value, in their order.
#[cfg(feature = "zfp")]
#[derive(Debug, Clone)]
pub(crate) struct Errors {
    max: f64,
    squares: f64,
    values: u64,
    lowest: f64,
    highest: f64,
    /// How many values have each exponent.
    exponents: Box<[u64; EXPONENTS]>,
}

/// Exponents of double precision, with those of zero and of what is not finite.
#[cfg(feature = "zfp")]
const EXPONENTS: usize = 1 << 11;
/// How much larger than others, as a power of two, the largest value may be. That is more than the bits that are usually asked for.
#[cfg(feature = "zfp")]
const RANGE_LOG: usize = 30;
/// One value in so many is that small in a smooth field too, where it passes through zero.
#[cfg(feature = "zfp")]
const SMALL_PART: u64 = 1000;
/// And so few may be in any array.
#[cfg(feature = "zfp")]
const SMALL_MIN: u64 = 10;

#[cfg(feature = "zfp")]
impl Errors {
    pub(crate) fn new() -> Self {
        Self {
            max: 0.0,
            squares: 0.0,
            values: 0,
            lowest: f64::INFINITY,
            highest: f64::NEG_INFINITY,
            exponents: Box::new([0; EXPONENTS]),
        }
    }

    /// Adds a value and its absolute error.
    pub(crate) fn add(&mut self, value: f64, error: f64) {
        self.max = self.max.max(error);
        self.squares += error * error;
        self.values += 1;
        self.lowest = self.lowest.min(value);
        self.highest = self.highest.max(value);
        self.exponents[exponent(value)] += 1;
    }

    /// The largest absolute value, if it is far from many of the others that are not zero.
    fn outlier(&self) -> Option<f64> {
        let largest = self.highest.abs().max(self.lowest.abs());
        let far = exponent(largest).saturating_sub(RANGE_LOG).max(1);
        let others: u64 = self.exponents[1..far].iter().sum();
        (others > (self.values / SMALL_PART).max(SMALL_MIN)).then_some(largest)
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn fidelity(&self, is_bounded: bool, decoded_digest: Digest) -> Fidelity {
        let rmse = (self.squares / self.values.max(1) as f64).sqrt();
        let range = self.highest - self.lowest;
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        Fidelity {
            max_abs_error: self.max,
            nrmse: finite(rmse / range),
            psnr_db: finite(20.0 * (range / (2.0 * rmse)).log10()),
            outlier: self.outlier().filter(|_| !is_bounded),
            decoded_digest,
        }
    }
}

/// The biased exponent of a number: 0 of zero, and of numbers that are as good as that.
#[cfg(feature = "zfp")]
fn exponent(value: f64) -> usize {
    (value.to_bits() >> 52) as usize % EXPONENTS
}

#[cfg(feature = "zfp")]
#[cfg(test)]
mod tests {
    use std::iter::repeat_n;

    use super::*;

    fn outlier(values: impl IntoIterator<Item = f64>) -> Option<f64> {
        let mut errors = Errors::new();
        for value in values {
            errors.add(value, 0.0);
        }
        assert_eq!(errors.fidelity(true, Digest::of(b"")).outlier, None);
        errors.fidelity(false, Digest::of(b"")).outlier
    }

    #[test]
    fn what_stands_for_a_missing_value_is_told_and_a_smooth_field_is_not() {
        let wave = || (0..10_000).map(|at| 300.0 * (f64::from(at) / 100.0).sin());
        assert_eq!(outlier(wave()), None);
        assert_eq!(outlier(wave().chain(repeat_n(0.0, 5000))), None);
        assert_eq!(outlier(wave().chain(repeat_n(-1e30, 1))), Some(1e30));
        assert_eq!(outlier(wave().chain(repeat_n(9e7, 90_000))), None);
        assert_eq!(outlier(wave().chain(repeat_n(9e36, 90_000))), Some(9e36));
        assert_eq!(outlier([0.0; 10]), None);
        assert_eq!(outlier([]), None);
    }
}
