//! Tasks that restore what was compressed, instead of compressing it.
//!
//! The output of such a task is what a decoder makes of its input: it depends on the format alone, and not on who decodes. See
//! ADR 0044.

use bagpress_codec::Digest;

use serde::{Deserialize, Serialize};

use crate::bounded;

/// What of a descriptor says that the input is a stream of the codec, and the output what it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decode {
    /// What it was made of, where that was recorded: anything else is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Original>,
}

/// What of an object is an input: one output in the tar of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// At which byte of the object it begins.
    #[serde(deserialize_with = "bounded::output_bytes")]
    pub at: u64,
    /// Digest of its bytes: anything else is not the input.
    pub digest: Digest,
}

/// What an output was made of, as its run recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Its size.
    #[serde(deserialize_with = "bounded::input_bytes")]
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
}

impl Original {
    /// Compares it with what was restored.
    ///
    /// # Errors
    ///
    /// How the two differ.
    pub fn compare(&self, bytes: u64, digest: &Digest) -> Result<(), String> {
        if (bytes, digest) == (self.bytes, &self.digest) {
            return Ok(());
        }
        let (of, was) = (self.bytes, self.digest);
        Err(format!("it gives {bytes} bytes, {digest}; it was made of {of}, {was}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{Block, DecodeError, Input, Pack, ResultPath, TaskDescriptor};
    use crate::samples;

    #[test]
    fn a_part_of_an_object_may_be_restored_by_itself_and_by_workers_that_know_of_parts() {
        let task = samples::task(&samples::bag(), 7, ResultPath::Staged);
        let part = Some(Part { at: 1536, digest: Digest::of(b"part") });
        let input = |part| {
            let (bucket, object) = ("bag-b".to_owned(), "out_0.tar".to_owned());
            let digest = Some(Digest::of(b"tar"));
            Input::Object { bucket, object, name: "f".to_owned(), bytes: 25, digest, part }
        };
        let (codec, decode) = ("gzip:6".parse().unwrap(), Some(Decode { original: None }));
        let one = TaskDescriptor { codec, input: input(part), decode, ..task };
        let one = TaskDescriptor { library: one.library_of("any/1"), ..one };
        assert_eq!(one.library, "restore/1, parts/1");
        let decode = |task: &TaskDescriptor| TaskDescriptor::decode(&task.encode(), &task.id());
        assert_eq!(decode(&one).unwrap(), one);
        let whole = TaskDescriptor { input: input(None), ..one.clone() };
        assert_eq!(whole.library_of("any/1"), "restore/1");
        let compressed = TaskDescriptor { decode: None, ..one.clone() };
        let cut = TaskDescriptor { block: Some(Block { file: 0, at: 0 }), ..one };
        for other in [compressed, cut] {
            assert!(matches!(decode(&other).unwrap_err(), DecodeError::Bounds(_)), "{other:?}");
        }
    }

    #[test]
    fn whole_inputs_may_be_restored_and_nothing_else() {
        let task = samples::task(&samples::bag(), 7, ResultPath::Staged);
        let task =
            TaskDescriptor { published_us: 1, bag: "demo-abcdefgh".parse().unwrap(), ..task };
        let original = Some(Original { bytes: 5, digest: Digest::of(b"bytes") });
        let input = Input::File { name: "f.gz".to_owned(), bytes: 25 };
        let codec = "gzip:6".parse().unwrap();
        let one =
            TaskDescriptor { codec, input, decode: Some(Decode { original }), ..task.clone() };
        let one = TaskDescriptor { library: one.library_of("any/1"), ..one };
        insta::assert_snapshot!(String::from_utf8(one.encode()).unwrap(), @r#"{"v":1,"bag":"demo-abcdefgh","index":7,"round":0,"codec":"gzip:6","library":"restore/1","input":{"file":{"name":"f.gz","bytes":25}},"decode":{"original":{"bytes":5,"digest":"sha256:277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9"}},"results":"staged","verify":"worker","transfer":"wire","attempts":3,"published_us":1}"#);
        assert_eq!(TaskDescriptor::decode(&one.encode(), &one.id()).unwrap(), one);
        let noop = TaskDescriptor { codec: "noop".parse().unwrap(), ..one.clone() };
        let made = TaskDescriptor { input: task.input, ..one.clone() };
        let pack = TaskDescriptor { pack: Some(Pack { files: 2 }), ..one.clone() };
        let block = TaskDescriptor { block: Some(Block { file: 0, at: 0 }), ..one };
        let each = TaskDescriptor { decode: Some(Decode { original: None }), ..pack.clone() };
        assert_eq!(TaskDescriptor::decode(&each.encode(), &each.id()).unwrap(), each);
        for other in [noop, made, pack, block] {
            let error = TaskDescriptor::decode(&other.encode(), &other.id()).unwrap_err();
            assert!(matches!(error, DecodeError::Bounds(_)), "{error}");
        }
    }
}
