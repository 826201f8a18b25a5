//! A line of `--from-jsonl`: one task. `docs/jsonl.md` has its form.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bagpress_broker::{limits, quote};
use bagpress_codec::{Codec, DataKind, Digest, Grid};
use bagpress_objstore::object_ref::Reference;
use serde::Deserialize;

use super::keys::{self, Size, Wanted};
use super::selection::{Existing, Selection};
use super::{Generate, Referenced};

/// What a line may have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, deserialize_with = "keys::file")]
    file: Option<PathBuf>,
    generate: Option<Wanted>,
    #[serde(default, deserialize_with = "keys::reference")]
    reference: Option<String>,
    #[serde(default, deserialize_with = "keys::digest")]
    digest: Option<Digest>,
    #[serde(default, deserialize_with = "keys::to")]
    to: Option<PathBuf>,
    #[serde(default, deserialize_with = "keys::codec")]
    codec: Option<Codec>,
}

/// The place in a line without the number of the line, which is always the first.
fn in_line(error: &serde_json::Error) -> String {
    let (text, column) = (error.to_string(), error.column());
    let place = format!(" at line {} column {column}", error.line());
    text.strip_suffix(&place).map_or(text.clone(), |text| format!("{text} (column {column})"))
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) input: TaskInput,
    /// Its codec, if that is another one than the bag's.
    pub(super) codec: Option<Codec>,
    /// Where its output belongs, below the outputs' folder and without the codec's extension, if that was said.
    pub(super) target: Option<PathBuf>,
}

/// Where a task's input comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TaskInput {
    File(PathBuf),
    Generate(Generate),
    Object(Referenced),
}

/// The least that a line has.
const FORMS: &str = "{\"file\":\"path\"}, {\"reference\":\"obj://BUCKET/NAME\"} or {\"generate\":{\"data\":\"text\",\"bytes\":\"2MiB\"}}";

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
    let line: Line = serde_json::from_slice(line).map_err(|error| in_line(&error))?;
    let Line { file, generate, reference, digest, to, codec: named } = line;
    if digest.is_some() && reference.is_none() {
        return Err("a digest is that of an object, and it has no reference".to_owned());
    }
    let mut own = named.unwrap_or(*codec);
    let input = match (file, generate, reference) {
        (Some(file), None, None) if file.as_os_str().is_empty() => {
            return Err(
                "\"file\" is empty; it is the path of a file: {\"file\":\"path\"}".to_owned()
            );
        }
        (Some(file), None, None) => TaskInput::File(file),
        (None, Some(wanted), None) => {
            let (generate, codec) = generated(wanted, own)?;
            own = codec;
            TaskInput::Generate(generate)
        }
        (None, None, Some(text)) => {
            let refused = |why| format!("\"reference\" is {text:?}: {why}");
            let object: Reference =
                text.parse().map_err(|why: bagpress_objstore::object_ref::Error| refused(why))?;
            TaskInput::Object(Referenced::whole(object, digest))
        }
        (None, None, None) => return Err(format!("it has no input, as {FORMS} have")),
        _ => {
            return Err(format!(
                "it has more than one input; each of {FORMS} is a line of its own"
            ));
        }
    };
    if named.is_some() && own.takes_arrays() && own.only_decodes() {
        return Err(format!(
            "{own} does not say of what type and shape the input is: say it behind the mode, as in zfp:rate=8,f32,100x500"
        ));
    }
    if own.stores_nothing() != codec.stores_nothing() {
        return Err(format!(
            "its codec is {own}, and that of the bag {codec}: a bag stores the outputs of all tasks, or of none"
        ));
    }
    let target = to.map(|to| target(&to, &own)).transpose()?;
    Ok(Task { input, codec: Some(own).filter(|own| own != codec), target })
}

/// What is to be made, and the codec that takes it: that of arrays has their type and shape.
fn generated(wanted: Wanted, codec: Codec) -> Result<(Generate, Codec), String> {
    let Wanted { data, seed, bytes } = wanted;
    let bytes = bytes.map(|Size(bytes)| bytes);
    let of_data = match data {
        DataKind::Field { grid, .. } => Some(grid),
        _ => None,
    };
    let mut own = codec;
    if codec.takes_arrays() {
        let unknown = || format!("{codec} does not say of what type and shape its values are");
        let grid = codec.grid().or(of_data).ok_or_else(unknown)?;
        own = codec.with_grid(grid).map_err(|why| why.to_string())?;
    }
    let of_grid = own.grid().or(of_data).map(|grid: Grid| grid.bytes());
    let none = "it does not say how many bytes are generated: \"bytes\":\"2MiB\"";
    let bytes = bytes.or(of_grid).ok_or(none)?;
    if let Some(other) = of_grid.filter(|of_grid| *of_grid != bytes) {
        return Err(format!("its array has {other} bytes, and it asks for {bytes}"));
    }
    if bytes > limits::INPUT_BYTES_MAX {
        let most = limits::INPUT_BYTES_MAX;
        return Err(format!("{bytes} bytes are more than a task may have, which is {most}"));
    }
    Ok((Generate { data, seed, bytes }, own))
}

