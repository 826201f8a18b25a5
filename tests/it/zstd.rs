//! A bag by zstd: every output is one frame or a row of them, by every way, and what cannot have one is refused.

use std::fs;
use std::path::Path;

use bagpress_codec::{Codec, DataKind, decompress_all};

use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, failure, generated};
use crate::taken::run_of;

const MIB: usize = 1024 * 1024;

fn ways() -> impl Iterator<Item = String> {
    DELIVERIES.into_iter().flat_map(|delivery| {
        ["--transfer auto", "--transfer wire", "--results objects"]
            .map(|how| format!("--delivery {delivery} {how}"))
    })
}

fn decoded(output: &Path) -> Vec<u8> {
    let codec: Codec = "zstd".parse().unwrap();
    let bytes = fs::read(output).unwrap_or_else(|e| panic!("{}: {e}", output.display()));
    assert_eq!(bytes[..4], [0x28, 0xb5, 0x2f, 0xfd], "{}", output.display());
    decompress_all(&codec, &bytes).unwrap()
}

/// Files of every length that matters where they are read, and packed.
fn files(place: &Place) -> Vec<(String, Vec<u8>)> {
    let lengths = [0, 1, 5000, 256 * 1024, 300_000, 440 * 1024, 512 * 1024, 2 * MIB + 7];
    let kinds = [DataKind::Text, DataKind::Random].into_iter().cycle();
    let files: Vec<_> = (0_u32..)
        .zip(kinds.zip(lengths))
        .map(|(index, (kind, bytes))| (format!("f{index}"), generated(kind, index, bytes)))
        .collect();
    for (name, bytes) in &files {
        write(&place.path("in").join(name), bytes);
    }
    files
}

#[tokio::test]
async fn every_output_is_a_zst_file_of_its_input_by_every_way() {
    for how in ways() {
        let place = Place::new().await;
        let files = files(&place);
        let run = format!("run in --out out --name t -q --codec zstd:3 --workers 2 {how}");
        place.run(&run).await.with_code(0);
        expect_each_done_once(&place.path(&run_of("t", &how)), files.len() as u64);
        for (name, bytes) in &files {
            let output = place.path(&format!("out/in/{name}.zst"));
            assert!(decoded(&output) == *bytes, "{how} {name}");
        }
        place.run(&format!("verify {} --inputs", run_of("t", &how))).await.with_code(0);
    }
}

#[tokio::test]
async fn a_file_in_blocks_is_a_row_of_frames_with_a_table() {
    for how in ways() {
        let place = Place::new().await;
        let bytes = generated(DataKind::Text, 0, 5 * MIB + 1);
        write(&place.path("in/large"), &bytes);
        let run =
            format!("run in --out out --name t -q --codec zstd:3 --block 1MiB --workers 2 {how}");
        place.run(&run).await.with_code(0);
        let output = place.path("out/in/large.zst");
        assert!(decoded(&output) == bytes, "{how}");
        let file = fs::read(&output).unwrap();
        let footer = &file[file.len() - 9..];
        assert_eq!(footer, [6, 0, 0, 0, 0x80, 0xb1, 0xea, 0x92, 0x8f], "{how}");
        place.run(&format!("verify {} --inputs", run_of("t", &how))).await.with_code(0);
        // The output of a changed file is replaced, for it begins as one of this codec.
        write(&place.path("in/large"), b"another one");
        let again = "run in --out out --name u -q --codec zstd:3 --update --workers 1";
        place.run(again).await.with_code(0);
        assert_eq!(decoded(&output), b"another one");
    }
}

#[tokio::test]
async fn a_block_that_no_table_can_hold_is_refused_before_any_work() {
    let place = Place::new().await;
    write(&place.path("in/one"), b"one");
    let refused = place.run("run in --codec zstd:3 --block 2GiB --name t").await.with_code(2);
    assert!(refused.stderr.contains("with zstd they have at most 1 GiB"), "{refused:?}");
    assert!(refused.stderr.contains("hint: choose a smaller --block"), "{refused:?}");
    place.run("run in --codec gzip:1 --block 2GiB --name t -q").await.with_code(0);
}

/// Its size is made up when it is read, and is more than what is read to find out.
#[tokio::test]
async fn a_long_file_without_a_size_fails_with_a_hint_and_a_short_one_does_not() {
    let kallsyms = Path::new("/proc/kallsyms");
    assert!(fs::read(kallsyms).unwrap().len() > MIB, "it is a long one");
    for transfer in ["auto", "wire"] {
        let place = Place::new().await;
        let words = format!(
            "run /proc/kallsyms /proc/version --out out --name t -q --codec zstd:3 --transfer {transfer}"
        );
        place.run(&words).await.with_code(1);
        let (cause, why) = failure(&place.folder("t/staged"), 0);
        assert_eq!(cause, "input-unreadable", "{transfer}");
        assert!(why.ends_with("gzip needs none"), "{transfer}: {why}");
        let version = decoded(&place.path("out/version.zst"));
        assert_eq!(version, fs::read("/proc/version").unwrap(), "{transfer}");
    }
}
