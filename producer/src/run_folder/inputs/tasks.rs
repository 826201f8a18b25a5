//! A line of `--from-jsonl`: one task. `docs/jsonl.md` has its form.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bagpress_broker::quote;
use bagpress_codec::Codec;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::read_path;

/// What a line may have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, deserialize_with = "path")]
    file: Option<PathBuf>,
    #[serde(default, deserialize_with = "path")]
    to: Option<PathBuf>,
    codec: Option<Codec>,
    generate: Option<IgnoredAny>,
    reference: Option<IgnoredAny>,
}

fn path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    read_path(deserializer).map(Some)
}

/// A file, and where its output belongs, below the outputs' folder and without the codec's extension, if that was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) file: PathBuf,
    pub(super) target: Option<PathBuf>,
}

/// Reads a line of a bag of `codec`.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn read(line: &[u8], codec: &Codec) -> Result<Task, String> {
    // As a list, it would be read by the order of the keys.
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err("it is no JSON object".to_owned());
    }
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if line.generate.is_some() {
        return Err("generated tasks are not possible in a list: use --tasks, --bytes and --data"
            .to_owned());
    }
    if line.reference.is_some() {
        return Err("references are not possible in a list yet: name files".to_owned());
    }
    if let Some(other) = line.codec.filter(|other| other != codec) {
        return Err(format!(
            "its codec is {other}, and that of the bag {codec}: all tasks of a bag have one codec; choose it with --codec"
        ));
    }
    let file = line.file.filter(|file| !file.as_os_str().is_empty());
    let file = file.ok_or("it has no file: {\"file\":\"path\",\"to\":\"name\"}")?;
    let target = line.to.map(|to| target(&to, codec)).transpose()?;
    Ok(Task { file, target })
}

/// The name of an output without the codec's extension, which it must have.
fn target(to: &Path, codec: &Codec) -> Result<PathBuf, String> {
    let named = quote::name(to);
    let is_normal = |component| matches!(component, Component::Normal(_));
    if to.as_os_str().is_empty() || !to.components().all(is_normal) {
        return Err(format!("the output {named} is no path below the folder of the outputs"));
    }
    let (bytes, extension) = (to.as_os_str().as_bytes(), codec.extension());
    let before = bytes.strip_suffix(extension.as_bytes());
    let before = before.filter(|before| !before.is_empty() && !before.ends_with(b"/"));
    let before = before.filter(|_| !bytes.contains(&0)).ok_or_else(|| {
        format!(
            "the output {named} has no name that ends in {extension}, which the codec {codec} gives"
        )
    })?;
    Ok(Path::new(OsStr::from_bytes(before)).components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<(String, Option<String>), String> {
        let task = read(line.as_bytes(), &"zstd:3".parse().unwrap())?;
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        Ok((text(task.file), task.target.map(text)))
    }

    #[test]
    fn a_line_names_a_file_and_perhaps_its_output() {
        let ok = |line| of(line).unwrap();
        assert_eq!(ok(r#"{"file":"in/a"}"#), ("in/a".to_owned(), None));
        let to = Some("x/b".to_owned());
        assert_eq!(
            ok(r#"{"to":"x/b.zst","file":"/a","codec":"zstd"}"#),
            ("/a".to_owned(), to.clone())
        );
        assert_eq!(ok(r#"{"file":{"base64":"aW4="},"to":"x//./b.zst"}"#), ("in".to_owned(), to));
    }

    #[test]
    fn what_a_line_must_not_be_is_said() {
        for (line, said) in [
            ("{", "EOF"),
            ("[]", "no JSON object"),
            (r#"["a","b.zst",null,null,null]"#, "no JSON object"),
            (r#"{"file":"a","as":"b"}"#, "unknown field `as`"),
            (r#"{"file":"a","file":"b"}"#, "duplicate field"),
            (r#"{"to":"b.zst"}"#, "it has no file"),
            (r#"{"file":"","to":"b.zst"}"#, "it has no file"),
            (r#"{"file":"a","codec":"gzip:6"}"#, "its codec is gzip:6, and that of the bag zstd:3"),
            (r#"{"file":"a","codec":"lzma"}"#, "unknown codec"),
            (r#"{"generate":{"bytes":1}}"#, "use --tasks"),
            (r#"{"reference":"obj://b/o"}"#, "references are not possible"),
            (r#"{"file":"a","to":"b"}"#, "ends in .zst"),
            (r#"{"file":"a","to":".zst"}"#, "ends in .zst"),
            (r#"{"file":"a","to":"b/.zst"}"#, "ends in .zst"),
            (r#"{"file":"a","to":"../b.zst"}"#, "no path below"),
            (r#"{"file":"a","to":"/b.zst"}"#, "no path below"),
            (r#"{"file":"a","to":""}"#, "no path below"),
            (r#"{"file":"a","to":"b\u0000.zst"}"#, "ends in .zst"),
        ] {
            let refused = of(line).unwrap_err();
            assert!(refused.contains(said), "{line}: {refused}");
        }
    }
}