impl fmt::Display for Generate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data, seed, bytes } = self;
        write!(f, "generated {data}, seed {seed}, {bytes} bytes")
    }
}

impl Task {
    /// The same task, unless flags that choose, compare or remove files stand against it.
    ///
    /// # Errors
    ///
    /// Which, for a bag of `codec`.
    pub(super) fn unless_refused(
        self,
        selection: &Selection,
        has_broker: bool,
        codec: &Codec,
    ) -> Result<Self, String> {
        let own = self.codec.as_ref().unwrap_or(codec);
        let is_file = matches!(self.input, TaskInput::File(_));
        let compares = selection.existing == (Existing::Update { checksum: true });
        if !is_file && selection.existing != Existing::Refuse {
            return Err("--update and --overwrite are for files, and its input is none".to_owned());
        }
        if !is_file && selection.note_changes {
            return Err("--remove-source is for files, and its input is none".to_owned());
        }
        if matches!(self.input, TaskInput::Object(_)) && !has_broker {
            let text = "a reference is to an object on a server, and none was named: give --server URL or --context NAME";
            return Err(text.to_owned());
        }
        if own.is_lossy() && (selection.note_changes || compares) {
            let flag = if compares { "--checksum" } else { "--remove-source" };
            return Err(format!(
                "an output of {own} does not give its input bit for bit, as {flag} needs it"
            ));
        }
        Ok(self)
    }
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

    fn task(line: &str) -> Result<Task, String> {
        read(line.as_bytes(), &"zstd:3".parse().unwrap())
    }

