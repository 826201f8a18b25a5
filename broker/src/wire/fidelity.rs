//! How far the values of an output are off, where it was not asked to keep every bit.

use bagpress_codec::Digest;
use serde::{Deserialize, Serialize};

/// What the worker measured while it compressed an array, value by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fidelity {
    /// The largest absolute error.
    pub max_abs_error: Figure,
    /// Root of the mean squared error, divided by the range of the values; none, if all are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nrmse: Option<Figure>,
    /// Signal to noise, in dB; none, if nothing was lost or all values are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psnr_db: Option<Figure>,
    /// The largest absolute value, if it makes others coarse: see [`bagpress_codec::Fidelity::outlier`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier: Option<Figure>,
    /// Digest of what the output decodes to: not that of the input.
    pub decoded_digest: Digest,
}

/// A finite number, which equals another one if it has the same bits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Figure(f64);

impl Figure {
    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Figure {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Figure {}

impl TryFrom<f64> for Figure {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if value.is_finite() { Ok(Self(value)) } else { Err(format!("{value} is no figure")) }
    }
}

impl From<Figure> for f64 {
    fn from(figure: Figure) -> Self {
        figure.0
    }
}

impl From<bagpress_codec::Fidelity> for Fidelity {
    /// An error that is no number, which no array within a bound has, is told as the largest there is.
    fn from(measured: bagpress_codec::Fidelity) -> Self {
        let figure = |value: f64| Figure::try_from(value).ok();
        Self {
            max_abs_error: figure(measured.max_abs_error).unwrap_or(Figure(f64::MAX)),
            nrmse: measured.nrmse.and_then(figure),
            psnr_db: measured.psnr_db.and_then(figure),
            outlier: measured.outlier.and_then(figure),
            decoded_digest: measured.decoded_digest,
        }
    }
}

impl std::fmt::Display for Fidelity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "largest error {:e}", self.max_abs_error.get())?;
        if let Some(nrmse) = self.nrmse {
            write!(f, ", nrmse {:.3e}", nrmse.get())?;
        }
        if let Some(psnr) = self.psnr_db {
            write!(f, ", PSNR {:.2} dB", psnr.get())?;
        }
        if let Some(outlier) = self.outlier {
            write!(f, ", values up to {:e} beside far smaller ones", outlier.get())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_format_is_pinned_and_gives_every_bit_again() {
        let measured = bagpress_codec::Fidelity {
            max_abs_error: 0.000_976_562_499_999_999_9,
            nrmse: Some(1.0 / 3.0),
            psnr_db: Some(90.309),
            outlier: Some(1e30),
            decoded_digest: Digest::of(b"decoded"),
        };
        let fidelity = Fidelity::from(measured);
        let json = serde_json::to_string(&fidelity).unwrap();
        insta::assert_snapshot!(json, @r#"{"max_abs_error":0.0009765624999999999,"nrmse":0.3333333333333333,"psnr_db":90.309,"outlier":1e+30,"decoded_digest":"sha256:174985e4dd3b2df2a316acc62b781b8712734467cc92f94ddccc6530acb14f1e"}"#);
        assert_eq!(serde_json::from_str::<Fidelity>(&json).unwrap(), fidelity);
        assert_eq!(
            fidelity.to_string(),
            "largest error 9.765624999999999e-4, nrmse 3.333e-1, PSNR 90.31 dB, \
             values up to 1e30 beside far smaller ones"
        );
        assert!(serde_json::from_str::<Figure>("1e999").is_err());
    }
}
