//! One execution that restores: the input is a stream, and the output what it was made of. Blocks.

use std::time::Instant;

use bagpress_broker::descriptor::{Decode, Input, Original, TaskDescriptor};
use bagpress_broker::limits;
use bagpress_broker::result::{Cause, Failed};
use bagpress_codec::{Decoded, Decoder, Digest, Hasher, SEGMENT_BYTES};
use bagpress_objstore::{Sink, Source};

use super::handle::Handle;
use super::made::{Clock, Made, Scratch};

/// Restores what the whole of `source` was made of into `sink`; ends early when it is told to. That it is right says the
/// checksum of the format, and the digest of what was compressed, where that was recorded.
///
/// # Errors
///
/// Why there is no output.
pub(super) fn restore(
    task: &TaskDescriptor,
    decode: Decode,
    mut source: Source,
    sink: Sink,
    scratch: &mut Scratch,
    handle: &Handle,
) -> Result<Made, Failed> {
    let (began, mut clock) = (Instant::now(), Clock::default());
    let Scratch { segment, part, .. } = scratch;
    part.resize(SEGMENT_BYTES, 0);
    let (mut input, mut input_bytes) = (Hasher::new(), 0);
    let mut restored = Restored::new(decode.original, task.packed().is_some(), sink);
    let mut decoder = task.codec.decoder();
    let mut decode = || {
        loop {
            clock.lap(|c| &mut c.input, || source.next(segment))?;
            clock.lap(|c| &mut c.verify, || input.update(segment));
            input_bytes += segment.len() as u64;
            restored.take(&mut *decoder, segment, part, (&mut clock, handle))?;
            handle.add_read(segment.len());
            if segment.is_empty() {
                return decoder.finish().map_err(|error| not_decoded(&error));
            }
        }
    };
    if let Err(failed) = decode() {
        // Of an object that is damaged, the digest tells it at the end, and then that is what happened.
        while matches!(task.input, Input::Object { .. }) && !segment.is_empty() {
            if handle.is_stopped() {
                break;
            }
            source.next(segment)?;
        }
        return Err(failed);
    }
    let (output_bytes, output_digest) = restored.finish()?;
    Ok(Made {
        input_bytes,
        input_digest: input.finish(),
        output_bytes,
        output_digest,
        verified: true,
        choice: None,
        fidelity: None,
        entry_points: Vec::new(),
        times: clock.times(began.elapsed()),
    })
}

/// What was restored so far, on its way.
struct Restored {
    original: Option<Original>,
    /// Whether it is one of a pack.
    packed: bool,
    sink: Sink,
    bytes: u64,
    hasher: Hasher,
}

impl Restored {
    fn new(original: Option<Original>, packed: bool, sink: Sink) -> Self {
        Self { original, packed, sink, bytes: 0, hasher: Hasher::new() }
    }

    /// Takes all that a segment gives, which may be a thousand times as much, part by part. An empty one is the last.
    fn take(
        &mut self,
        decoder: &mut dyn Decoder,
        segment: &[u8],
        part: &mut [u8],
        (clock, handle): (&mut Clock, &Handle),
    ) -> Result<(), Failed> {
        let mut parts = Decoded::new(decoder, segment, part);
        loop {
            if handle.is_stopped() {
                return Err(Failed::new(Cause::Timeout, "it was stopped"));
            }
            let made = clock.lap(|c| &mut c.compress, || parts.next());
            let Some(made) = made.map_err(|error| not_decoded(&error))? else { return Ok(()) };
            self.bytes += made.len() as u64;
            self.check_size()?;
            clock.lap(|c| &mut c.verify, || self.hasher.update(made));
            self.sink.write(made)?;
            handle.add_made(made.len());
        }
    }

