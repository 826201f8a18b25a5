//! The references that a user names: as arguments, and in a list.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use bagpress_broker::{limits, quote, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::object_ref::Reference;
use serde_json::Value;

use crate::error::Usage;

/// Longest list of references that is read, in bytes.
const LIST_BYTES_MAX: u64 = 4 << 30;

/// A reference as a user named it, with what the list says of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Which.
    pub reference: Reference,
    /// The digest that the object must have, if the list says so.
    pub digest: Option<Digest>,
}

/// Reads references: of each argument, and of `list`, a file or `-` for stdin. The list has one reference a line, or JSON:
/// what `object … --json` prints, or `stats_N.json` of a run. In place of `obj://BUCKET/NAME`, the name alone is enough where
/// `bucket` is given. One that is named twice is taken once.
///
/// # Errors
///
/// [`Usage`] for what is no reference, for a list that cannot be read, and if there is none at all.
pub fn named(
    arguments: &[String],
    list: Option<&Path>,
    bucket: Option<&str>,
) -> Result<Vec<Named>> {
    let mut named = Vec::new();
    for text in arguments {
        named.push(Named { reference: of_text(text, bucket)?, digest: None });
    }
    if let Some(list) = list {
        named.extend(of_list(&read(list)?, bucket, &quote::name(list))?);
    }
    let mut seen = HashSet::new();
    named.retain(|named| seen.insert(named.reference.clone()));
    if named.is_empty() {
        return Err(Usage::error(
            "no reference is named",
            "name objects as obj://BUCKET/NAME, or give a list with --refs FILE; `bagpress object ls` shows what there is",
        ));
    }
    if named.len() > limits::BAG_TASKS_MAX as usize {
        let hint = "name fewer at a time";
        return Err(Usage::error(format!("{} references are too many", named.len()), hint));
    }
    Ok(named)
}

fn read(list: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if list == Path::new("-") {
        std::io::stdin().take(LIST_BYTES_MAX).read_to_string(&mut text)
    } else {
        File::open(list).and_then(|file| file.take(LIST_BYTES_MAX).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(Usage::error(
            format!("the list {} cannot be read: {error}", quote::name(list)),
            "name a file with one reference a line, or - for stdin",
        )),
    }
}

fn of_text(text: &str, bucket: Option<&str>) -> Result<Reference> {
    let parsed = match bucket.filter(|_| !Reference::is_meant(text)) {
        Some(bucket) => Reference::new(bucket, text),
        None => text.parse(),
    };
    parsed.map_err(|error| {
        let hint = "a reference is obj://BUCKET/NAME, such as obj://bag-t1-abcdefgh/out_0.bin";
        Usage::error(error.to_string(), hint)
    })
}

fn of_list(text: &str, bucket: Option<&str>, list: &str) -> Result<Vec<Named>> {
    if !text.trim_start().starts_with(['{', '[', '"']) {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let of = |line| Ok(Named { reference: of_text(line, bucket)?, digest: None });
        return lines.map(of).collect();
    }
    let mut named = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let value = value.map_err(|error| {
            let hint = "give one reference a line, or JSON as `object … --json` prints it";
            Usage::error(format!("{list}: {error}"), hint)
        })?;
        match value {
            Value::Array(values) => {
                for value in values {
                    named.push(of_value(&value, bucket, list)?);
                }
            }
            value => named.push(of_value(&value, bucket, list)?),
        }
    }
    Ok(named)
}

fn of_value(value: &Value, bucket: Option<&str>, list: &str) -> Result<Named> {
    let digest = value.get("digest").or_else(|| value.get("output_digest"));
    let digest = digest.and_then(|digest| serde_json::from_value(digest.clone()).ok());
    let text = value.as_str().or_else(|| value.get("reference").or(value.get("ref"))?.as_str());
    if let Some(text) = text {
        return Ok(Named { reference: of_text(text, bucket)?, digest });
    }
    if value.pointer("/place/tar").is_some() {
        return Err(Usage::error(
            format!("{list}: an output is a part of the tar of a pack, and has no reference"),
            "run with --pack 1, and each output is an object of its own",
        ));
    }
    let at = |of| value.pointer(of).and_then(Value::as_str);
    if let (Some(bucket), Some(object)) = (at("/place/object/bucket"), at("/place/object/object")) {
        let reference = Reference::new(bucket, subjects::name_of(object))?;
        return Ok(Named { reference, digest });
    }
    Err(Usage::error(
        format!("{list}: there is a value without a reference"),
        "each needs a field `reference`, as `object … --json` prints it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(named: &[Named]) -> Vec<String> {
        named.iter().map(|named| named.reference.to_string()).collect()
    }

    #[test]
    fn a_list_is_lines_or_json_as_it_is_printed() {
        let digest = Digest::of(b"abc");
        let stats = format!(
            "{{\n \"ok\": true, \"output_digest\": \"{digest}\", \"place\": {{\"object\": \
             {{\"bucket\": \"b\", \"object\": \"out_1.bin\", \"chunks\": 1}}}}\n}}\n"
        );
        for (text, expected) in [
            ("obj://b/x\n\n  obj://b/y y  \nz\n", vec!["obj://b/x", "obj://b/y y", "obj://c/z"]),
            ("{\"reference\":\"obj://b/x\"}\n{\"ref\":\"y\"}\n", vec!["obj://b/x", "obj://c/y"]),
            ("[\"obj://b/x\", {\"ref\": \"obj://b/y\"}]", vec!["obj://b/x", "obj://b/y"]),
            (&stats, vec!["obj://b/out_1.bin"]),
        ] {
            let found = of_list(text, Some("c"), "list").unwrap();
            assert_eq!(texts(&found), expected, "{text}");
        }
        assert_eq!(of_list(&stats, None, "list").unwrap()[0].digest, Some(digest));
    }

    #[test]
    fn what_is_no_reference_is_refused_by_name() {
        for (text, word) in [
            ("x\n", "obj://BUCKET/NAME"),
            ("{\"reference\": \"x\"}", "\"x\""),
            ("{\"a\": 1}", "without a reference"),
            ("{\"place\": {\"tar\": {}}}", "tar of a pack"),
            ("{\"reference\": ", "EOF"),
        ] {
            let error = of_list(text, None, "list").unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(named(&[], None, None).is_err());
        let twice = ["obj://b/x", "obj://b/x"].map(str::to_owned);
        assert_eq!(named(&twice, None, None).unwrap().len(), 1);
    }
}
