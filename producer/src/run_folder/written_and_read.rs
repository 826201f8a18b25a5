//! What a run folder's files say reads back as itself, and a line of its ledger that was changed is
//! refused.

#[path = "../../../broker/tests/strategies/mod.rs"]
mod strategies;

use std::path::Path;
use std::sync::Arc;

use bagpress_broker::descriptor::{
    DeliveryPath, Pack, ResultPath, TaskDescriptor, Transfer, Verify,
};
use bagpress_broker::limits;
use bagpress_broker::result::TaskResult;
use bagpress_codec::DataKind;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use self::strategies::{bag, codec, digest, result, results, text};
use crate::run_folder::cuts::BlockSize;
use crate::run_folder::data::OwnCodec;
use crate::run_folder::extents::PackSize;
use crate::run_folder::folder::RunFolder;
use crate::run_folder::inputs::roots::Roots;
use crate::run_folder::ledger::line::{Entry, InputNow, decode, encode};
use crate::run_folder::specification::{Data, Specification};
use crate::run_folder::trust::Trust;

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        result().prop_map(|result| Entry::Outcome(Arc::new(result))),
        begun().prop_map(|(index, round)| Entry::Begun { index, round, input: None }),
        (begun(), any::<(u64, i64, u32, u64)>()).prop_map(
            |((index, round), (bytes, mtime_ns, mode, inode))| {
                let input = Some(InputNow { bytes, mtime_ns, mode, inode });
                Entry::Begun { index, round, input }
            }
        ),
    ]
}

/// A task and a round that there may be.
fn begun() -> impl Strategy<Value = (u32, u32)> {
    (0..limits::BAG_TASKS_MAX, 0..=limits::ROUND_MAX)
}

/// What a line keeps: the run folder has the specification.
fn kept(entry: Entry) -> Entry {
    match entry {
        Entry::Outcome(result) => {
            let result = TaskResult { descriptor: None, ..Arc::unwrap_or_clone(result) };
            Entry::Outcome(Arc::new(result))
        }
        begun @ Entry::Begun { .. } => begun,
    }
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![
        (select(DataKind::ALL.to_vec()), any::<(u64, u64)>())
            .prop_map(|(data, (seed, bytes))| Data::Generated { data, seed, bytes }),
        (digest(), any::<(u64, bool)>()).prop_map(|(list, (largest, restored))| {
            Data::Referenced { list, largest, restored }
        }),
        (digest(), any::<(u64, bool)>()).prop_map(|(list, (largest, packed))| {
            let parts = Data::PackedParts { list, largest };
            if packed { parts } else { parts.unpacked() }
        }),
        (digest(), any::<(u64, u32, bool)>(), vec(codec(), 0..5)).prop_map(
            |(list, (largest, files, fields), codecs)| {
                let own = codecs.into_iter();
                let own = own.map(|codec| OwnCodec { codec, library: codec.library() });
                let (roots, codecs) = (Roots::default(), own.collect());
                Data::Listed { list, largest, roots, files, fields, codecs }
            }
        ),
        (digest(), any::<(u64, bool)>(), vec(text(), 0..40)).prop_map(
            |(list, (largest, restored), paths)| {
                let mut roots = Roots::default();
                for path in &paths {
                    roots.add(path.as_ref());
                }
                if restored {
                    Data::Restored { list, largest, roots }
                } else {
                    Data::Files { list, largest, roots }
                }
            }
        ),
    ]
}

fn specification() -> impl Strategy<Value = Specification> {
    let data = data();
    let name = "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?";
    let what = (bag(), name, "[a-z0-9]{1,20}", codec(), text(), results());
    let flags = any::<[bool; 6]>();
    let numbers = any::<(u32, u32, u64, u64)>();
    let out = text().prop_map(|text| Path::new("/").join(text.replace("..", ".")));
    let out = option::of(out);
    (what, flags, numbers, data, out).prop_map(|(what, flags, numbers, data, out)| {
        let (bag, name, pool, codec, library, results) = what;
        let [offered, checked, auto, get, keep_inputs, stats] = flags;
        let (attempts, tasks, input_bytes, created_us) = numbers;
        let delivery = if offered { DeliveryPath::QueueGroup } else { DeliveryPath::Jetstream };
        Specification {
            v: limits::WIRE_VERSION,
            bag,
            name: name.parse().unwrap(),
            pool: pool.parse().unwrap(),
            codec,
            library,
            delivery,
            results,
            verify: if checked { Verify::Worker } else { Verify::None },
            transfer: if auto { Transfer::Auto } else { Transfer::Wire },
            attempts,
            tasks,
            input_bytes,
            data,
            out,
            get,
            keep_inputs,
            remove_source: get && stats,
            stats,
            pack: keep_inputs.then_some(PackSize { files: attempts, bytes: input_bytes }),
            block: stats.then_some(BlockSize { bytes: input_bytes, above: created_us }),
            ttl_s: get.then_some(created_us),
            created_us,
            selection: None,
        }
    })
}

proptest! {
    #[test]
    fn a_line_of_the_ledger_reads_back(entry in entry()) {
        let line = encode(&entry);
        prop_assert!(!line.contains(&b'\n'));
        prop_assert_eq!(decode(&line).unwrap(), kept(entry));
    }

    #[test]
    fn a_line_with_a_byte_changed_or_cut_off_is_refused(
        entry in entry(),
        at in any::<Index>(),
        to in any::<u8>(),
        cut in any::<Index>(),
    ) {
        let line = encode(&entry);
        let mut changed = line.clone();
        changed[at.index(line.len())] = to;
        prop_assert!(changed == line || decode(&changed).is_err());
        prop_assert!(decode(&line[..cut.index(line.len())]).is_err());
    }
}

proptest! {
    /// Another program than the one that made the bag may publish it.
    #[test]
    fn a_pack_pins_the_library_that_the_bag_pins(specification in specification()) {
        let line = r#"{"path":"/f","target":"f","bytes":1,"mtime_ns":0,"mode":0,"inode":1}"#;
        let task = specification.pack_descriptor(7, &serde_json::from_str(line).unwrap(), 2, 10);
        let pinned = task.library_of(&specification.library);
        prop_assert_ne!(&pinned, &specification.library);
        prop_assert_eq!((&task.library, task.index, task.round), (&pinned, 7, 0));
        prop_assert_eq!(task.packed(), Some(Pack { files: 2 }));
        prop_assert_eq!(&TaskDescriptor::decode(&task.encode(), &task.id()).unwrap(), &task);
    }
}

proptest! {
    // Each writes a file and syncs it.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_specification_of_a_run_folder_reads_back(specification in specification()) {
        let runs = tempfile::tempdir().unwrap();
        let (name, staged) = (&specification.name, ResultPath::Staged);
        let folder = RunFolder::make(runs.path(), name, staged, Trust::Ours).unwrap();
        specification.write(&folder).unwrap();
        prop_assert_eq!(Specification::read(&folder).unwrap(), specification);
    }
}
