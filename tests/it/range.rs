//! A range of one file is restored without a server, and without reading all of the file where it has an index.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Ended, Place};

/// Lines of text, each with its number.
fn numbered(lines: usize) -> Vec<u8> {
    (0..lines).flat_map(|line| format!("line {line} of a long file\n").into_bytes()).collect()
}

/// A run of a long file, cut into blocks of 1 MiB, and of a short one.
async fn compressed(codec: &str) -> (Place, Vec<u8>) {
    let (place, long) = (Place::new().await, numbered(200_000));
    fs::create_dir(place.path("in")).unwrap();
    fs::write(place.path("in/long"), &long).unwrap();
    fs::write(place.path("in/short"), b"short").unwrap();
    let run = format!("run in --out out --name t -q --workers 2 --block 1MiB --codec {codec}");
    place.run(&run).await.with_code(0);
    (place, long)
}

/// Restores a range into `part`, which it is then, and removes it. Nothing else was made.
async fn expect_range(place: &Place, words: &str, expected: &[u8]) -> Ended {
    let command = format!("restore {words} --out part");
    let ended = place.run(&command).await.with_code(0);
    assert!(fs::read(place.path("part")).unwrap() == expected, "{words}");
    fs::remove_file(place.path("part")).unwrap();
    let runs: Vec<_> =
        fs::read_dir(place.path("runs")).unwrap().map(|run| run.unwrap().file_name()).collect();
    assert_eq!(runs, ["t"], "{words}");
    expect_no_remains(place);
    ended
}

fn expect_no_remains(place: &Place) {
    let names = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> =
        names.filter(|name| name.to_string_lossy().starts_with(".bagpress")).collect();
    assert!(left.is_empty(), "{left:?}");
}

const RANGES: &[(&str, usize, usize)] = &[
    ("3MiB..3MiB+100KiB", 3 << 20, (3 << 20) + (100 << 10)),
    ("1048575..+2", 1_048_575, 1_048_577),
    ("..5", 0, 5),
];

#[tokio::test]
async fn a_range_of_a_run_of_blocks_reads_these_and_is_compared_with_their_digests() {
    for codec in ["gzip:6", "zlib:1", "store"] {
        let (place, long) = compressed(codec).await;
        for (range, from, to) in RANGES {
            let words = format!("runs/t/staged in/long --range {range}");
            let ended = expect_range(&place, &words, &long[*from..*to]).await;
            let parts =
                if *range == "1048575..+2" { "read 2 of 6 parts" } else { "read 1 of 6 parts" };
            for said in [parts, "compared with the digests that the run recorded"] {
                assert!(ended.stderr.contains(said), "{codec} {range}: {}", ended.stderr);
            }
        }
        let all = format!("runs/t/staged in/long --range {}..", long.len() - 9);
        expect_range(&place, &all, &long[long.len() - 9..]).await;
        let short = expect_range(&place, "runs/t/staged in/short --range 1..3", b"ho").await;
        let not_cut =
            "read from the start: no index, and to its end; compared with the digest that the run";
        assert!(short.stderr.contains(not_cut), "{codec}: {}", short.stderr);
    }
}