    /// Ends early what gives more than it was made of, or than anything of ours was made of: it is not to fill a disk.
    fn check_size(&self) -> Result<(), Failed> {
        match self.original {
            Some(original) if self.bytes > original.bytes => {
                let text =
                    format!("it gives more than the {} bytes it was made of", original.bytes);
                Err(Failed::new(Cause::OriginalDiffers, text))
            }
            // Alone it may be as long as it likes, or as its original.
            _ if self.packed && self.bytes > limits::PACK_BYTES_MAX => {
                let text = "it gives more than a pack may have";
                Err(Failed::new(Cause::TransferError, text))
            }
            _ if self.bytes > limits::OUTPUT_BYTES_MAX => {
                let text = format!("it gives more than {} bytes", limits::OUTPUT_BYTES_MAX);
                Err(Failed::new(Cause::InputCorrupt, text))
            }
            _ => Ok(()),
        }
    }

    /// Compares all of it with what was recorded, before it is anybody's output.
    fn finish(self) -> Result<(u64, Digest), Failed> {
        let (bytes, digest) = (self.bytes, self.hasher.finish());
        if let Some(original) = self.original {
            let compared = original.compare(bytes, &digest);
            compared.map_err(|why| Failed::new(Cause::OriginalDiffers, why))?;
        }
        self.sink.finish()?;
        Ok((bytes, digest))
    }
}

