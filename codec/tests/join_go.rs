//! Go reads joined blocks as one stream. It needs Go: `make test-extras`.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use bagpress_codec::{Codec, DataKind, Generator, SEGMENT_BYTES};

fn compress(codec: &Codec, input: &[u8]) -> Vec<u8> {
    let (mut encoder, mut block) = (codec.encoder(), Vec::new());
    for segment in input.chunks(SEGMENT_BYTES) {
        encoder.write(segment, &mut block).unwrap();
    }
    encoder.finish(&mut block).unwrap();
    block
}

/// What Go makes of `file`, or nothing if it is not one stream to its end.
fn gunzip(format: &str, file: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new("go")
        .args(["run", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gunzip.go"), format])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("go: {error}; install Go 1.24 or newer"));
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(file));
        child.wait_with_output().unwrap()
    });
    output.status.success().then_some(output.stdout)
}

#[test]
fn go_reads_joined_blocks_as_one_stream() {
    let parts = [(DataKind::Text, 300_000), (DataKind::Random, 270_000), (DataKind::Text, 0)].map(
        |(kind, bytes)| {
            let mut part = vec![0; bytes];
            Generator::new(kind, 1, 0, bytes as u64).fill(&mut part);
            part
        },
    );
    for codec in ["zlib:6", "gzip:0", "gzip:1", "gzip:6", "gzip:9", "gzip:6,full"] {
        let codec: Codec = codec.parse().unwrap();
        let (mut joiner, mut file, mut members) = (codec.joiner(), Vec::new(), Vec::new());
        for part in parts.iter().chain(&parts) {
            let block = compress(&codec, part);
            joiner.block(block.len() as u64, part.len() as u64).unwrap();
            joiner.write(&block, &mut file).unwrap();
            members.extend(block);
        }
        joiner.finish(&mut file).unwrap();
        let expected = [parts.concat(), parts.concat()].concat();
        assert!(gunzip(codec.name(), &file).is_some_and(|read| read == expected), "{codec}");
        assert!(gunzip(codec.name(), &members).is_none(), "{codec}: several streams pass as one");
    }
}
