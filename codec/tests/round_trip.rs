//! What goes in comes out, never much larger, and always as the same bytes.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use bagpress_codec::{Codec, DataKind, Digest, Generator, SEGMENT_BYTES, Verifier, decompress_all};
use proptest::prelude::*;

/// A kind and a length: what a mixture of input is made of.
type Piece = (DataKind, usize);

fn generate(kind: DataKind, seed: u64, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    assert_eq!(Generator::new(kind, seed, 0, bytes as u64).fill(&mut buffer), bytes);
    buffer
}

fn mixture(pieces: &[Piece]) -> Vec<u8> {
    (0..).zip(pieces).flat_map(|(seed, (kind, bytes))| generate(*kind, seed, *bytes)).collect()
}

/// Compresses in segments of a given size, every part verified.
fn compress_in(codec: &Codec, input: &[u8], segment_bytes: usize) -> Vec<u8> {
    let (mut encoder, mut verifier) = (codec.encoder(), Verifier::new(codec));
    let mut output = Vec::new();
    encoder.announce(input.len() as u64);
    for segment in input.chunks(segment_bytes) {
        let start = output.len();
        encoder.write(segment, &mut output).unwrap();
        verifier.check(segment, &output[start..]).unwrap();
    }
    let start = output.len();
    encoder.finish(&mut output).unwrap();
    verifier.finish(&output[start..]).unwrap();
    output
}

fn compress(codec: &Codec, input: &[u8]) -> Vec<u8> {
    compress_in(codec, input, SEGMENT_BYTES)
}

/// Every codec that gives its input back, at every level.
fn storing_codecs() -> Vec<Codec> {
    let texts = Codec::all().filter(|info| !info.takes_arrays).flat_map(|info| {
        let levels: Vec<_> = match info.levels {
            Some(levels) => {
                (levels.min..=levels.max).map(|level| format!("{}:{level}", info.name)).collect()
            }
            None => vec![info.name.to_owned()],
        };
        let endings = info.switches.iter().map(|switch| format!(",{}", switch.name));
        let endings: Vec<_> = endings.chain([String::new()]).collect();
        levels.into_iter().flat_map(move |level| {
            endings.clone().into_iter().map(move |ending| format!("{level}{ending}"))
        })
    });
    texts
        .map(|text| text.parse().unwrap())
        .filter(|codec: &Codec| !codec.stores_nothing())
        .collect()
}

/// Sizes around everything that has a boundary: stored blocks, windows and segments.
fn sizes() -> Vec<usize> {
    let around = [65_535, 2 * 65_535, 32_768, SEGMENT_BYTES, 2 * SEGMENT_BYTES, 2 << 20];
    let around = around.into_iter().flat_map(|bytes| [bytes - 1, bytes, bytes + 1]);
    [0, 1, 2, 10, 1000].into_iter().chain(around).collect()
}

#[test]
fn every_level_is_bounded_at_every_size_of_random() {
    let input = generate(DataKind::Random, 7, (2 << 20) + 1);
    for codec in storing_codecs() {
        for bytes in sizes() {
            let output = compress(&codec, &input[..bytes]);
            let bound = codec.output_bytes_max(bytes as u64);
            assert!(output.len() as u64 <= bound, "{codec}, {bytes} B: {} B", output.len());
            assert!(decompress_all(&codec, &output).unwrap() == input[..bytes], "{codec}, {bytes}");
        }
    }
}

#[test]
fn bound_is_the_invariants() {
    let codec: Codec = "zlib:1".parse().unwrap();
    assert_eq!(codec.output_bytes_max(0), 64);
    assert_eq!(codec.output_bytes_max(1 << 20), (1 << 20) + 512 + 64);
    assert_eq!(codec.output_bytes_max(u64::MAX), u64::MAX);
    let codec: Codec = "zstd:19".parse().unwrap();
    assert_eq!(codec.output_bytes_max(0), 64);
    assert_eq!(codec.output_bytes_max(1 << 20), (1 << 20) + 4096 + 64);
    assert_eq!(codec.output_bytes_max(u64::MAX), u64::MAX);
}

