//! Whatever worker and gatherer say to each other reads back as itself.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../../broker/tests/strategies/mod.rs"]
mod strategies;

use std::fmt::Debug;
use std::path::PathBuf;

use bagpress_broker::descriptor::{Pack, decode_json};
use bagpress_broker::limits;
use bagpress_objstore::staging::Section;
use bagpress_objstore::staging::messages::{
    Came, Chunked, Close, Closed, ClosedFile, Go, InputRequest, NoRoom, Open, Opened, Share,
    SharedInput,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::strategies::{digest, execution, failed, result, text};

const V: u32 = limits::WIRE_VERSION;

fn path() -> impl Strategy<Value = PathBuf> {
    text().prop_map(PathBuf::from)
}

fn task() -> impl Strategy<Value = (u32, u32)> {
    (0..limits::BAG_TASKS_MAX, 0..=limits::ROUND_MAX)
}

fn size() -> impl Strategy<Value = u64> {
    0..=limits::OUTPUT_BYTES_MAX
}

fn open() -> impl Strategy<Value = Open> {
    (task(), execution(), option::of(text())).prop_map(|((index, round), execution, by_path)| {
        Open { v: V, index, round, execution, by_path }
    })
}

fn close() -> impl Strategy<Value = Close> {
    let came = select(vec![Came::Inline, Came::Chunks, Came::ByPath]);
    let file = (size(), digest()).prop_map(|(bytes, digest)| ClosedFile { bytes, digest });
    let files = vec(option::of(file), 0..=64);
    (task(), size(), execution(), digest(), came, files).prop_map(
        |((index, round), bytes, execution, digest, came, files)| Close {
            v: V,
            index,
            round,
            execution,
            bytes,
            digest,
            came,
            files,
        },
    )
}

fn input_request() -> impl Strategy<Value = InputRequest> {
    let pack = option::of((2..=limits::PACK_FILES_MAX).prop_map(|files| Pack { files }));
    (task(), size(), size(), pack).prop_map(|((index, _), offset, bytes, pack)| InputRequest {
        v: V,
        index,
        offset,
        bytes,
        pack,
    })
}

fn no_room() -> impl Strategy<Value = NoRoom> {
    let said = (task(), size(), proptest::option::of(size()));
    said.prop_map(|((index, round), bytes, free)| NoRoom {
        v: limits::WIRE_VERSION,
        index,
        round,
        bytes,
        free,
    })
}

fn share() -> impl Strategy<Value = Share> {
    let input = || {
        let section = option::of((size(), size()).prop_map(|(at, bytes)| Section { at, bytes }));
        (path(), any::<(u64, i64, u64)>(), section).prop_map(
            |(path, (bytes, mtime_ns, inode), section)| {
                let bytes_of = |Section { at, bytes }: Section| Section {
                    at: at.min(limits::INPUT_BYTES_MAX),
                    bytes: bytes.min(limits::INPUT_BYTES_MAX),
                };
                SharedInput { path, bytes, mtime_ns, inode, section: section.map(bytes_of) }
            },
        )
    };
    let inputs = vec(option::of(input()), 0..4);
    (path(), text(), path(), any::<bool>(), option::of(input()), inputs).prop_map(
        |(nonce_file, nonce, part, same_kernel, input, inputs)| Share {
            nonce_file,
            nonce,
            part,
            same_kernel,
            input,
            inputs,
        },
    )
}

fn opened() -> impl Strategy<Value = Opened> {
    let go = (any::<usize>(), size(), option::of(share()), vec(0..64_u32, 0..=64));
    prop_oneof![
        go.prop_map(|(window, offset, share, decided)| {
            Opened::Go(Go { window, offset, share, decided })
        }),
        result().prop_map(|result| Opened::HaveIt(Box::new(result))),
        text().prop_map(|reason| Opened::Wait { reason }),
        failed().prop_map(Opened::Refused),
    ]
}

fn chunked() -> impl Strategy<Value = Chunked> {
    prop_oneof![
        (size(), any::<(usize, bool)>()).prop_map(|(offset, (window, again))| Chunked::Next {
            offset,
            window,
            again
        }),
        result().prop_map(|result| Chunked::HaveIt(Box::new(result))),
        (text(), any::<bool>()).prop_map(|(reason, open)| Chunked::Wait { reason, open }),
        failed().prop_map(Chunked::Refused),
    ]
}

fn closed() -> impl Strategy<Value = Closed> {
    prop_oneof![
        Just(Closed::Durable),
        Just(Closed::Reading),
        result().prop_map(|result| Closed::HaveIt(Box::new(result))),
        text().prop_map(|message| Closed::Mismatch { message }),
        (text(), any::<bool>()).prop_map(|(reason, open)| Closed::Wait { reason, open }),
        failed().prop_map(Closed::Refused),
    ]
}

fn answer_reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T) {
    let written = serde_json::to_vec(message).unwrap();
    assert_eq!(&serde_json::from_slice::<T>(&written).unwrap(), message);
}

fn question_reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T) {
    let written = serde_json::to_vec(message).unwrap();
    assert_eq!(&decode_json::<T>(&written).unwrap(), message);
}

proptest! {
    #[test]
    fn a_question_reads_back(open in open(), close in close(), request in input_request(), full in no_room()) {
        question_reads_back(&full);
        question_reads_back(&open);
        question_reads_back(&close);
        question_reads_back(&request);
    }

    #[test]
    fn an_answer_reads_back(opened in opened(), chunked in chunked(), closed in closed()) {
        answer_reads_back(&opened);
        answer_reads_back(&chunked);
        answer_reads_back(&closed);
    }
}
