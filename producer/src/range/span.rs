//! Which bytes are wanted of a file: `FROM..TO`.

use std::ops::Range;
use std::str::FromStr;

use bytesize::ByteSize;

/// The bytes from one on up to, and without, another: `1GiB..1GiB+64KiB`, `1GiB..+64KiB`, `4096..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub from: u64,
    /// The first byte behind it; none: to the end of the file.
    pub to: Option<u64>,
}

impl Span {
    /// What of a part that begins at byte `at` and has so many bytes is wanted, counted from the part's own start.
    pub(super) fn within(&self, at: u64, bytes: u64) -> Range<u64> {
        let to = self.to.unwrap_or(u64::MAX).clamp(at, at.saturating_add(bytes));
        self.from.clamp(at, to) - at..to - at
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "a range is FROM..TO, such as 1GiB..1GiB+64KiB, 1GiB..+64KiB or 4096..";
        let (from, to) = text.split_once("..").ok_or(form)?;
        let from = if from.is_empty() { 0 } else { sum(from)? };
        let to = match (to, to.strip_prefix('+')) {
            ("", _) => None,
            (_, Some(more)) => Some(from.checked_add(sum(more)?).ok_or("it is too long")?),
            (to, None) => Some(sum(to)?),
        };
        if to.is_some_and(|to| to <= from) {
            return Err(format!("the range is empty: TO is the first byte behind it; {form}"));
        }
        Ok(Self { from, to })
    }
}

/// Sizes that are added: `1GiB+64KiB`.
fn sum(text: &str) -> Result<u64, String> {
    text.split('+').try_fold(0_u64, |sum, part| {
        let size = part.parse::<ByteSize>();
        let size = size.map_err(|_| format!("{part:?} is no size: use 4096, 64KiB or 1GiB"))?;
        sum.checked_add(size.as_u64()).ok_or_else(|| "it is too large".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_sizes_or_sums_of_sizes_and_its_end_is_left_out() {
        let of = |text: &str| text.parse::<Span>().map(|span| (span.from, span.to)).ok();
        assert_eq!(of("0..1"), Some((0, Some(1))));
        assert_eq!(of("1GiB..1GiB+64KiB"), Some((1 << 30, Some((1 << 30) + (64 << 10)))));
        assert_eq!(of("1KiB+1..+4KiB+2"), Some((1025, Some(1025 + 4098))));
        assert_eq!(of("7.."), Some((7, None)));
        assert_eq!(of("..7"), Some((0, Some(7))));
        for bad in ["", "7", "7..7", "8..7", "7..+0", "a..b", "1..2..3", "-1..2", "1++2..", "0..+"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(of("18446744073709551615..+18446744073709551615"), None);
    }

    #[test]
    fn what_of_a_part_is_wanted_is_counted_from_its_start() {
        let span = |from, to| Span { from, to };
        assert_eq!(span(10, Some(20)).within(0, 10), 10..10);
        assert_eq!(span(10, Some(20)).within(5, 10), 5..10);
        assert_eq!(span(10, Some(20)).within(12, 100), 0..8);
        assert_eq!(span(10, Some(20)).within(20, 10), 0..0);
        assert_eq!(span(10, None).within(8, 10), 2..10);
        assert_eq!(span(10, None).within(8, u64::MAX), 2..u64::MAX - 8);
    }
}
