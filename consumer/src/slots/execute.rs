//! One execution: input to output, verified while it is compressed. Blocks.

use std::time::{Duration, Instant};

use bagpress_broker::descriptor::{TaskDescriptor, Verify};
use bagpress_broker::result::{Cause, Done, Failed, Place, Times};
use bagpress_codec::{Digest, Hasher, Reuse, SEGMENT_BYTES};
use bagpress_objstore::{OpenFile, Sink, Source};

use super::handle::Handle;

/// What a slot keeps from task to task: buffers, and what made the last output.
#[derive(Debug)]
pub(crate) struct Scratch {
    segment: Vec<u8>,
    part: Vec<u8>,
    reuse: Reuse,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let buffer = || Vec::with_capacity(SEGMENT_BYTES);
        Self { segment: buffer(), part: buffer(), reuse: Reuse::default() }
    }

    /// For an empty task: takes no memory before there is a byte.
    pub(crate) fn empty() -> Self {
        Self { segment: Vec::new(), part: Vec::new(), reuse: Reuse::default() }
    }
}

/// What an execution made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) input_bytes: u64,
    pub(crate) input_digest: Digest,
    pub(crate) output_bytes: u64,
    pub(crate) output_digest: Digest,
    pub(crate) verified: bool,
    pub(crate) times: Times,
}

/// Compresses the whole of `source` into `sink`; ends early when it is told to.
///
/// # Errors
///
/// Why there is no output.
pub(crate) fn execute(
    task: &TaskDescriptor,
    mut source: Source,
    mut sink: Sink,
    scratch: &mut Scratch,
    handle: &Handle,
) -> Result<Made, Failed> {
    let began = Instant::now();
    let mut clock = Clock::default();
    let verify = task.verify == Verify::Worker;
    let (mut input, mut output) = (Hasher::new(), Hasher::new());
    let (mut input_bytes, mut output_bytes) = (0, 0);
    let Scratch { segment, part, reuse } = scratch;
    // They are here, and come back at the end: an error or a panic drops them.
    let mut encoder = reuse.encoder(&task.codec);
    let mut verifier = verify.then(|| reuse.verifier(&task.codec));
    if task.codec.has_length_in_front() {
        let length = clock.lap(|c| &mut c.input, || source.length())?;
        encoder.announce(length.ok_or_else(|| without_length(task))?);
    }
    loop {
        if handle.is_stopped() {
            return Err(Failed::new(Cause::Timeout, "it was stopped"));
        }
        clock.lap(|c| &mut c.input, || source.next(segment))?;
        if segment.is_empty() {
            break;
        }
        part.clear();
        clock.lap(|c| &mut c.compress, || encoder.write(segment, part)).map_err(not_compressed)?;
        clock
            .lap(
                |c| &mut c.verify,
                || {
                    input.update(segment);
                    output.update(part);
                    verifier.as_mut().map_or(Ok(()), |verifier| verifier.check(segment, part))
                },
            )
            .map_err(because(Cause::VerifyFailed))?;
        input_bytes += segment.len() as u64;
        output_bytes += part.len() as u64;
        sink.write(part)?;
        handle.set_read(input_bytes);
    }
    part.clear();
    encoder.finish(part).map_err(not_compressed)?;
    if let Some(verifier) = &mut verifier {
        verifier.finish(part).map_err(because(Cause::VerifyFailed))?;
    }
    reuse.keep(&task.codec, encoder, verifier);
    output.update(part);
    output_bytes += part.len() as u64;
    let most = task.codec.output_bytes_max(input_bytes);
    if output_bytes > most {
        let text = format!("{output_bytes} bytes from {input_bytes}; at most {most}");
        return Err(Failed::new(Cause::BoundViolated, text));
    }
    sink.write(part)?;
    sink.finish()?;
    Ok(Made {
        input_bytes,
        input_digest: input.finish(),
        output_bytes,
        output_digest: output.finish(),
        verified: verify,
        times: clock.times(began.elapsed()),
    })
}

impl Made {
    /// What is told of it, once it is at its place.
    pub(crate) fn at(&self, place: Place) -> Done {
        Done {
            input_bytes: self.input_bytes,
            input_digest: self.input_digest,
            output_bytes: self.output_bytes,
            output_digest: self.output_digest,
            place,
            verified: self.verified,
        }
    }
}

/// What came of the files of a pack, in order; nothing of those that were decided before.
pub(crate) type MadeFiles = Vec<Option<Result<Made, Failed>>>;

/// Executes the files of a pack, one after another. One that fails keeps no other from being executed, unless the pack is to be
/// given back for it: it was stopped, or there is no space.
///
/// # Errors
///
/// Why the pack is to be given back.
pub(crate) fn execute_pack(
    task: &TaskDescriptor,
    files: Vec<Option<OpenFile>>,
    scratch: &mut Scratch,
    handle: &Handle,
) -> Result<MadeFiles, Failed> {
    let each = files.into_iter().map(|open| {
        let Some(open) = open else { return Ok(None) };
        match open().and_then(|(source, sink)| execute(task, source, sink, scratch, handle)) {
            Err(failed) if failed.cause.is_planned() || handle.is_stopped() => Err(failed),
            made => Ok(Some(made)),
        }
    });
    each.collect()
}

/// Trying again does not help: its size is made up when it is read.
fn without_length(task: &TaskDescriptor) -> Failed {
    let text = format!(
        "{} needs the size of an input before it is read, and this one has none; gzip needs none",
        task.codec.name()
    );
    Failed::new(Cause::InputUnreadable, text)
}

fn not_compressed(error: bagpress_codec::Error) -> Failed {
    let cause = match error {
        bagpress_codec::Error::OtherLength { .. } => Cause::InputChanged,
        _ => Cause::CodecError,
    };
    because(cause)(error)
}

fn because<E: std::fmt::Display>(cause: Cause) -> impl Fn(E) -> Failed {
    move |error| Failed::new(cause, error.to_string())
}

#[derive(Debug, Default)]
struct Clock {
    input: Duration,
    compress: Duration,
    verify: Duration,
}

impl Clock {
    fn lap<T>(&mut self, hand: impl Fn(&mut Self) -> &mut Duration, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let worked = work();
        *hand(self) += began.elapsed();
        worked
    }

    fn times(&self, execute: Duration) -> Times {
        Times {
            input_us: micros(self.input),
            compress_us: micros(self.compress),
            verify_us: micros(self.verify),
            execute_us: micros(execute),
            ..Times::default()
        }
    }
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bagpress_broker::descriptor::{Input, ResultPath};
    use bagpress_broker::samples;
    use bagpress_codec::{Codec, DataKind, Generator};

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