#[test]
fn empty_input_is_a_tiny_file() {
    for codec in storing_codecs() {
        let output = compress(&codec, b"");
        assert!(output.len() <= 64, "{codec}: {} B", output.len());
        assert_eq!(decompress_all(&codec, &output).unwrap(), b"");
    }
}

#[test]
fn text_compresses_as_english_does() {
    let input = generate(DataKind::Text, 0, 2 << 20);
    let bytes = compress(&"zlib:6".parse().unwrap(), &input).len();
    let per_mille = bytes * 1000 / input.len();
    assert!((280..320).contains(&per_mille), "{per_mille} per mille");
}

#[test]
fn capacity_and_contents_of_the_output_change_no_byte() {
    let input = mixture(&[(DataKind::Text, 400_000), (DataKind::Random, 300_000)]);
    for codec in storing_codecs() {
        let expected = compress(&codec, &input);
        for capacity in [0, 1000, SEGMENT_BYTES, 8 << 20] {
            let mut output = Vec::with_capacity(capacity);
            output.extend_from_slice(b"before");
            let mut encoder = codec.encoder();
            encoder.announce(input.len() as u64);
            for segment in input.chunks(SEGMENT_BYTES) {
                encoder.write(segment, &mut output).unwrap();
            }
            encoder.finish(&mut output).unwrap();
            assert!(output[6..] == expected, "{codec} with {capacity}");
        }
    }
}

