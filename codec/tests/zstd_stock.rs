//! The `zstd` command reads what we make, and we read what it makes: `make test-peers`.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use bagpress_codec::{Codec, DataKind, Generator, SEGMENT_BYTES, decompress_all};

/// Runs `zstd` with `input` on its standard input, and returns its output when it succeeded.
fn zstd(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("zstd")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("zstd: {error}; install the package zstd"));
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "zstd {arguments:?}: {}", output.status);
    output.stdout
}

fn input() -> Vec<u8> {
    let mut input = Vec::new();
    for kind in [DataKind::Text, DataKind::Random, DataKind::Text, DataKind::Zeros] {
        let start = input.len();
        input.resize(start + SEGMENT_BYTES + 1, 0);
        Generator::new(kind, 3, 1, SEGMENT_BYTES as u64 + 1).fill(&mut input[start..]);
    }
    input
}

fn compress(codec: &Codec, input: &[u8]) -> Vec<u8> {
    let (mut encoder, mut output) = (codec.encoder(), Vec::new());
    encoder.announce(input.len() as u64);
    for segment in input.chunks(SEGMENT_BYTES) {
        encoder.write(segment, &mut output).unwrap();
    }
    encoder.finish(&mut output).unwrap();
    output
}

#[test]
fn zstd_opens_every_level_without_a_flag() {
    for input in [input(), vec![], b"x".to_vec()] {
        for level in 1..=19 {
            for switch in ["", ",long"] {
                let codec: Codec = format!("zstd:{level}{switch}").parse().unwrap();
                let output = compress(&codec, &input);
                zstd(&["-t", "-q"], &output);
                assert!(zstd(&["-dc"], &output) == input, "{codec}");
            }
        }
    }
}

#[test]
fn zstd_opens_a_window_of_128_mib_without_a_flag() {
    let codec: Codec = "zstd:1,long".parse().unwrap();
    let text = input();
    let input: Vec<u8> = text.iter().copied().cycle().take(129 << 20).collect();
    assert!(zstd(&["-dc"], &compress(&codec, &input)) == input);
}

#[test]
fn zstd_reads_joined_frames_to_the_end() {
    let codec: Codec = "zstd:3".parse().unwrap();
    let (input, mut joiner, mut file) = (input(), codec.joiner(), Vec::new());
    for part in input.chunks(SEGMENT_BYTES) {
        let block = compress(&codec, part);
        joiner.block(block.len() as u64, part.len() as u64).unwrap();
        joiner.write(&block, &mut file).unwrap();
    }
    joiner.finish(&mut file).unwrap();
    zstd(&["-t", "-q"], &file);
    assert!(zstd(&["-dc"], &file) == input);
}

#[test]
fn we_open_what_zstd_makes() {
    let input = input();
    for arguments in [&["-c"][..], &["-c", "-19"], &["-c", "--long=27", "--no-check"]] {
        let made = zstd(arguments, &input);
        assert!(decompress_all(&"zstd".parse().unwrap(), &made).unwrap() == input);
    }
}
