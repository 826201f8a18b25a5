//! What cannot shrink is stored without an attempt, and nothing else changes.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use bagpress_codec::{
    Codec, DataKind, Encoder, Generator, Reuse, SEGMENT_BYTES, Verifier, decompress_all,
};
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

const WINDOW_BYTES: usize = 32 * 1024;

/// Makes bytes of a seed.
type Make = fn(u64) -> Vec<u8>;

fn generate(kind: DataKind, seed: u64, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    assert_eq!(Generator::new(kind, seed, 0, bytes as u64).fill(&mut buffer), bytes);
    buffer
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    generate(DataKind::Random, seed, bytes)
}

fn text(seed: u64, bytes: usize) -> Vec<u8> {
    generate(DataKind::Text, seed, bytes)
}

/// Compresses in whole segments, every part verified.
fn compress(codec: &str, input: &[u8]) -> Vec<u8> {
    compress_in(codec, input, SEGMENT_BYTES)
}

fn compress_in(codec: &str, input: &[u8], segment_bytes: usize) -> Vec<u8> {
    let codec: Codec = codec.parse().unwrap();
    stream(&mut *codec.encoder(), &mut Verifier::new(&codec), input, segment_bytes)
}

/// One whole stream by these two.
fn stream(
    encoder: &mut dyn Encoder,
    verifier: &mut Verifier,
    input: &[u8],
    segment_bytes: usize,
) -> Vec<u8> {
    let mut output = Vec::new();
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

/// What revision 1 made of a zlib stream, written once more from its description: one compressor, a sync flush after
/// each segment, and stored blocks where that is larger.
fn revision_1(level: u32, input: &[u8]) -> Vec<u8> {
    let header = [[0x78, 0x01], [0x78, 0x5e], [0x78, 0x9c], [0x78, 0xda]];
    let mut output = header[[0, 0, 1, 1, 1, 1, 2, 3, 3, 3][level as usize]].to_vec();
    let mut deflate = Compress::new(Compression::new(level), false);
    for segment in input.chunks(SEGMENT_BYTES) {
        let mut part = Vec::with_capacity(2 * SEGMENT_BYTES);
        deflate.compress_vec(segment, &mut part, FlushCompress::Sync).unwrap();
        let blocks = segment.chunks(65_535);
        if level == 0 || part.len() > segment.len() + 5 * blocks.len() {
            part.clear();
            for block in blocks {
                let bytes = u16::try_from(block.len()).unwrap();
                part.push(0);
                part.extend(bytes.to_le_bytes());
                part.extend((!bytes).to_le_bytes());
                part.extend(block);
            }
        }
        output.extend(part);
    }
    output.extend([3, 0]);
    let mut adler = simd_adler32::Adler32::new();
    adler.write(input);
    output.extend(adler.finish().to_be_bytes());
    output
}

/// Inputs that are next to what the look decides about, with their names.
fn inputs() -> Vec<(&'static str, Vec<u8>)> {
    let segment = SEGMENT_BYTES;
    let half = noise(1, segment / 2);
    vec![
        ("noise", noise(2, 3 * segment + 77)),
        ("text", text(3, 2 * segment + 9)),
        ("text after noise", [noise(4, segment), text(5, segment)].concat()),
        ("noise between text", [text(6, segment), noise(7, segment), text(6, segment)].concat()),
        ("half a segment twice", [&half[..], &half[..], &half[..], &half[..]].concat()),
        ("noise, then small text", [noise(8, segment), text(9, 100)].concat()),
        ("small noise", noise(10, 4096)),
        ("a byte", vec![7]),
    ]
}

#[test]
fn noise_becomes_stored_blocks_at_every_level() {
    let input = noise(0, 2 * SEGMENT_BYTES);
    let stored = compress("zlib:0", &input);
    for level in 1..=9 {
        // All but the header, which says the level.
        assert!(compress(&format!("zlib:{level}"), &input)[2..] == stored[2..], "level {level}");
        let gzip = compress(&format!("gzip:{level}"), &input);
        assert!(gzip[10..] == compress("gzip:0", &input)[10..], "level {level}");
    }
}

#[test]
fn full_makes_what_revision_1_made() {
    for (name, input) in inputs() {
        for level in [0, 1, 2, 4, 6, 9] {
            let full = compress(&format!("zlib:{level},full"), &input);
            assert!(full == revision_1(level, &input), "{name}, level {level}");
        }
        // The same deflate stream in another wrapping.
        let (zlib, gzip) = (compress("zlib:6,full", &input), compress("gzip:6,full", &input));
        assert!(zlib[2..zlib.len() - 4] == gzip[10..gzip.len() - 8], "{name}");
    }
}

/// Without noise in it, an output is that of revision 1: the look alone changes nothing.
#[test]
fn what_shrinks_is_what_it_was() {
    let zeros = generate(DataKind::Zeros, 0, 2 * SEGMENT_BYTES);
    for input in [text(1, 3 * SEGMENT_BYTES), zeros, text(2, 500), vec![]] {
        for level in 1..=9 {
            let output = compress(&format!("zlib:{level}"), &input);
            assert!(output == revision_1(level, &input), "{} B, level {level}", input.len());
        }
    }
}

/// The bytes before a stored segment come again right behind it, and nothing else: whatever refers to them is wrong.
#[test]
fn no_distance_reaches_back_over_a_stored_segment() {
    for level in [1, 2, 3, 4, 6, 9] {
        for noise_bytes in [1024, 5000, SEGMENT_BYTES] {
            let (before, stored) = (text(1, WINDOW_BYTES / 2), noise(2, noise_bytes));
            let mut input = [&before[..], &stored[..], &before[..]].concat();
            // Segments of three sizes, so that each begins where a kind of bytes does.
            let cuts = [before.len(), stored.len(), before.len()];
            for codec in [format!("zlib:{level}"), format!("gzip:{level}")] {
                let codec: Codec = codec.parse().unwrap();
                let (mut encoder, mut output, mut parts) = (codec.encoder(), vec![], vec![]);
                let mut rest = &input[..];
                for cut in cuts {
                    let (segment, behind) = rest.split_at(cut);
                    let start = output.len();
                    encoder.write(segment, &mut output).unwrap();
                    parts.push(output.len() - start);
                    rest = behind;
                }
                encoder.finish(&mut output).unwrap();
                assert!(decompress_all(&codec, &output).unwrap() == input, "{codec}");
                assert!(parts[1] > noise_bytes, "{codec}: stored");
                // Begun anew, it makes of the same bytes what it made the first time, behind the header.
                let header = if codec.name() == "zlib" { 2 } else { 10 };
                assert_eq!(parts[0] - header, parts[2], "{codec}");
            }
            input.clear();
        }
    }
}

#[test]
fn noise_that_comes_again_within_the_window_is_not_stored() {
    // zlib keeps 262 bytes of its window to look ahead: its longest distance is 32,506.
    for period in [100, 5000, 30_000, WINDOW_BYTES - 262] {
        let input = noise(1, period).repeat(SEGMENT_BYTES / period + 1);
        let output = compress("zlib:6", &input);
        assert!(output == revision_1(6, &input), "period {period}");
        assert!(output.len() < input.len() / 2, "period {period}");
    }
}

/// The repetition is half in the one segment and half in the next, whose own bytes never repeat.
#[test]
fn a_repetition_across_the_border_of_segments_is_found() {
    let mut input = [text(1, SEGMENT_BYTES - 25_000), noise(2, 25_000)].concat();
    input.extend_from_within(SEGMENT_BYTES - 25_000..);
    input.extend(noise(3, 100_000));
    let output = compress("zlib:6", &input);
    assert!(output == revision_1(6, &input));
    assert!(output.len() < compress("zlib:0", &input[SEGMENT_BYTES..]).len() + SEGMENT_BYTES / 2);
}

#[test]
fn little_that_shrinks_in_much_noise_is_found() {
    let cases: [(&str, Make, usize); 4] = [
        ("zeros", |_| vec![0; 500], 16_000),
        ("text", |seed| text(seed, 3000), 30_000),
        ("a copy", |_| noise(99, 400), 12_000),
        ("short copies", |seed| noise(seed % 3, 10), 180),
    ];
    for (name, island, every) in cases {
        let mut input = Vec::new();
        while input.len() < 2 * SEGMENT_BYTES {
            let seed = input.len() as u64;
            input.extend(noise(1000 + seed, every));
            input.extend(island(seed));
        }
        let (output, full) = (compress("zlib:6", &input), compress("zlib:6,full", &input));
        assert!(full.len() < input.len(), "{name}: there is something to win");
        let grew = output.len() - full.len();
        assert!(grew < full.len() / 200, "{name}: by {grew} B");
    }
}

#[test]
fn what_is_nearly_noise_by_its_bytes_alone_is_deflated() {
    // Seven bits of eight, base64 and hexadecimal digits: no repetition, and much to win.
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let maps: [fn(u8, &[u8; 64]) -> u8; 3] =
        [|byte, _| byte & 0x7f, |byte, digits| digits[usize::from(byte & 63)], |byte, _| byte & 15];
    for (map, bytes) in maps.into_iter().flat_map(|map| [(map, 1024), (map, SEGMENT_BYTES)]) {
        let input: Vec<u8> = noise(1, bytes).into_iter().map(|byte| map(byte, digits)).collect();
        assert!(compress("zlib:6", &input) == revision_1(6, &input), "{bytes} B");
    }
}

#[test]
fn a_reset_encoder_and_verifier_are_as_new_ones_wherever_they_were() {
    for text in ["zlib:1", "zlib:6", "zlib:9", "zlib:0", "zlib:6,full", "gzip:6", "store", "noop"] {
        let codec: Codec = text.parse().unwrap();
        let (mut encoder, mut verifier) = (codec.encoder(), Verifier::new(&codec));
        // Each input twice: the second time it is what a leaked window would show. Every other stream is not finished.
        for (finished, (name, input)) in
            inputs().into_iter().flat_map(|input| [(true, input.clone()), (false, input)])
        {
            encoder.reset();
            verifier.reset();
            let (mut output, expected) = (Vec::new(), compress(text, &input));
            for segment in input.chunks(SEGMENT_BYTES) {
                let start = output.len();
                encoder.write(segment, &mut output).unwrap();
                verifier.check(segment, &output[start..]).unwrap();
            }
            assert!(expected.starts_with(&output), "{text}, {name}");
            if finished {
                let start = output.len();
                encoder.finish(&mut output).unwrap();
                verifier.finish(&output[start..]).unwrap();
                assert!(output == expected, "{text}, {name}");
            }
        }
    }
}

#[test]
fn what_is_kept_is_used_for_the_same_codec_only_and_once() {
    let codecs: Vec<Codec> =
        ["zlib:6", "zlib:9", "zlib:6", "zlib:6", "zlib:6,full", "gzip:6", "gzip:6", "noop"]
            .map(|text| text.parse().unwrap())
            .into();
    let mut reuse = Reuse::default();
    for codec in &codecs {
        for (name, input) in inputs() {
            let (mut encoder, mut verifier) = (reuse.encoder(codec), reuse.verifier(codec));
            let output = stream(&mut *encoder, &mut verifier, &input, SEGMENT_BYTES);
            assert!(output == compress(&codec.to_string(), &input), "{codec}, {name}");
            reuse.keep(codec, encoder, Some(verifier));
        }
    }
}

/// What was interrupted never comes back: there is nothing to keep it by.
#[test]
fn after_an_error_or_a_panic_the_next_stream_begins_with_new_state() {
    let codec: Codec = "gzip:6".parse().unwrap();
    let (mut reuse, input) = (Reuse::default(), text(1, 5000));
    for panics in [false, true] {
        let interrupted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (mut encoder, mut verifier) = (reuse.encoder(&codec), reuse.verifier(&codec));
            let mut output = Vec::new();
            encoder.write(&input, &mut output).unwrap();
            verifier.check(b"something else", &output).unwrap_err();
            assert!(!panics, "in the middle of a stream");
        }));
        assert_eq!(interrupted.is_err(), panics);
        assert!(format!("{reuse:?}").contains("encoder: None, verifier: None"), "{reuse:?}");
        let (mut encoder, mut verifier) = (reuse.encoder(&codec), reuse.verifier(&codec));
        let output = stream(&mut *encoder, &mut verifier, &input, SEGMENT_BYTES);
        assert!(output == compress("gzip:6", &input));
        reuse.keep(&codec, encoder, Some(verifier));
    }
}

