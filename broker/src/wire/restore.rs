//! Tasks that restore what was compressed, instead of compressing it.
//!
//! The output of such a task is what a decoder makes of its input: it depends on the format alone, and not on who decodes. See
//! ADR 0044.

use bagpress_codec::Digest;

use serde::{Deserialize, Serialize};

use crate::{bounded, limits};

/// What the descriptor of a pack of parts says of one of them, in bytes: three names, two numbers and a digest.
const FILE_PART_BYTES_MAX: usize = 32 + 2 * 16 + 71;
// It has four texts besides.
const _: () = assert!(
    6 * 4 * limits::TEXT_BYTES_MAX + limits::PACK_FILES_MAX as usize * FILE_PART_BYTES_MAX + 4096
        < limits::MESSAGE_BYTES_MAX
);

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

/// Of a pack of parts: what of its object is the input of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    /// At which byte of the object it begins.
    #[serde(deserialize_with = "bounded::output_bytes")]
    pub at: u64,
    /// How many bytes it has.
    #[serde(deserialize_with = "bounded::input_bytes")]
    pub bytes: u64,
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

    /// Two parts of a tar in one delivery.
    fn pack_of_parts() -> TaskDescriptor {
        let task = samples::task(&samples::bag(), 7, ResultPath::Staged);
        let part = |at, bytes| FilePart { at, bytes, digest: Digest::of(b"part") };
        let input = Input::Object {
            bucket: "bag-b".to_owned(),
            object: "out_0.tar".to_owned(),
            name: "f".to_owned(),
            bytes: 45,
            digest: Some(Digest::of(b"tar")),
            part: None,
        };
        let (codec, decode) = ("gzip:6".parse().unwrap(), Some(Decode { original: None }));
        let parts = vec![part(512, 25), part(1536, 20)];
        let one = TaskDescriptor { codec, input, decode, parts, published_us: 1, ..task };
        let one = TaskDescriptor { bag: "demo-abcdefgh".parse().unwrap(), ..one };
        TaskDescriptor { library: one.library_of("any/1"), ..one }
    }

    #[test]
    fn parts_of_an_object_may_be_delivered_together_to_workers_that_know_of_such_packs() {
        let one = pack_of_parts();
        insta::assert_snapshot!(String::from_utf8(one.encode()).unwrap(), @r#"{"v":1,"bag":"demo-abcdefgh","index":7,"round":0,"codec":"gzip:6","library":"restore/1, parts/2","input":{"object":{"bucket":"bag-b","object":"out_0.tar","name":"f","bytes":45,"digest":"sha256:90aebae315675cbf04612de4f7d5874850f48e0b8dd82becbeaa47ca93f5ebfb"}},"parts":[{"at":512,"bytes":25,"digest":"sha256:37a680133bd09342f934afb8dd2c7d9e1b624da5f35e3a38adb103e37c055ed1"},{"at":1536,"bytes":20,"digest":"sha256:37a680133bd09342f934afb8dd2c7d9e1b624da5f35e3a38adb103e37c055ed1"}],"decode":{},"results":"staged","verify":"worker","transfer":"wire","attempts":3,"published_us":1}"#);
        assert_eq!(TaskDescriptor::decode(&one.encode(), &one.id()).unwrap(), one);
        assert_eq!(one.packed(), Some(Pack { files: 2 }));
        // Who knows no such packs sees none, and gives the task back for its library.
        let seen = TaskDescriptor { parts: Vec::new(), ..one.clone() };
        let again = TaskDescriptor::decode(&seen.encode(), &seen.id()).unwrap();
        assert_ne!(again.library_of("any/1"), again.library);
        // Its result says that it was restored, and neither of which object nor which parts of it.
        let told = one.of_result(None).unwrap();
        assert!(told.parts.is_empty() && told.decode.is_some() && told.packed() == one.packed());
        assert_eq!(TaskDescriptor::decode(&told.encode(), &told.id()).unwrap(), told);
    }

    #[test]
    fn what_cannot_be_parts_of_a_tar_that_are_restored_together_is_refused() {
        let one = pack_of_parts();
        let with = |change: fn(&mut TaskDescriptor)| {
            let mut other = one.clone();
            change(&mut other);
            other
        };
        let input = |change: fn(&mut Option<Digest>, &mut Option<Part>)| {
            let mut other = one.clone();
            if let Input::Object { digest, part, .. } = &mut other.input {
                change(digest, part);
            }
            other
        };
        for other in [
            with(|task| task.decode = None),
            with(|task| task.round = 1),
            with(|task| task.results = ResultPath::Objects),
            with(|task| task.pack = Some(Pack { files: 2 })),
            with(|task| task.tar = Some(Pack { files: 2 })),
            with(|task| task.block = Some(Block { file: 0, at: 0 })),
            with(|task| task.parts.truncate(1)),
            with(|task| task.parts[1].bytes += 1),
            with(|task| task.parts[1].at = limits::TAR_BYTES_MAX),
            with(|task| task.input = Input::File { name: "f".to_owned(), bytes: 45 }),
            with(|task| task.parts = vec![task.parts[0]; limits::PACK_FILES_MAX as usize + 1]),
            input(|digest, _| *digest = None),
            input(|_, part| *part = Some(Part { at: 512, digest: Digest::of(b"part") })),
        ] {
            let decoded = TaskDescriptor::decode(&other.encode(), &other.id());
            assert!(decoded.is_err(), "{other:?}");
        }
    }

    #[test]
    fn the_descriptor_of_the_largest_pack_of_parts_is_a_message() {
        let mut one = pack_of_parts();
        let most = limits::PACK_BYTES_MAX / u64::from(limits::PACK_FILES_MAX);
        let part = FilePart { at: limits::TAR_BYTES_MAX - most, bytes: most, ..one.parts[0] };
        one.parts = vec![part; limits::PACK_FILES_MAX as usize];
        let text = "\u{1}".repeat(limits::TEXT_BYTES_MAX);
        if let Input::Object { bucket, object, name, bytes, .. } = &mut one.input {
            (*bucket, *object, *name) = (text.clone(), text.clone(), text.clone());
            *bytes = limits::PACK_BYTES_MAX;
        }
        one.library = text;
        let payload = one.encode();
        assert!(payload.len() <= limits::MESSAGE_BYTES_MAX, "{}", payload.len());
        assert_eq!(TaskDescriptor::decode(&payload, &one.id()).unwrap(), one);
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