#[tokio::test]
async fn a_range_of_a_file_alone_is_found_by_its_table_or_read_from_the_start() {
    let (place, long) = compressed("zstd:3").await;
    for (range, from, to) in RANGES {
        let words = format!("out/in/long.zst --range {range}");
        let ended = expect_range(&place, &words, &long[*from..*to]).await;
        assert!(
            ended.stderr.contains("of 6 parts; compared with the checksums"),
            "{}",
            ended.stderr
        );
    }
    let stdout = place.run("restore out/in/long.zst --range 0..9 --out - -q").await.with_code(0);
    assert_eq!((stdout.stdout.as_str(), stdout.stderr.as_str()), ("line 0 of", ""));
    // What other programs know nothing of is nothing that they need.
    let gzip = Command::new("gzip").arg("-k").arg(place.path("in/long")).status().unwrap();
    assert!(gzip.success());
    let ended =
        expect_range(&place, "in/long.gz --range 2MiB..+10", &long[2 << 20..(2 << 20) + 10]).await;
    assert!(ended.stderr.contains("read from the start: no index"), "{}", ended.stderr);
    // A table that was made before something was put behind leads nowhere.
    let twice = [
        fs::read(place.path("out/in/long.zst")).unwrap(),
        fs::read(place.path("out/in/long.zst")).unwrap(),
    ];
    fs::write(place.path("twice.zst"), twice.concat()).unwrap();
    let words = format!("twice.zst --range {}..+3", long.len() - 1);
    let ended = expect_range(&place, &words, b"\nli").await;
    assert!(
        ended.stderr.contains("read from the start: its index is of no use"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn a_damaged_block_gives_no_range_and_leaves_no_file() {
    for (codec, name) in [("gzip:6", "long.gz"), ("zstd:3", "long.zst")] {
        let (place, _) = compressed(codec).await;
        let path = place.path("out/in").join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let words = "restore runs/t/staged in/long --range 0.. --out part";
        let ended = place.run(words).await.with_code(1);
        assert!(ended.stderr.contains("input-corrupt"), "{}", ended.stderr);
        assert!(!place.path("part").exists());
        expect_no_remains(&place);
        // What was not read says nothing.
        place.run("restore runs/t/staged in/long --range 0..9 --out part").await.with_code(0);
        bytes.pop();
        fs::write(&path, &bytes).unwrap();
        let words = "restore runs/t/staged in/long --range 0..9 --out other";
        assert!(place.run(words).await.with_code(1).stderr.contains("bytes, and the run made"));
    }
}

#[tokio::test]
async fn a_range_that_cannot_be_is_refused_by_name() {
    let (place, long) = compressed("zstd:3").await;
    let made = Command::new("mkfifo").arg(place.path("pipe.gz")).status().unwrap();
    assert!(made.success());
    fs::write(place.path("there"), b"there").unwrap();
    fs::write(place.path("plain"), b"plain").unwrap();
    let behind = format!("out/in/long.zst --range {}.. --out part", long.len());
    let beyond = format!("runs/t/staged in/long --range 0..{} --out part", long.len() + 1);
    for (words, said) in [
        (behind.as_str(), "is not within them"),
        (beyond.as_str(), "is not within them"),
        ("out/in/short.zst --range 0..6 --out part", "gives 5 bytes"),
        ("out/in/long.zst --range 5..5 --out part", "is empty"),
        ("out/in/long.zst --range 5 --out part", "a range is FROM..TO"),
        ("out/in/long.zst out/in/short.zst --range 0..5 --out part", "more than one file"),
        ("runs/nope/staged a --range 0..5 --out part", "no file and no run runs/nope/staged"),
        ("runs/nope/staged --range 0..5 --out part", "no file and no run runs/nope/staged"),
        ("runs/t/staged --range 0..5 --out part", "has 2 files"),
        ("runs/t/staged in/none --range 0..5 --out part", "no file of the bag"),
        ("out --range 0..5 --out part", "is a folder"),
        ("pipe.gz --range 0..5 --out part", "is no regular file"),
        ("plain --range 0..5 --out part", "does not say how"),
        ("none.gz --range 0..5 --out part", "cannot be read"),
        ("out/in/long.zst --range 0..5 --out there", "exists"),
        ("out/in/long.zst --range 0..5 --out out", "is a folder"),
        ("out/in/long.zst --range 0..5 --out none/part", "cannot be made"),
        (
            "out/in/long.zst --range 0..5 --out part --workers 2",
            "--workers does nothing with --range",
        ),
        (
            "out/in/long.zst --range 0..5 --out part --server nats://h",
            "--server does nothing with --range",
        ),
    ] {
        let ended = place.run(&format!("restore {words}")).await.with_code(2);
        assert!(ended.stderr.contains(said), "{words}: {}", ended.stderr);
        assert!(!place.path("part").exists(), "{words}");
        expect_no_remains(&place);
    }
    assert_eq!(fs::read(place.path("there")).unwrap(), b"there");
    place.run("restore out/in/long.zst --range 0..4 --out there --overwrite").await.with_code(0);
    assert_eq!(fs::read(Path::new(&place.path("there"))).unwrap(), b"line");
}

#[tokio::test]
async fn a_range_of_a_twin_is_compared_as_that_of_its_first() {
    let (place, long) = (Place::new().await, numbered(200_000));
    fs::create_dir(place.path("in")).unwrap();
    for name in ["a", "b"] {
        fs::write(place.path("in").join(name), &long).unwrap();
    }
    place.run("run in --out out --name t -q --workers 2 --block 1MiB").await.with_code(0);
    let words = "runs/t/staged in/b --range 3MiB..+10";
    let ended = expect_range(&place, words, &long[3 << 20..(3 << 20) + 10]).await;
    let said = "read 1 of 6 parts; compared with the digests that the run recorded";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
}

#[tokio::test]
async fn what_is_damaged_before_a_range_gives_none_where_a_file_has_no_index() {
    let (place, _) = compressed("gzip:6").await;
    let gzip = Command::new("gzip").arg("-k").arg(place.path("in/long")).status().unwrap();
    assert!(gzip.success());
    for (file, words) in
        [("in/long.gz", "in/long.gz"), ("out/in/short.gz", "runs/t/staged in/short")]
    {
        let path = place.path(file);
        let mut bytes = fs::read(&path).unwrap();
        // The checksum, so that every byte of the range comes back all the same.
        let checksum = bytes.len() - 8;
        bytes[checksum] ^= 1;
        fs::write(&path, bytes).unwrap();
        let refused = place.run(&format!("restore {words} --range 2..3 --out part")).await;
        let refused = refused.with_code(1);
        assert!(refused.stderr.contains("input-corrupt"), "{words}: {}", refused.stderr);
        assert!(!place.path("part").exists());
    }
}
