//! An input that is shorter than a segment is encoded whole, by another library, and keeps every promise.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::io::Write;
use std::process::{Command, Stdio};

use bagpress_codec::{
    Codec, DataKind, Digest, Generator, Reuse, SEGMENT_BYTES, Verifier, compress_all,
    decompress_all,
};
use proptest::prelude::*;

fn generate(kind: DataKind, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    assert_eq!(Generator::new(kind, 1, 0, bytes as u64).fill(&mut buffer), bytes);
    buffer
}

/// Every level of every codec that has some, with and without `full`.
fn deflating() -> Vec<Codec> {
    let texts = ["zlib", "gzip"].into_iter().flat_map(|name| {
        (0..=9).flat_map(move |level| [format!("{name}:{level}"), format!("{name}:{level},full")])
    });
    texts.map(|text| text.parse().unwrap()).collect()
}

/// Sizes from nothing to a segment, around everything that has a boundary.
const SIZES: [usize; 12] =
    [0, 1, 2, 10, 1000, 1023, 1024, 5000, 65_535, 65_536, SEGMENT_BYTES - 1, SEGMENT_BYTES];

/// What segment-by-segment encoding makes of it.
fn in_segments(codec: &Codec, input: &[u8]) -> Vec<u8> {
    let (mut encoder, mut output) = (codec.encoder(), Vec::new());
    for segment in input.chunks(SEGMENT_BYTES) {
        encoder.write(segment, &mut output).unwrap();
    }
    encoder.finish(&mut output).unwrap();
    output
}

#[test]
fn every_level_is_bounded_and_comes_back_at_every_size() {
    for kind in DataKind::ALL {
        let is_wanted = |codec: &Codec| {
            // What is around the stream of deflate does not depend on the level.
            !codec.is_full() && (codec.name() == "zlib" || codec.level() == Some(6))
        };
        for codec in deflating().into_iter().filter(is_wanted) {
            for bytes in SIZES {
                let input = generate(kind, bytes);
                let output = compress_all(&codec, &input).unwrap();
                let bound = codec.output_bytes_max(bytes as u64);
                assert!(
                    output.len() as u64 <= bound,
                    "{codec}, {kind}: {bytes} to {}",
                    output.len()
                );
                assert!(
                    decompress_all(&codec, &output).unwrap() == input,
                    "{codec}, {kind}, {bytes}"
                );
                let (mut verifier, none) = (Verifier::new(&codec), []);
                verifier.check(&input, &output).unwrap();
                verifier.finish(&none).unwrap();
            }
        }
    }
}

#[test]
fn from_a_segment_on_and_with_full_nothing_is_encoded_whole() {
    for codec in deflating() {
        for bytes in SIZES {
            let input = generate(DataKind::Text, bytes);
            if bytes == SEGMENT_BYTES || codec.is_full() || codec.level() == Some(0) {
                let whole = compress_all(&codec, &input).unwrap();
                assert!(whole == in_segments(&codec, &input), "{codec}, {bytes}");
            }
        }
        let long = generate(DataKind::Text, SEGMENT_BYTES + 1000);
        assert!(compress_all(&codec, &long).unwrap() == in_segments(&codec, &long), "{codec}");
    }
}

#[test]
fn text_is_no_larger_than_segment_by_segment() {
    for level in 1..=9 {
        let codec: Codec = format!("gzip:{level}").parse().unwrap();
        let input = generate(DataKind::Text, SEGMENT_BYTES - 1);
        let (whole, segments) =
            (compress_all(&codec, &input).unwrap(), in_segments(&codec, &input));
        // libdeflate's levels are not zlib's; at none is text more than a hundredth larger.
        assert!(
            whole.len() <= segments.len() * 101 / 100,
            "{codec}: {} {}",
            whole.len(),
            segments.len()
        );
    }
}

/// Workers of one library version must agree. When this changes, so must the revision in `LIBRARY`.
#[test]
fn short_outputs_are_pinned() {
    let input = generate(DataKind::Text, 100_000);
    let table: Vec<_> = ["zlib:1", "zlib:6", "zlib:9", "gzip:6"]
        .iter()
        .map(|text| {
            let output = compress_all(&text.parse().unwrap(), &input).unwrap();
            format!("{text} {} {}", output.len(), Digest::of(&output))
        })
        .collect();
    insta::assert_snapshot!(table.join("\n"), @"
    zlib:1 32152 sha256:985c62df8d9f41208f113532a2c0fea27cfdd2320e45126fbab2eb32aced13e3
    zlib:6 29856 sha256:8dc061ade8b83dee0a318d9787627a747e190e31b359ada23fa7b3a2b48e8bc9
    zlib:9 29484 sha256:d4bbad9458d5d47521440ef89b6333a9ea1e76c57ed639c8681b1e3431094f48
    gzip:6 29868 sha256:c9d4c9ff146a0d3a4c9050ee6df91661ec58b64ea60d6c648cb167268d213ee9
    ");
}

#[test]
fn an_encoder_that_is_used_again_makes_the_same_bytes() {
    let mut reuse = Reuse::default();
    for text in ["zlib:6", "zlib:6", "gzip:9", "gzip:9"] {
        let codec: Codec = text.parse().unwrap();
        for bytes in [70, 70, 5000, SEGMENT_BYTES + 1, 5000, 0, 5000] {
            let input = generate(DataKind::Text, bytes);
            let (mut encoder, mut output) = (reuse.encoder(&codec), Vec::new());
            let (first, rest) = input.split_at(bytes.min(SEGMENT_BYTES));
            if !encoder.encode(first, &mut output).unwrap() {
                assert!(encoder.encode(rest, &mut output).unwrap());
            }
            assert!(encoder.write(b"more", &mut output).is_err(), "the stream has ended");
            assert!(encoder.write_last(b"more", &mut output).is_err(), "the stream has ended");
            assert!(output == compress_all(&codec, &input).unwrap(), "{codec}, {bytes}");
            reuse.keep(&codec, encoder, None);
        }
    }
}

#[test]
fn stock_tools_open_it() {
    let input = generate(DataKind::Text, 100_000);
    let pipe = |program: &str, arguments: &[&str], bytes: Vec<u8>| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writing = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        assert!(output.status.success(), "{program}");
        output.stdout
    };
    for level in 1..=9 {
        let gzip = compress_all(&format!("gzip:{level}").parse().unwrap(), &input).unwrap();
        assert!(pipe("gzip", &["-d"], gzip) == input, "gzip:{level}");
        let zlib = compress_all(&format!("zlib:{level}").parse().unwrap(), &input).unwrap();
        let decompress = "import sys, zlib; \
            sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))";
        assert!(pipe("python3", &["-c", decompress], zlib) == input, "zlib:{level}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anything_short_comes_back_within_its_bound(
        input in proptest::collection::vec(any::<u8>(), 0..20_000),
        repeats in 1_usize..8,
        level in 1_u32..=9,
    ) {
        let input = input.repeat(repeats);
        let codec: Codec = format!("gzip:{level}").parse().unwrap();
        let output = compress_all(&codec, &input).unwrap();
        prop_assert!(output.len() as u64 <= codec.output_bytes_max(input.len() as u64));
        prop_assert!(decompress_all(&codec, &output).unwrap() == input);
    }
}
