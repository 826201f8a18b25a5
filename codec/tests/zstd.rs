//! Frames of zstd: what is in them, what is read, and what is refused.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use bagpress_codec::{
    Codec, DataKind, Error, Generator, Reuse, SEGMENT_BYTES, Verifier, decompress_all,
};
use proptest::prelude::*;

fn codec(text: &str) -> Codec {
    text.parse().unwrap()
}

fn generate(kind: DataKind, seed: u64, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    assert_eq!(Generator::new(kind, seed, 0, bytes as u64).fill(&mut buffer), bytes);
    buffer
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

fn decompress(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    decompress_all(&codec("zstd"), bytes)
}

/// A frame that decoders skip.
fn skippable(variant: u8, content: &[u8]) -> Vec<u8> {
    let magic = [0x50 | variant, 0x2a, 0x4d, 0x18];
    [&magic[..], &u32::try_from(content.len()).unwrap().to_le_bytes(), content].concat()
}

/// The length that a frame's header gives.
fn content_size(frame: &[u8]) -> u64 {
    assert_eq!(frame[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    let (flag, is_single) = (frame[4] >> 6, frame[4] & 0x20 != 0);
    let begins = if is_single { 5 } else { 6 };
    let bytes = match flag {
        0 => usize::from(is_single),
        flag => 1 << flag,
    };
    let field = &frame[begins..begins + bytes];
    assert!(!field.is_empty(), "it has no length");
    let number = field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    number + if flag == 1 { 256 } else { 0 }
}

#[test]
fn every_frame_has_its_length_and_a_checksum() {
    let whole = generate(DataKind::Text, 0, 2 * SEGMENT_BYTES + 1);
    for level in 1..=19 {
        for switch in ["", ",long"] {
            let codec = codec(&format!("zstd:{level}{switch}"));
            for bytes in [0, 1, 255, 256, 65_791, 65_792, SEGMENT_BYTES, whole.len()] {
                let frame = compress(&codec, &whole[..bytes]);
                assert_eq!(content_size(&frame), bytes as u64, "{codec}");
                let has_checksum = frame[4] & 4 != 0;
                assert!(has_checksum, "{codec}");
            }
        }
    }
}

#[test]
fn a_length_that_is_unknown_or_wrong_is_an_error_and_no_frame() {
    let zstd = codec("zstd:3");
    let mut output = Vec::new();
    let unknown = Err(Error::LengthUnknown { format: "zstd" });
    assert_eq!(zstd.encoder().write(b"some", &mut output), unknown);
    assert_eq!(zstd.encoder().finish(&mut output), unknown);
    assert!(output.is_empty());
    let input = generate(DataKind::Text, 0, SEGMENT_BYTES + 10);
    for announced in [0, 1, SEGMENT_BYTES, SEGMENT_BYTES + 9, SEGMENT_BYTES + 11, 1 << 40] {
        let (mut encoder, mut output) = (zstd.encoder(), Vec::new());
        encoder.announce(announced as u64);
        let written = input.chunks(SEGMENT_BYTES).try_for_each(|s| encoder.write(s, &mut output));
        let ended = written.and_then(|()| encoder.finish(&mut output));
        let expected = Error::OtherLength { format: "zstd", announced: announced as u64 };
        assert_eq!(ended, Err(expected), "{announced}");
        // Where a segment ends as announced, the frame is whole before another one comes.
        let is_whole = announced == SEGMENT_BYTES;
        assert_eq!(decompress(&output).ok(), is_whole.then(|| input[..announced].to_vec()));
    }
    // What is announced within a stream is too late, and that before a reset is over.
    let (mut encoder, mut output) = (zstd.encoder(), Vec::new());
    encoder.announce(5);
    encoder.write(b"one ", &mut output).unwrap();
    encoder.announce(4);
    assert!(encoder.finish(&mut output).is_err());
    encoder.reset();
    assert_eq!(encoder.write(b"one ", &mut output), unknown);
}

#[test]
fn frames_in_a_row_are_read_and_others_are_skipped() {
    let [one, none, two] = [&b"one "[..], b"", b"two"].map(|i| compress(&codec("zstd:19"), i));
    let frames = [one.clone(), none.clone(), two.clone()].concat();
    assert_eq!(decompress(&frames).unwrap(), b"one two");
    let (long, short) = (skippable(0, &vec![7; 70_000]), skippable(15, b""));
    for row in [[&long, &one, &two], [&one, &short, &two], [&one, &two, &long]] {
        assert_eq!(decompress(&row.map(Vec::as_slice).concat()).unwrap(), b"one two");
    }
    assert_eq!(decompress(&short).unwrap(), b"");
    assert_eq!(decompress(b""), Err(Error::EndedEarly { format: "zstd" }));
    for row in [[&one, &two], [&one, &long], [&long, &one]] {
        let (first, all) = (row[0].len(), row.map(Vec::as_slice).concat());
        for length in (first + 1..all.len()).filter(|length| length - first < 60) {
            let cut = decompress(&all[..length]);
            assert_eq!(cut, Err(Error::EndedEarly { format: "zstd" }), "{length}");
        }
    }
}

#[test]
fn what_is_no_frame_behind_one_is_a_trailing_byte_wherever_it_is_cut() {
    let frame = compress(&codec("zstd:3"), b"one");
    for tail in [&b"\0"[..], b"x", b"\x28\xb5\x2f\xfe", b"\x28\0", b"PK\x03\x04", &[0; 100]] {
        let bytes = [&frame[..], tail].concat();
        assert_eq!(decompress(&bytes), Err(Error::TrailingBytes { format: "zstd" }), "{tail:?}");
        let mut decoder = codec("zstd").decoder();
        let mut output = Vec::new();
        let bytewise = bytes.chunks(1).try_for_each(|byte| {
            while decoder.read(byte, &mut output, 100)? == 0 {}
            Ok(())
        });
        assert_eq!(bytewise, Err(Error::TrailingBytes { format: "zstd" }), "{tail:?}");
    }
}

/// A frame of no content whose header wants a window of so many bits.
fn with_window(bits: u8) -> Vec<u8> {
    let header = [0x28, 0xb5, 0x2f, 0xfd, 0x04, (bits - 10) << 3];
    [&header[..], &[1, 0, 0], &[0x99, 0xe9, 0xd8, 0x51]].concat()
}

#[test]
fn a_window_above_128_mib_is_refused_by_name() {
    assert_eq!(decompress(&with_window(27)).unwrap(), b"");
    for bits in [28, 31, 40] {
        let refused = decompress(&with_window(bits)).unwrap_err();
        assert_eq!(refused, Error::WindowTooLarge { format: "zstd", most: 1 << 27 });
    }
    // A single segment is its own window.
    let single = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe4][..], &(1_u64 << 40).to_le_bytes(), &[1, 0, 0]];
    let refused = decompress(&single.concat()).unwrap_err();
    // Short enough for what is said of one file of a pack.
    let text =
        "the zstd stream needs a window of more than 128 MiB; make it again with a smaller one";
    assert!(text.len() <= 96);
    assert_eq!(refused.to_string(), text);
}

/// Kibibytes of this process that are in memory.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_header_that_wants_the_largest_window_takes_no_memory_before_content_comes() {
    let before = resident_kib();
    let decoders: Vec<_> = (0..16)
        .map(|_| {
            let (mut decoder, frame) = (codec("zstd").decoder(), with_window(27));
            let mut output = [0; 100];
            decoder.read_into(&frame[..frame.len() - 1], &mut output).unwrap();
            decoder
        })
        .collect();
    let taken = resident_kib().saturating_sub(before);
    // Tests beside this one take some, too; sixteen windows would be 2 GiB.
    assert!(taken < 1 << 20, "{taken} KiB for {} headers", decoders.len());
}

