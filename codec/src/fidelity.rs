//! How far decoded values are off, measured while they are compressed.

use crate::Digest;

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
    /// Digest of what the output decodes to: another one than the input's.
    pub decoded_digest: Digest,
}

/// Sums up errors, value by value, in their order.
#[cfg(feature = "zfp")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Errors {
    max: f64,
    squares: f64,
    values: u64,
    lowest: f64,
    highest: f64,
}

#[cfg(feature = "zfp")]
impl Errors {
    pub(crate) fn new() -> Self {
        Self {
            max: 0.0,
            squares: 0.0,
            values: 0,
            lowest: f64::INFINITY,
            highest: f64::NEG_INFINITY,
        }
    }

    /// Adds a value and its absolute error.
    pub(crate) fn add(&mut self, value: f64, error: f64) {
        self.max = self.max.max(error);
        self.squares += error * error;
        self.values += 1;
        self.lowest = self.lowest.min(value);
        self.highest = self.highest.max(value);
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn fidelity(&self, decoded_digest: Digest) -> Fidelity {
        let rmse = (self.squares / self.values.max(1) as f64).sqrt();
        let range = self.highest - self.lowest;
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        Fidelity {
            max_abs_error: self.max,
            nrmse: finite(rmse / range),
            psnr_db: finite(20.0 * (range / (2.0 * rmse)).log10()),
            decoded_digest,
        }
    }
}
