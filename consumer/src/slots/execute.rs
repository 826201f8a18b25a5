//! One execution: input to output, verified while it is compressed, or restored. Blocks.

use bagpress_broker::descriptor::TaskDescriptor;
use bagpress_broker::result::Failed;
use bagpress_objstore::{OpenFile, Sink, Source};

use super::compress::compress;
use super::handle::Handle;
use super::made::{Made, Scratch};
use super::restore::restore;

/// Compresses the whole of `source` into `sink`, or restores it, as the task says; ends early when it is told to.
///
/// # Errors
///
/// Why there is no output.
pub(crate) fn execute(
    task: &TaskDescriptor,
    source: Source,
    sink: Sink,
    scratch: &mut Scratch,
    handle: &Handle,
) -> Result<Made, Failed> {
    match task.decode {
        Some(decode) => restore(task, decode, source, sink, scratch, handle),
        None => compress(task, source, sink, scratch, handle),
    }
}

/// What came of the files of a pack, in order; nothing of those that were decided before.
pub(crate) type MadeFiles = Vec<Option<Result<Made, Failed>>>;

/// Executes the files of a pack, one after another. One that fails keeps no other from being executed, unless the pack is to be
/// given back for it: it was stopped, or there is no space. Of a pack that is run again for its tar all are wanted, or nothing.
///
/// # Errors
///
/// Why the pack is to be given back, or has failed.
pub(crate) fn execute_pack(
    task: &TaskDescriptor,
    files: Vec<Option<OpenFile>>,
    scratch: &mut Scratch,
    handle: &Handle,
) -> Result<MadeFiles, Failed> {
    let all_or_nothing = task.again.is_some();
    let each = files.into_iter().map(|open| {
        let Some(open) = open else { return Ok(None) };
        match open().and_then(|(source, sink)| execute(task, source, sink, scratch, handle)) {
            Err(failed) if all_or_nothing || failed.cause.is_planned() || handle.is_stopped() => {
                Err(failed)
            }
            made => Ok(Some(made)),
        }
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use bagpress_broker::descriptor::{Input, ResultPath, Verify};
    use bagpress_broker::result::Cause;
    use bagpress_broker::samples;
    use bagpress_codec::{Codec, DataKind, Generator, SEGMENT_BYTES};

    use super::*;

    const SIZES: [u64; 5] =
        [0, 5000, SEGMENT_BYTES as u64 - 1, SEGMENT_BYTES as u64, SEGMENT_BYTES as u64 + 1000];

    fn run(
        codec: &str,
        (data, bytes): (DataKind, u64),
        scratch: &mut Scratch,
        stops: bool,
    ) -> Option<Made> {
        let input = Input::Generate { data, seed: 0, bytes };
        let codec: Codec = codec.parse().unwrap();
        let task = samples::task(&samples::bag(), 0, ResultPath::Objects);
        let task = TaskDescriptor { input, codec, verify: Verify::Worker, ..task };
        let source = Source::generated(Generator::new(data, 0, 0, bytes), bytes);
        let handle = Handle::default();
        if stops {
            handle.stop();
        }
        execute(&task, source, Sink::Nothing, scratch, &handle).ok()
    }

    /// Hands over what was fetched, in chunks.
    fn fetched(input: &[u8], chunk: usize, said: Option<u64>) -> Source {
        let (sender, chunks) = tokio::sync::mpsc::channel(input.len() / chunk + 2);
        for chunk in input.chunks(chunk) {
            let bytes = bytes::Bytes::copy_from_slice(chunk);
            sender.try_send(Ok(bagpress_objstore::Fetched::Bytes(bytes))).unwrap();
        }
        sender.try_send(Ok(bagpress_objstore::Fetched::End)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Source::fetched(chunks, runtime.spawn(async {}).abort_handle(), said)
    }

    #[test]
    fn a_length_in_front_is_right_or_the_input_is_refused() {
        let task = samples::task(&samples::bag(), 0, ResultPath::Objects);
        let codec: Codec = "zstd:3".parse().unwrap();
        let task = TaskDescriptor { codec, verify: Verify::Worker, ..task };
        let run = |bytes: usize, said: Option<u64>| {
            let mut input = vec![0; bytes];
            Generator::new(DataKind::Text, 0, 0, bytes as u64).fill(&mut input);
            let source = fetched(&input, 100_000, said);
            let (sink, handle) = (Sink::Nothing, Handle::default());
            execute(&task, source, sink, &mut Scratch::new(), &handle)
        };
        let short = [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, 2 * SEGMENT_BYTES - 1];
        for bytes in short {
            // Short enough to be read first: nobody has to be believed.
            for said in [None, Some(0), Some(bytes as u64), Some(1 << 30)] {
                assert_eq!(run(bytes, said).unwrap().input_bytes, bytes as u64, "{said:?}");
            }
        }
        let long = 2 * SEGMENT_BYTES + 5;
        assert_eq!(run(long, Some(long as u64)).unwrap().input_bytes, long as u64);
        for said in [None, Some(0), Some(100_000)] {
            let failed = run(long, said).unwrap_err();
            assert_eq!(failed.cause, Cause::InputUnreadable, "{said:?}");
            assert!(failed.message.ends_with("gzip needs none"), "{failed:?}");
        }
        for said in [long as u64 - 1, long as u64 + 1] {
            assert_eq!(run(long, Some(said)).unwrap_err().cause, Cause::InputChanged, "{said}");
        }
    }

    #[test]
    fn what_a_slot_keeps_changes_no_output_and_is_dropped_after_an_error() {
        let mut scratch = Scratch::new();
        for codec in
            ["zlib:6", "zlib:6", "gzip:1", "zlib:6,full", "zlib:6", "noop", "zstd:3", "zstd:9"]
        {
            let inputs =
                DataKind::ALL.into_iter().flat_map(|data| SIZES.map(|bytes| (data, bytes)));
            for input in inputs {
                for stops in [false, true, false] {
                    let made = run(codec, input, &mut scratch, stops);
                    let kept = format!("{:?}", scratch.reuse).contains("Some");
                    assert_eq!((made.is_some(), kept), (!stops, !stops), "{codec} {input:?}");
                    let Some(made) = made else { continue };
                    let anew = run(codec, input, &mut Scratch::new(), false).unwrap();
                    assert_eq!(made.output_digest, anew.output_digest, "{codec} {input:?}");
                    assert_eq!(made.input_bytes, input.1);
                }
            }
        }
    }
}