/// Kinds of segments: noise, text, zeros, and what was there before.
#[derive(Debug, Clone, Copy)]
enum Part {
    Made(DataKind, usize),
    /// So many bytes that came so far before.
    Again(usize, usize),
}

fn any_part() -> impl Strategy<Value = Part> {
    let lengths = prop_oneof![0..40_000_usize, Just(SEGMENT_BYTES), Just(SEGMENT_BYTES / 2)];
    prop_oneof![
        (prop::sample::select(&DataKind::ALL[..]), lengths)
            .prop_map(|(kind, bytes)| Part::Made(kind, bytes)),
        (1..40_000_usize, 1..40_000_usize).prop_map(|(back, bytes)| Part::Again(back, bytes)),
    ]
}

fn build(parts: &[Part]) -> Vec<u8> {
    let mut input = Vec::new();
    for (seed, part) in (0..).zip(parts) {
        match *part {
            Part::Made(kind, bytes) => input.extend(generate(kind, seed, bytes)),
            Part::Again(back, bytes) => {
                let start = input.len().saturating_sub(back);
                let end = input.len().min(start + bytes);
                input.extend_from_within(start..end);
            }
        }
    }
    input
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is stored or deflated, in whatever order and cut: our decoder and flate2's give the input back, whole
    /// segments keep the bound, and a second encoder makes the same bytes.
    #[test]
    fn any_order_of_noise_and_repetitions_comes_back(
        parts in prop::collection::vec(any_part(), 0..7),
        level in 1..=9_u32,
        cut in prop_oneof![Just(SEGMENT_BYTES), 1000..70_000_usize],
    ) {
        let input = build(&parts);
        let codec = format!("zlib:{level}");
        let output = compress_in(&codec, &input, cut);
        prop_assert!(output == compress_in(&codec, &input, cut));
        prop_assert!(decompress_all(&codec.parse().unwrap(), &output).unwrap() == input);
        let mut theirs = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(&output[..]), &mut theirs)?;
        prop_assert!(theirs == input);
        if cut == SEGMENT_BYTES {
            let full = revision_1(level, &input);
            let bound = codec.parse::<Codec>().unwrap().output_bytes_max(input.len() as u64);
            prop_assert!(output.len() as u64 <= bound && full.len() as u64 <= bound);
        }
    }
}