fn not_decoded(error: &bagpress_codec::Error) -> Failed {
    let cause = if error.is_of_stream() { Cause::InputCorrupt } else { Cause::CodecError };
    Failed::new(cause, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use bagpress_broker::descriptor::{Pack, ResultPath};
    use bagpress_broker::samples;
    use bagpress_codec::{Codec, DataKind, Generator};
    use bagpress_objstore::staging::{InputFile, mtime_ns};

    use super::super::execute::execute;
    use super::*;

    fn original(bytes: &[u8]) -> Original {
        Original { bytes: bytes.len() as u64, digest: Digest::of(bytes) }
    }

    /// Restores a file with these bytes into another, through what a slot does with every task.
    fn run(codec: &str, stream: &[u8], original: Option<Original>) -> Result<Vec<u8>, Failed> {
        run_in(None, codec, stream, original)
    }

    fn run_in(
        pack: Option<Pack>,
        codec: &str,
        stream: &[u8],
        original: Option<Original>,
    ) -> Result<Vec<u8>, Failed> {
        let folder = tempfile::tempdir().unwrap();
        let (path, out) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::write(&path, stream).unwrap();
        let (metadata, path) = (std::fs::metadata(&path).unwrap(), path.canonicalize().unwrap());
        let (bytes, mtime_ns) = (metadata.len(), mtime_ns(&metadata));
        let input = InputFile { path, bytes, mtime_ns, inode: metadata.ino(), section: None };
        let task = samples::task(&samples::bag(), 0, ResultPath::Staged);
        let task = TaskDescriptor {
            codec: codec.parse().unwrap(),
            input: Input::File { name: "in".to_owned(), bytes },
            decode: Some(Decode { original }),
            pack,
            ..task
        };
        let sink = Sink::file(std::fs::File::create(&out).unwrap(), false);
        let source = Source::file(input)?;
        let (mut scratch, handle) = (Scratch::new(), Handle::default());
        let made = execute(&task, source, sink, &mut scratch, &handle)?;
        assert!(made.verified);
        assert_eq!((made.input_bytes, made.input_digest), (bytes, Digest::of(stream)));
        let restored = std::fs::read(&out).unwrap();
        assert_eq!(made.output_bytes, restored.len() as u64);
        assert_eq!(made.output_digest, Digest::of(&restored));
        Ok(restored)
    }

    fn compress(codec: &str, bytes: &[u8]) -> Vec<u8> {
        let codec: Codec = codec.parse().unwrap();
        let (mut encoder, mut output) = (codec.encoder(), Vec::new());
        for segment in bytes.chunks(SEGMENT_BYTES) {
            encoder.write(segment, &mut output).unwrap();
        }
        encoder.finish(&mut output).unwrap();
        output
    }

    fn generated(kind: DataKind, bytes: usize) -> Vec<u8> {
        let mut generated = vec![0; bytes];
        assert_eq!(Generator::new(kind, 0, 0, bytes as u64).fill(&mut generated), bytes);
        generated
    }

    #[test]
    fn what_was_compressed_is_restored_whatever_it_was() {
        for codec in ["gzip:6", "zlib:1", "gzip:0", "store"] {
            for kind in DataKind::ALL {
                for bytes in [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, 5 * SEGMENT_BYTES + 17] {
                    let bytes = generated(kind, bytes);
                    let stream = compress(codec, &bytes);
                    let restored = run(codec, &stream, Some(original(&bytes))).unwrap();
                    assert!(restored == bytes, "{codec} {kind:?} {}", bytes.len());
                    assert!(run(codec, &stream, None).unwrap() == bytes);
                }
            }
        }
    }

    #[test]
    fn members_of_gzip_give_what_they_gave_together() {
        let stream = [compress("gzip:6", b"one, "), compress("gzip:9", b"two")].concat();
        assert_eq!(run("gzip:6", &stream, None).unwrap(), b"one, two");
        let cut = &stream[..stream.len() - 1];
        assert_eq!(run("gzip:6", cut, None).unwrap_err().cause, Cause::InputCorrupt);
    }

    #[test]
    fn what_is_no_whole_stream_is_an_input_that_is_corrupt() {
        let text = generated(DataKind::Text, 3 * SEGMENT_BYTES);
        for codec in ["gzip:6", "zlib:6"] {
            let whole = compress(codec, &text);
            let mut flipped = whole.clone();
            flipped[whole.len() / 2] ^= 4;
            let trailed = [&whole[..], b"more"].concat();
            let mut checksum = whole.clone();
            *checksum.last_mut().unwrap() ^= 1;
            for bad in [&flipped[..], &whole[..whole.len() - 1], &trailed, &checksum, b"", b"text"]
            {
                for original in [None, Some(original(&text))] {
                    let failed = run(codec, bad, original).unwrap_err();
                    assert_eq!(failed.cause, Cause::InputCorrupt, "{failed:?}");
                }
            }
        }
    }

    #[test]
    fn another_sound_stream_is_not_the_original() {
        let (text, same_size) = (b"what was compressed", b"what was comprised!");
        for (codec, other) in [("gzip:6", &b"longer than what was"[..]), ("store", same_size)] {
            let failed = run(codec, &compress(codec, other), Some(original(text))).unwrap_err();
            assert_eq!(failed.cause, Cause::OriginalDiffers, "{failed:?}");
        }
        let failed = run("gzip:6", &compress("gzip:6", b"short"), Some(original(text)));
        assert_eq!(failed.unwrap_err().cause, Cause::OriginalDiffers);
    }

    #[test]
    fn a_bomb_ends_where_it_gives_more_than_it_was_made_of() {
        let zeros = compress("gzip:9", &vec![0; 64 << 20]);
        assert!(zeros.len() < 128 << 10);
        let failed = run("gzip:6", &zeros, Some(original(b"small"))).unwrap_err();
        assert_eq!(failed.cause, Cause::OriginalDiffers);
        assert!(failed.message.contains("more than the 5 bytes"), "{failed:?}");
    }

    #[test]
    fn what_is_too_long_for_its_pack_is_left_to_be_restored_alone() {
        let pack = Some(Pack { files: 2 });
        let most = usize::try_from(limits::PACK_BYTES_MAX).unwrap();
        for (bytes, fits) in [(most, true), (most + 1, false)] {
            let restored = run_in(pack, "gzip:6", &compress("gzip:9", &vec![0; bytes]), None);
            assert_eq!(restored.is_ok(), fits, "{bytes}");
            let left_open = restored.is_err_and(|failed| failed.cause.is_transient());
            assert_eq!(left_open, !fits, "{bytes}");
        }
    }
}
