//! Everything that travels, at random: for the tests of every crate that what is written reads back.

use bagpress_broker::descriptor::{
    Again, Block, Decode, FilePart, Input, Original, Pack, Part, ResultPath, TaskDescriptor,
    Transfer, Verify,
};
use bagpress_broker::ids::{BagId, Execution, random_base32};
use bagpress_broker::limits;
use bagpress_broker::result::{Cause, Done, Failed, FileId, Outcome, Place, TaskResult, Times};
use bagpress_codec::{Choice, Codec, DataKind, Digest, EntryPoint};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// Any text, control characters and quotes among it.
pub(crate) fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..40).prop_map(String::from_iter)
}

pub(crate) fn bag() -> impl Strategy<Value = BagId> {
    "[a-z0-9]([a-z0-9-]{0,53}[a-z0-9])?".prop_map(|name| {
        let name = name.parse().unwrap_or_else(|error| panic!("{error}"));
        BagId::new(&name)
    })
}

pub(crate) fn execution() -> impl Strategy<Value = Execution> {
    any::<()>().prop_map(|()| random_base32::<20>().parse().unwrap_or_else(|_| Execution::random()))
}

pub(crate) fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

pub(crate) fn codec() -> impl Strategy<Value = Codec> {
    select(vec!["zlib:0", "zlib:6", "gzip:1", "gzip:9", "zstd:3", "zstd:19,long", "store", "noop"])
        .prop_map(|name| name.parse().unwrap_or_else(|error| panic!("{name}: {error}")))
}

pub(crate) fn results() -> impl Strategy<Value = ResultPath> {
    select(vec![ResultPath::Staged, ResultPath::Objects])
}

pub(crate) fn cause() -> impl Strategy<Value = Cause> {
    select(Cause::ALL.to_vec())
}

/// Durations and times, in µs.
pub(crate) fn time() -> impl Strategy<Value = u64> {
    0..=limits::TIME_US_MAX
}

/// Sizes that a task may have.
fn bytes() -> impl Strategy<Value = u64> {
    0..=limits::INPUT_BYTES_MAX
}

fn input() -> impl Strategy<Value = Input> {
    let kind = select(DataKind::ALL.to_vec());
    let generate = (kind, any::<u64>(), bytes());
    prop_oneof![
        generate.prop_map(|(data, seed, bytes)| Input::Generate { data, seed, bytes }),
        (text(), bytes()).prop_map(|(name, bytes)| Input::File { name, bytes }),
        (text(), text(), text(), bytes(), option::of(digest())).prop_map(
            |(bucket, object, name, bytes, digest)| {
                Input::Object { bucket, object, name, bytes, digest, part: None }
            }
        ),
    ]
}

/// Descriptors that are within their bounds.
pub(crate) fn descriptor() -> impl Strategy<Value = TaskDescriptor> {
    let which = (bag(), 0..limits::BAG_TASKS_MAX, 0..=limits::ROUND_MAX);
    let what = (codec(), text(), input(), results());
    let pack = option::of((2..=limits::PACK_FILES_MAX).prop_map(|files| Pack { files }));
    let block = (0..limits::BAG_TASKS_MAX, 0..=limits::INPUT_BYTES_MAX);
    let block = option::of(block.prop_map(|(file, at)| Block { file, at }));
    let original = (0..=limits::INPUT_BYTES_MAX, digest());
    let original = option::of(original.prop_map(|(bytes, digest)| Original { bytes, digest }));
    let decode = option::of(original.prop_map(|original| Decode { original }));
    let part = option::of((0..=limits::OUTPUT_BYTES_MAX, digest()));
    let part = part.prop_map(|part| part.map(|(at, digest)| Part { at, digest }));
    let again = option::of((2..=limits::PACK_FILES_MAX, digest()));
    let file = (0..limits::PACK_BYTES_MAX / 64, 0..limits::PACK_BYTES_MAX / 64, digest());
    let parts = vec(file.prop_map(|(at, bytes, digest)| FilePart { at, bytes, digest }), 2..64);
    let cut = (pack, block, decode, part, again, option::of(parts));
    let how = (any::<bool>(), any::<bool>(), 1..=limits::ATTEMPTS_MAX, time(), cut);
    (which, what, how).prop_map(|(which, what, how)| {
        let (bag, index, round) = which;
        let (codec, library, input, results) = what;
        let (checked, auto, attempts, published_us, (pack, block, decode, part, again, parts)) = how;
        let task = TaskDescriptor {
            v: limits::WIRE_VERSION,
            bag,
            index,
            round,
            codec,
            library,
            // Files come from the gatherer; a bag of objects needs none.
            results: match input {
                Input::File { .. } => ResultPath::Staged,
                _ => results,
            },
            tar: pack.filter(|_| {
                round == 0
                    && results == ResultPath::Objects
                    && matches!(input, Input::Object { bytes, .. } if bytes <= limits::PACK_BYTES_MAX)
                    && index < limits::BAG_TASKS_MAX - limits::PACK_FILES_MAX
            }),
            parts: Vec::new(),
            pack: pack.filter(|_| {
                round == 0
                    && matches!(input, Input::File { bytes, .. } if bytes <= limits::PACK_BYTES_MAX)
                    && index < limits::BAG_TASKS_MAX - limits::PACK_FILES_MAX
            }),
            again: None,
            block: block.filter(|_| pack.is_none() && matches!(input, Input::File { .. })),
            decode: decode.filter(|decode| {
                let is_whole = block.is_none() && (pack.is_none() || results != ResultPath::Objects);
                let is_made = matches!(input, Input::Generate { .. });
                let may_be_packed = pack.is_none() || decode.original.is_none();
                is_whole && !is_made && may_be_packed && !codec.stores_nothing()
            }),
            input,
            verify: if checked { Verify::Worker } else { Verify::None },
            transfer: if auto { Transfer::Auto } else { Transfer::Wire },
            attempts,
            published_us,
        };
        with_again(with_parts(with_part(task, part), parts), again)
    })
}