#[test]
fn long_finds_what_is_far_back() {
    let noise = generate(DataKind::Random, 0, 3 << 20);
    let twice = [&noise[..], &noise].concat();
    let (near, far) = (compress(&codec("zstd:1"), &twice), compress(&codec("zstd:1,long"), &twice));
    assert!(near.len() > twice.len() && far.len() < noise.len() + 10_000);
    assert!(decompress(&far).unwrap() == twice);
}

#[test]
fn a_frame_of_another_maker_without_length_or_checksum_is_read() {
    // Raw block of three bytes, no checksum, no length.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 0x19, 0, 0, b'o', b'n', b'e'];
    assert_eq!(decompress(&frame).unwrap(), b"one");
    // One that wants a dictionary is not.
    let wants = [0x28, 0xb5, 0x2f, 0xfd, 1, 0x58, 7, 0x19, 0, 0, b'o', b'n', b'e'];
    assert!(matches!(decompress(&wants), Err(Error::Corrupt { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In whatever order streams use an encoder, and however their segments are cut: what it makes is what a new one makes.
    #[test]
    fn no_stream_knows_anything_of_the_one_before(
        level in 1..=19_u32,
        long in any::<bool>(),
        inputs in prop::collection::vec(
            (prop::sample::select(&DataKind::ALL[..]), 0..40_000_usize, 1..9_000_usize),
            1..6,
        ),
    ) {
        let codec = codec(&format!("zstd:{level}{}", if long { ",long" } else { "" }));
        let mut reuse = Reuse::default();
        for (kind, bytes, segment_bytes) in inputs {
            let input = generate(kind, 1, bytes);
            let (mut kept, mut verifier) = (reuse.encoder(&codec), reuse.verifier(&codec));
            let mut fresh = codec.encoder();
            let mut made = [Vec::new(), Vec::with_capacity(1 << 20)];
            for (encoder, output) in [&mut kept, &mut fresh].into_iter().zip(&mut made) {
                encoder.announce(bytes as u64);
                for segment in input.chunks(segment_bytes) {
                    encoder.write(segment, output)?;
                }
                encoder.finish(output)?;
            }
            prop_assert!(made[0] == made[1]);
            verifier.check(&input, &made[0])?;
            verifier.finish(&[])?;
            reuse.keep(&codec, kept, Some(verifier));
        }
    }

    /// Whatever comes, nothing panics, and no more is filled than there is room.
    #[test]
    fn anything_is_decoded_or_refused(
        junk in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        has_header in any::<bool>(),
    ) {
        let mut bytes = compress(&codec("zstd:5"), &b"a task and a task, and one more".repeat(9));
        let at = at.index(bytes.len());
        bytes.splice(if has_header { at..bytes.len() } else { 0..at }, junk);
        let mut verifier = Verifier::new(&codec("zstd"));
        verifier.check(b"a", &bytes).ok();
        let mut output = Vec::new();
        codec("zstd").decoder().read(&bytes, &mut output, 64).ok();
        prop_assert!(output.len() <= 64);
    }
}
