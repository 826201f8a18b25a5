//! Median, minimum and maximum of several measurements.

use std::fmt;

use serde::Serialize;

/// Minimum, median, maximum and count; no mean, which one bad moment of the machine decides.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
    pub(crate) count: usize,
}

impl Spread {
    /// Sums `values` up; of none, all is zero.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
            return Self { min: 0.0, median: 0.0, max: 0.0, count };
        };
        let median = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
        Self { min, median, max, count }
    }

    /// Divides pair by pair: both of a pair were measured in the same round.
    pub(crate) fn of_ratios(values: &[f64], references: &[f64]) -> Self {
        let ratios: Vec<_> = values.iter().zip(references).map(|(a, b)| a / b).collect();
        Self::of(&ratios)
    }

    /// Subtracts pair by pair.
    pub(crate) fn of_differences(values: &[f64], references: &[f64]) -> Self {
        let differences: Vec<_> = values.iter().zip(references).map(|(a, b)| a - b).collect();
        Self::of(&differences)
    }
}

impl fmt::Display for Spread {
    /// Writes `median (min–max)`, with the formatter's precision.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = formatter.precision().unwrap_or(0);
        let Self { min, median, max, .. } = self;
        write!(formatter, "{median:.places$} ({min:.places$}–{max:.places$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_of_any_count() {
        assert_eq!(
            Spread::of(&[3.0, 1.0, 2.0]),
            Spread { min: 1.0, median: 2.0, max: 3.0, count: 3 }
        );
        assert_eq!(Spread::of(&[4.0, 1.0]), Spread { min: 1.0, median: 2.5, max: 4.0, count: 2 });
        assert_eq!(Spread::of(&[]).count, 0);
    }

    #[test]
    fn ratios_are_taken_inside_a_round() {
        // The machine was half as fast in the second round, for both.
        let ratio = Spread::of_ratios(&[11.0, 22.0], &[10.0, 20.0]);
        assert_eq!(format!("{ratio:.2}"), "1.10 (1.10–1.10)");
    }
}