/// Workers of one library version must agree. When this changes, so must the revision in `LIBRARY`. The digests of
/// `full` are those that revision 1 had without it.
#[test]
fn output_bytes_are_pinned() {
    let input = mixture(&[(DataKind::Text, 300_000), (DataKind::Random, 270_000)]);
    let codecs = [
        "zlib:0",
        "zlib:1",
        "zlib:6",
        "zlib:9",
        "gzip:6",
        "store",
        "zlib:1,full",
        "zlib:6,full",
        "zlib:9,full",
        "gzip:6,full",
        "zstd:1",
        "zstd:3",
        "zstd:9",
        "zstd:19",
        "zstd:3,long",
        "zstd:19,long",
    ];
    let table: Vec<_> = codecs
        .iter()
        .map(|text| {
            let output = compress(&text.parse().unwrap(), &input);
            format!("{text} {} {}", output.len(), Digest::of(&output))
        })
        .collect();
    insta::assert_snapshot!(table.join("\n"), @"
    zlib:0 570063 sha256:6afa6e41d6eb5e239000790896842f7ef73d18d4915cb98235e0598e797585d1
    zlib:1 417228 sha256:bbac1bc1e25b0c8806cbf2edc689269b35d2b924f23504cdbbe09e5992048eb8
    zlib:6 361457 sha256:bad1d47be610f6b23c5059fea69f1e67fcf82d9e1a934bbdbe774cd8ae12386d
    zlib:9 360238 sha256:05bc86f41be5339e4d8f925ac0872805b7e1deebf695151686fb321a2db5f577
    gzip:6 361469 sha256:d571c298bbcffa25a0d74cb38880e690da581873f8108f4788a0baf69328ed81
    store 570000 sha256:67c857a5356f305f021e0ac2bbefc911fada5bf6b1babcd442ba59167e418593
    zlib:1,full 417228 sha256:bbac1bc1e25b0c8806cbf2edc689269b35d2b924f23504cdbbe09e5992048eb8
    zlib:6,full 361457 sha256:bad1d47be610f6b23c5059fea69f1e67fcf82d9e1a934bbdbe774cd8ae12386d
    zlib:9,full 360238 sha256:05bc86f41be5339e4d8f925ac0872805b7e1deebf695151686fb321a2db5f577
    gzip:6,full 361469 sha256:d571c298bbcffa25a0d74cb38880e690da581873f8108f4788a0baf69328ed81
    zstd:1 364520 sha256:1f220b81830d49e63332a94a4b78cdc113ee5d51bb22c8e1244ec1df2d83ddb6
    zstd:3 359857 sha256:dad248095eb329bb77e25a8a14d76fd4f13687b04397760262f9ad24ae0e064f
    zstd:9 356311 sha256:307f0ee99704514ac51f49437271d7cfae78fcff30814d083e079a340f6866b0
    zstd:19 346807 sha256:2535d6aba53d18a44544178dee8225664decb3a3a8df3754084304143a414364
    zstd:3,long 359857 sha256:0e386572ba05fe1baa1eafc42dbbb5b2ada9f202bdc42856a3fb38f4e51e09ca
    zstd:19,long 346807 sha256:2535d6aba53d18a44544178dee8225664decb3a3a8df3754084304143a414364
    ");
}

#[test]
fn noop_stores_nothing_and_verifies() {
    let codec: Codec = "noop".parse().unwrap();
    assert!(codec.stores_nothing());
    assert_eq!(compress(&codec, b"anything"), b"");
    assert_eq!(codec.output_bytes_max(1 << 30), 0);
    assert!(Verifier::new(&codec).check(b"anything", b"a").is_err());
}

#[test]
fn finished_encoder_refuses_more() {
    for codec in ["zlib", "gzip", "zstd"] {
        let mut encoder = codec.parse::<Codec>().unwrap().encoder();
        let mut output = Vec::new();
        encoder.announce(0);
        encoder.finish(&mut output).unwrap();
        assert!(encoder.write(b"more", &mut output).is_err());
        assert!(encoder.finish(&mut output).is_err());
    }
}

/// One byte in, at most one byte out: the hardest cut there is.
#[test]
fn decoder_gives_the_same_in_parts_of_any_size() {
    let input = mixture(&[(DataKind::Text, 3000), (DataKind::Zeros, 3000)]);
    for codec in storing_codecs() {
        let output = compress_in(&codec, &input, 1000);
        for (input_part, output_part) in [(1, 1), (1, 1000), (1000, 1), (7, 13)] {
            let mut decoder = codec.decoder();
            let mut got = Vec::new();
            for part in output.chunks(input_part) {
                let mut rest = part;
                loop {
                    let before = got.len();
                    let consumed = decoder.read(rest, &mut got, output_part).unwrap();
                    rest = &rest[consumed..];
                    assert!(got.len() - before <= output_part);
                    if consumed == 0 && got.len() == before {
                        break;
                    }
                }
                assert!(rest.is_empty(), "{codec}");
            }
            decoder.finish().unwrap();
            assert!(got == input, "{codec} {input_part} {output_part}");
        }
    }
}

#[test]
fn a_bomb_fills_no_more_than_was_asked_for() {
    for codec in ["zlib:9", "zstd:19"] {
        let codec: Codec = codec.parse().unwrap();
        let bomb = compress(&codec, &generate(DataKind::Zeros, 0, 8 << 20));
        let mut output = Vec::new();
        let consumed = codec.decoder().read(&bomb, &mut output, 1000).unwrap();
        assert_eq!(output.len(), 1000);
        assert!(consumed <= bomb.len());
    }
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(storing_codecs())
}

fn any_kind() -> impl Strategy<Value = DataKind> {
    prop::sample::select(&DataKind::ALL[..])
}

/// Lengths that are anything, with boundaries more often than chance would have them.
fn any_length() -> impl Strategy<Value = usize> {
    prop_oneof![0..3000_usize, 0..200_000_usize, prop::sample::select(sizes())]
        .prop_map(|bytes| bytes.min(SEGMENT_BYTES + 1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The bound and the round trip hold for any mixture, also where one segment compresses and the
    /// next does not, which is where stored blocks replace what the compressor made.
    #[test]
    fn any_mixture_is_bounded_and_comes_back(
        codec in any_codec(),
        pieces in prop::collection::vec((any_kind(), any_length()), 0..5),
    ) {
        let input = mixture(&pieces);
        let output = compress(&codec, &input);
        prop_assert!(output.len() as u64 <= codec.output_bytes_max(input.len() as u64));
        prop_assert!(decompress_all(&codec, &output)? == input);
    }

    /// However it is cut, the stream stays valid; and what was replaced is still history to refer to.
    #[test]
    fn any_cut_comes_back(
        codec in any_codec(),
        pieces in prop::collection::vec((any_kind(), 0..5000_usize), 0..6),
        repeats in 1..4_usize,
        segment_bytes in 1..9000_usize,
    ) {
        let input = mixture(&pieces).repeat(repeats);
        let output = compress_in(&codec, &input, segment_bytes);
        prop_assert!(decompress_all(&codec, &output)? == input);
    }
}
