//! Numbers and texts from elsewhere: one that is out of its bounds is refused where it is decoded, so none arrives.
//!
//! For `#[serde(deserialize_with)]`, so that it holds however a message comes: by itself, inside an answer, or in a line
//! of a ledger.

use std::fmt::Display;

use bagpress_codec::{Choice, EntryPoint};
use serde::de::{Deserialize, Deserializer, Error};

use crate::limits;

/// What of a result is about one place where its output can be entered, in bytes: three names, two numbers and a digest.
const ENTRY_POINT_BYTES_MAX: usize = 30 + 2 * 20 + 71;
// A result that has such has no message of a failure; it is a message with its texts, as any other is.
const _: () = assert!(
    6 * 8 * limits::TEXT_BYTES_MAX + EntryPoint::MAX * ENTRY_POINT_BYTES_MAX + 4096
        < limits::MESSAGE_BYTES_MAX
);

/// A task's place in its bag, below [`limits::BAG_TASKS_MAX`].
///
/// # Errors
///
/// The deserializer's.
pub fn index<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    at_most(from, "index", &(limits::BAG_TASKS_MAX - 1))
}

/// A round, at most [`limits::ROUND_MAX`].
///
/// # Errors
///
/// The deserializer's.
pub fn round<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    at_most(from, "round", &limits::ROUND_MAX)
}

/// The size of an input, in bytes, at most [`limits::INPUT_BYTES_MAX`].
///
/// # Errors
///
/// The deserializer's.
pub fn input_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    at_most(from, "input bytes", &limits::INPUT_BYTES_MAX)
}

/// The size of an output or an offset in it, in bytes, at most [`limits::OUTPUT_BYTES_MAX`].
///
/// # Errors
///
/// The deserializer's.
pub fn output_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    at_most(from, "output bytes", &limits::OUTPUT_BYTES_MAX)
}

/// What a codec chose: a level of zstd, and a size as that of an output.
///
/// # Errors
///
/// The deserializer's.
pub fn choice<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Choice>, D::Error> {
    let choice = Option::<Choice>::deserialize(from)?;
    let fits = |choice: &Choice| {
        let predicted = choice.predicted_bytes.unwrap_or_default();
        choice.codec().is_some() && predicted <= limits::OUTPUT_BYTES_MAX
    };
    match choice {
        Some(choice) if !fits(&choice) => Err(D::Error::custom("no codec chooses that")),
        choice => Ok(choice),
    }
}

/// Where an output can be entered: at most [`EntryPoint::MAX`] places.
///
/// # Errors
///
/// The deserializer's.
pub fn entry_points<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<EntryPoint>, D::Error> {
    let points = Vec::<EntryPoint>::deserialize(from)?;
    if points.len() <= EntryPoint::MAX {
        return Ok(points);
    }
    let (found, max) = (points.len(), EntryPoint::MAX);
    Err(D::Error::custom(format_args!("{found} entry points; at most {max}")))
}

/// A duration, or a time since 1970, in µs, at most [`limits::TIME_US_MAX`].
///
/// # Errors
///
/// The deserializer's.
pub fn time_us<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    at_most(from, "a time in µs", &limits::TIME_US_MAX)
}

/// A name of at most [`limits::TEXT_BYTES_MAX`] bytes.
///
/// # Errors
///
/// The deserializer's.
pub fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    no_longer(from, limits::TEXT_BYTES_MAX)
}

/// A failure's message of at most [`limits::FAILURE_BYTES_MAX`] bytes.
///
/// # Errors
///
/// The deserializer's.
pub fn message<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    no_longer(from, limits::FAILURE_BYTES_MAX)
}

/// How many files a pack has, 2 to [`limits::PACK_FILES_MAX`].
///
/// # Errors
///
/// The deserializer's.
pub fn pack_files<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let files = u32::deserialize(from)?;
    if (2..=limits::PACK_FILES_MAX).contains(&files) {
        return Ok(files);
    }
    let max = limits::PACK_FILES_MAX;
    Err(D::Error::custom(format_args!("a pack of {files} files; 2 to {max}")))
}

/// A list with one place for each file of a pack.
///
/// # Errors
///
/// The deserializer's: it is longer than a pack can be.
pub fn each_file<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    let all = Vec::<T>::deserialize(from)?;
    if all.len() <= limits::PACK_FILES_MAX as usize {
        return Ok(all);
    }
    let (files, max) = (all.len(), limits::PACK_FILES_MAX);
    Err(D::Error::custom(format_args!("a pack of {files} files; at most {max}")))
}

fn at_most<'de, D, T>(from: D, what: &str, max: &T) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + Display,
{
    let value = T::deserialize(from)?;
    if value <= *max {
        return Ok(value);
    }
    Err(D::Error::custom(format_args!("{what}: {value}; at most {max}")))
}

fn no_longer<'de, D: Deserializer<'de>>(from: D, max: usize) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.len() <= max {
        return Ok(text);
    }
    Err(D::Error::custom(format_args!("a text of {} bytes; at most {max}", text.len())))
}

#[cfg(test)]
mod tests {
    use bagpress_codec::Digest;

    use super::*;
    use crate::ids::{Execution, TaskId};
    use crate::result::{Outcome, Place, TaskResult};
    use crate::samples;

    /// A result of an output that can be entered at so many places.
    fn entered(places: u64) -> TaskResult {
        let id = TaskId { bag: samples::bag(), index: 3, round: 0 };
        let mut result = samples::done(&id, &Execution::random(), b"output", Place::Staged);
        let Outcome::Done(done) = &mut result.outcome else { panic!("it is done") };
        let most = u64::MAX - places;
        let point = |at| EntryPoint { part: most + at, bit: most + at, digest: Digest::of(b"") };
        done.entry_points = (0..places).map(point).collect();
        result
    }

    #[test]
    fn a_result_with_all_entry_points_is_a_message_and_one_with_more_is_none() {
        assert!(!String::from_utf8(entered(0).encode()).unwrap().contains("entry_points"));
        let most = entered(EntryPoint::MAX as u64);
        let encoded = most.encode();
        assert_eq!(TaskResult::decode(&encoded).unwrap(), most);
        let each = (encoded.len() - entered(0).encode().len()) / EntryPoint::MAX;
        assert!(each <= ENTRY_POINT_BYTES_MAX, "{each}");
        let error = TaskResult::decode(&entered(65).encode()).unwrap_err();
        assert!(error.to_string().contains("65 entry points; at most 64"), "{error}");
    }

    #[test]
    fn the_wire_format_of_entry_points_is_pinned() {
        let point = EntryPoint { part: 4, bit: 1_048_593, digest: Digest::of(b"decoded") };
        insta::assert_snapshot!(serde_json::to_string(&point).unwrap(), @r#"{"part":4,"bit":1048593,"digest":"sha256:174985e4dd3b2df2a316acc62b781b8712734467cc92f94ddccc6530acb14f1e"}"#);
    }
}
