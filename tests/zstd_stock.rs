//! What the `zstd` command makes of the outputs of a bag: `make test-peers`.

use std::fs;
use std::path::Path;
use std::process::Command;

use bagpress_codec::{DataKind, Generator};

fn generated(kind: DataKind, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    Generator::new(kind, 0, 0, bytes as u64).fill(&mut buffer);
    buffer
}

/// Runs the program in a folder; fails unless it succeeds.
fn run(folder: &Path, program: &str, words: &str) -> Vec<u8> {
    let ran = Command::new(program).args(words.split(' ')).current_dir(folder).output();
    let ran = ran.unwrap_or_else(|error| panic!("{program}: {error}; install the package zstd"));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {words}: {said}");
    ran.stdout
}

#[test]
fn zstd_opens_every_output_of_a_folder_by_every_way() {
    let long = 5 * 1024 * 1024 + 1;
    let files = [
        ("empty", Vec::new()),
        ("small", b"some words\n".to_vec()),
        ("noise", generated(DataKind::Random, 700_000)),
        // Three blocks and more, hence a row of frames.
        ("long", generated(DataKind::Text, long)),
    ];
    for how in ["--transfer auto", "--transfer wire", "--results objects"] {
        for codec in ["zstd:3", "zstd:19,long"] {
            let place = tempfile::tempdir().expect("a folder");
            fs::create_dir(place.path().join("in")).expect("a folder");
            for (name, bytes) in &files {
                fs::write(place.path().join("in").join(name), bytes).expect("a file");
            }
            let words = format!(
                "run in --out out --name t -q --workers 2 --block 1MiB --codec {codec} {how}"
            );
            run(place.path(), env!("CARGO_BIN_EXE_bagpress"), &words);
            for (name, bytes) in &files {
                let output = format!("out/in/{name}.zst");
                run(place.path(), "zstd", &format!("-t -q {output}"));
                let opened = run(place.path(), "zstd", &format!("-dc {output}"));
                assert!(opened == *bytes, "{codec} {how}: {name}");
            }
        }
    }
}