    fn of(line: &str) -> Result<(String, Option<String>), String> {
        let Task { input: TaskInput::File(file), target, .. } = task(line)? else {
            return Err("it is no file".to_owned());
        };
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        Ok((text(file), target.map(text)))
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
        assert_eq!(
            ok(r#"{"file":{"base64":"aW4="},"to":"x//./b.zst"}"#),
            ("in".to_owned(), to.clone())
        );
        assert_eq!(ok(r#"{"file":"a","codec":"gzip:9","to":"x/b.gz"}"#), ("a".to_owned(), to));
    }

    #[test]
    fn a_line_has_the_codec_of_the_bag_or_its_own_and_any_kind_of_input() {
        let codec = |line: &str| task(line).unwrap().codec.map(|own| own.to_string());
        assert_eq!(codec(r#"{"file":"a"}"#), None);
        assert_eq!(codec(r#"{"file":"a","codec":"zstd"}"#), None, "it is the bag's");
        assert_eq!(codec(r#"{"file":"a","codec":"auto"}"#).as_deref(), Some("auto"));
        let digest = Digest::of(b"b");
        let line = format!(r#"{{"reference":"obj://b/o","codec":"gzip","digest":"{digest}"}}"#);
        let object = "obj://b/o".parse().unwrap();
        let referenced = Referenced::whole(object, Some(digest));
        assert_eq!(task(&line).unwrap().input, TaskInput::Object(referenced));
        let generate = |data: &str| match task(&format!(r#"{{"generate":{{{data}}}}}"#)) {
            Ok(Task { input: TaskInput::Generate(generate), .. }) => generate.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            generate(r#""data":"text","seed":7,"bytes":"2MiB""#),
            "generated text, seed 7, 2097152 bytes"
        );
        assert_eq!(generate(r#""data":"zeros","bytes":10"#), "generated zeros, seed 0, 10 bytes");
        assert_eq!(
            generate(r#""data":"field:f32,3x4""#),
            "generated field:f32,3x4, seed 0, 48 bytes"
        );
    }

    #[test]
    fn flags_that_are_for_files_are_refused_for_what_is_none() {
        let update = Existing::Update { checksum: false };
        let update = Selection { existing: update, ..Selection::default() };
        let remove = Selection { note_changes: true, ..Selection::default() };
        let bag: Codec = "zstd:3".parse().unwrap();
        let why = |line: &str, selection: &Selection, has_broker| {
            task(line).unwrap().unless_refused(selection, has_broker, &bag).unwrap_err()
        };
        let made = r#"{"generate":{"data":"zeros","bytes":1}}"#;
        let object = r#"{"reference":"obj://b/o"}"#;
        assert!(why(made, &update, true).contains("--update and --overwrite"));
        assert!(why(object, &remove, true).contains("--remove-source"));
        assert!(why(object, &Selection::default(), false).contains("--server URL"));
        let file = task(r#"{"file":"a"}"#).unwrap();
        assert!(file.unless_refused(&update, false, &bag).is_ok());
    }

    #[test]
    fn what_a_key_must_not_be_is_said_with_the_key_and_what_would_do() {
        for (line, said) in [
            (r#"{"file":"a","codec":3}"#, "`3`, expected \"codec\" to be a text such as"),
            (r#"{"generate":"text"}"#, "expected \"generate\" to be an object such as {"),
            (r#"{"generate":{"data":"text","data":"zeros","bytes":1}}"#, "duplicate field `data`"),
            (
                r#"{"generate":{"data":"text","seed":-1,"bytes":1}}"#,
                "`-1`, expected \"seed\" to be a number from 0 on",
            ),
            (r#"{"generate":{"data":"text","seed":"a","bytes":1}}"#, "\"seed\" to be a number"),
            (
                r#"{"generate":{"data":"text","bytes":"-5MiB"}}"#,
                "\"bytes\" is \"-5MiB\", which is no size such as \"2MiB\", from 0 on",
            ),
            (
                r#"{"generate":{"data":"field","bytes":1}}"#,
                "\"data\" is \"field\", which needs its type and shape: \"field:f32,",
            ),
            (r#"{"generate":{"data":"words","bytes":1}}"#, "\"data\" is \"words\": "),
            (r#"{"generate":{"data":3,"bytes":1}}"#, "`3`, expected \"data\" to be a text"),
            (r#"{"file":null}"#, "null, expected \"file\" to be a path"),
            (r#"{"file":["a"]}"#, "expected \"file\" to be a path"),
            (r#"{"file":{"base64":"§"}}"#, "\"file\" is no path: \"§\" is no base64"),
            (r#"{"file":{"name":"a"}}"#, "\"file\" is no path: unknown field `name`"),
            (r#"{"file":"a","to":7}"#, "`7`, expected \"to\" to be a path"),
            (r#"{"reference":7}"#, "`7`, expected \"reference\" to be a text such as"),
            (r#"{"reference":"obj://b/o","digest":7}"#, "expected \"digest\" to be a text"),
            (r#"{"reference":"obj://b/o","digest":"x"}"#, "\"digest\" is \"x\""),
        ] {
            let why = task(line).unwrap_err();
            assert!(why.contains(said), "{line}: {why}");
        }
    }

    #[test]
    fn what_a_line_must_not_be_is_said() {
        for (line, said) in [
            ("{", "EOF"),
            ("[]", "no JSON object"),
            (r#"["a","b.zst",null,null,null]"#, "no JSON object"),
            (r#"{"file":"a","as":"b"}"#, "unknown field `as`"),
            (r#"{"file":"a","file":"b"}"#, "duplicate field"),
            (r#"{"to":"b.zst"}"#, "it has no input"),
            (r#"{"file":"","to":"b.zst"}"#, "\"file\" is empty; it is the path"),
            (r#"{"file":"a","codec":"gzip:77"}"#, "\"codec\" is \"gzip:77\": "),
            (
                r#"{"generate":{"data":"text","bytes":-1}}"#,
                "integer `-1`, expected \"bytes\" to be a number from 0 on",
            ),
            (r#"{"generate":{"data":"text","bytes":1.5}}"#, "`1.5`, expected \"bytes\""),
            (r#"{"generate":{"data":"text","bytes":-1}}"#, "(column 37)"),
            (r#"{"file":"a","reference":"obj://b/o"}"#, "more than one input"),
            (r#"{"file":"a","codec":"noop"}"#, "of all tasks, or of none"),
            (r#"{"file":"a","codec":"lzma"}"#, "unknown codec"),
            (r#"{"generate":{"bytes":1}}"#, "missing field `data`"),
            (r#"{"generate":{"data":"text"}}"#, "how many bytes"),
            (
                r#"{"generate":{"data":"text","bytes":"much"}}"#,
                "\"bytes\" is \"much\", which is no size such as",
            ),
            (r#"{"generate":{"data":"text","bytes":2199023255552}}"#, "more than a task may have"),
            (r#"{"generate":{"data":"field:f32,3x4","bytes":7}}"#, "has 48 bytes"),
            (r#"{"reference":"b/o"}"#, "\"reference\" is \"b/o\": "),
            (r#"{"file":"a","digest":"sha256:00"}"#, "digest"),
            (r#"{"file":"a","to":"b"}"#, "ends in .zst"),
            (r#"{"file":"a","to":"b.zst","codec":"gzip"}"#, "ends in .gz"),
            (r#"{"file":"a","to":".zst"}"#, "ends in .zst"),
            (r#"{"file":"a","to":"b/.zst"}"#, "ends in .zst"),
            (r#"{"file":"a","to":"../b.zst"}"#, "no path below"),
            (r#"{"file":"a","to":"/b.zst"}"#, "no path below"),
            (r#"{"file":"a","to":""}"#, "no path below"),
            (r#"{"file":"a","to":"b\u0000.zst"}"#, "ends in .zst"),
        ] {
            let refused = task(line).unwrap_err();
            assert!(refused.contains(said), "{line}: {refused}");
        }
    }
}