/// Of a task of one object, perhaps a pack that is run again: of its files, with the digest of their tar, every other one.
fn with_again(mut task: TaskDescriptor, wanted: Option<(u32, Digest)>) -> TaskDescriptor {
    let (Some((files, of)), None, None) = (wanted, task.decode, task.tar) else { return task };
    let Input::Object { bytes, digest, part: None, .. } = &mut task.input else { return task };
    let again = Again { files, places: (0..files).step_by(2).collect(), digest: of };
    (*bytes, *digest) = (*bytes % limits::PACK_BYTES_MAX, Some(again.of_no_input()));
    task.index = task.index.min(limits::BAG_TASKS_MAX - files);
    (task.round, task.results) = (task.round.max(1), ResultPath::Objects);
    task.again = Some(Box::new(again));
    task
}

/// Only of an object that is known several parts may be restored together, once.
fn with_parts(mut task: TaskDescriptor, wanted: Option<Vec<FilePart>>) -> TaskDescriptor {
    let is_staged = task.results == ResultPath::Staged && task.index < limits::BAG_TASKS_MAX - 64;
    if let (Some(parts), Some(Decode { original }), true) = (wanted, &mut task.decode, is_staged)
        && let Input::Object { digest: Some(_), part, bytes, .. } = &mut task.input
    {
        *bytes = parts.iter().map(|part| part.bytes).sum();
        (*part, *original, task.round, task.parts) = (None, None, 0, parts);
    }
    task
}

/// Only of an object that is to be restored a part may be the input.
fn with_part(mut task: TaskDescriptor, wanted: Option<Part>) -> TaskDescriptor {
    if let (Some(_), Input::Object { part, .. }) = (task.decode, &mut task.input) {
        *part = wanted;
    }
    task
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        Just(Place::Staged),
        Just(Place::Nothing),
        (text(), text(), 0..=limits::OUTPUT_BYTES_MAX)
            .prop_map(|(bucket, object, chunks)| Place::Object { bucket, object, chunks }),
        (text(), text(), 0..=limits::OUTPUT_BYTES_MAX, 0..=limits::OUTPUT_BYTES_MAX, digest())
            .prop_map(|(bucket, object, chunks, at, digest)| Place::Tar {
                bucket,
                object,
                chunks,
                at,
                digest
            }),
    ]
}

pub(crate) fn failed() -> impl Strategy<Value = Failed> {
    (cause(), text()).prop_map(|(cause, message)| Failed::new(cause, message))
}

fn entry_points() -> impl Strategy<Value = Vec<EntryPoint>> {
    let point = (any::<u64>(), any::<u64>(), digest()).prop_map(|(part, bit, digest)| EntryPoint {
        part,
        bit,
        digest,
    });
    vec(point, 0..4)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let output = 0..=limits::OUTPUT_BYTES_MAX;
    let choice = (1..=19_u32, prop::option::of(0..=limits::OUTPUT_BYTES_MAX))
        .prop_map(|(level, predicted_bytes)| Choice { level, predicted_bytes });
    let choice = prop::option::of(choice);
    let done =
        (bytes(), digest(), output, digest(), place(), any::<bool>(), choice, entry_points());
    prop_oneof![
        failed().prop_map(Outcome::Failed),
        done.prop_map(
            |(
                input_bytes,
                input_digest,
                output_bytes,
                output_digest,
                place,
                verified,
                choice,
                entry_points,
            )| {
                Outcome::Done(Done {
                    input_bytes,
                    input_digest,
                    output_bytes,
                    output_digest,
                    place,
                    verified,
                    choice,
                    fidelity: None,
                    entry_points,
                })
            }
        ),
    ]
}

fn times() -> impl Strategy<Value = Times> {
    proptest::array::uniform7(time()).prop_map(
        |[queue, input, compress, verify, execute, transfer, made]| Times {
            queue_us: queue,
            input_us: input,
            compress_us: compress,
            verify_us: verify,
            execute_us: execute,
            transfer_us: transfer,
            made_us: made,
        },
    )
}

/// Results of any task, with its descriptor or without.
pub(crate) fn result() -> impl Strategy<Value = TaskResult> {
    let who = (execution(), any::<u32>(), text(), text());
    let members = vec(option::of(outcome()), 0..4);
    (descriptor(), any::<bool>(), who, (outcome(), members), times()).prop_map(
        |(task, carries, (execution, attempt, worker, host), (outcome, members), times)| {
            TaskResult {
                twin_of: None,
                v: limits::WIRE_VERSION,
                bag: task.bag.clone(),
                index: task.index,
                round: task.round,
                execution,
                attempt,
                worker,
                host,
                outcome,
                times,
                descriptor: carries.then(|| Box::new(task)),
                file: carries.then_some(FileId { inode: 3, born_ns: 1_764_000_000_000_000_000 }),
                members,
            }
        },
    )
}
