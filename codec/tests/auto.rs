//! What `auto` chooses, what it says of it, and that its bytes are those of the level that it chose.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use bagpress_codec::{Choice, Codec, DataKind, Generator, Reuse, SEGMENT_BYTES};
use proptest::prelude::*;

const GOALS: [&str; 3] = ["auto", "auto,ratio", "auto,speed"];

fn codec(text: &str) -> Codec {
    text.parse().unwrap()
}

fn generate(kind: DataKind, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    assert_eq!(Generator::new(kind, 1, 0, bytes as u64).fill(&mut buffer), bytes);
    buffer
}

fn compress(codec: &Codec, input: &[u8]) -> (Vec<u8>, Option<Choice>) {
    let (mut encoder, mut output) = (codec.encoder(), Vec::new());
    encoder.announce(input.len() as u64);
    for segment in input.chunks(SEGMENT_BYTES) {
        encoder.write(segment, &mut output).unwrap();
    }
    encoder.finish(&mut output).unwrap();
    (output, encoder.choice())
}

fn level(goal: &str, input: &[u8]) -> u32 {
    compress(&codec(goal), input).1.unwrap().level
}

#[test]
fn an_output_has_the_bytes_of_the_level_that_was_chosen() {
    for kind in DataKind::ALL {
        for bytes in [1, 1000, 70_000, SEGMENT_BYTES, 3 * SEGMENT_BYTES + 5] {
            let input = generate(kind, bytes);
            for goal in GOALS {
                let (output, choice) = compress(&codec(goal), &input);
                let zstd = codec(&format!("zstd:{}", choice.unwrap().level));
                assert!(output == compress(&zstd, &input).0, "{goal} {kind:?} {bytes}");
                assert_eq!(compress(&zstd, &input).1, None);
            }
        }
    }
}

#[test]
fn what_does_not_shrink_is_stored_whatever_the_goal() {
    for bytes in [1024, 100_000, 5 * SEGMENT_BYTES] {
        let noise = generate(DataKind::Random, bytes);
        for goal in GOALS {
            let (output, choice) = compress(&codec(goal), &noise);
            // A short one is stored by any level that is chosen for the time that it takes.
            let is_looked_at = goal != "auto" || bytes > SEGMENT_BYTES;
            assert!(!is_looked_at || choice.unwrap().level == 1, "{goal} {bytes}");
            // Of the largest size, a block that is stored has 128 KiB, and each has a header of three bytes.
            assert!(output.len() <= bytes + 3 * (bytes >> 17) + 32, "{goal} {bytes}");
        }
    }
}

#[test]
fn the_goal_decides_how_much_time_is_taken() {
    for bytes in [3000, 100_000, 2 * SEGMENT_BYTES] {
        let text = generate(DataKind::Text, bytes);
        let levels = GOALS.map(|goal| level(goal, &text));
        let balanced = if (4096..=SEGMENT_BYTES).contains(&bytes) { 4 } else { 3 };
        assert_eq!(levels, [balanced, 19, 1], "{bytes}");
    }
}

#[test]
fn no_time_is_spent_where_a_sample_shows_that_it_gains_nothing() {
    assert_eq!(level("auto,ratio", &generate(DataKind::Zeros, 4 * SEGMENT_BYTES)), 3);
    // The trial would take as long as the work.
    assert_eq!(level("auto,ratio", &generate(DataKind::Zeros, 4 * SEGMENT_BYTES - 1)), 19);
    let text = generate(DataKind::Text, 4 * SEGMENT_BYTES);
    let bytes = |level: u32| compress(&codec(&format!("zstd:{level}")), &text).0.len();
    let chosen = bytes(level("auto,ratio", &text));
    assert!(chosen * 100 <= bytes(19) * 103, "{chosen} {}", bytes(19));
}

#[test]
fn an_output_of_more_than_one_segment_was_predicted_by_the_first() {
    for goal in GOALS {
        for kind in DataKind::ALL {
            let input = generate(kind, 8 * SEGMENT_BYTES);
            let (output, choice) = compress(&codec(goal), &input);
            let (predicted, made) = (choice.unwrap().predicted_bytes.unwrap(), output.len() as u64);
            // The generator's text is the same throughout. The first segment of zeros has the frame's header, too.
            assert!(
                predicted.abs_diff(made) <= made / 10 + 200,
                "{goal} {kind:?} {predicted} {made}"
            );
            let (_, choice) = compress(&codec(goal), &input[..SEGMENT_BYTES]);
            assert_eq!(choice.unwrap().predicted_bytes, None);
        }
    }
    // Only the first is looked at: what follows may be something else.
    let changes =
        [generate(DataKind::Text, SEGMENT_BYTES), generate(DataKind::Random, SEGMENT_BYTES)];
    let (output, choice) = compress(&codec("auto"), &changes.concat());
    assert!(choice.unwrap().predicted_bytes.unwrap() < output.len() as u64);
}

#[test]
fn nothing_is_chosen_for_nothing() {
    for goal in GOALS {
        let (output, choice) = compress(&codec(goal), b"");
        assert_eq!((output, choice), (compress(&codec("zstd"), b"").0, None), "{goal}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// In whatever order streams use an encoder: what it chooses and makes is what a new one does.
    #[test]
    fn no_stream_knows_anything_of_the_one_before(
        goal in prop::sample::select(&GOALS[..]),
        inputs in prop::collection::vec(
            (prop::sample::select(&DataKind::ALL[..]), 0..300_000_usize),
            1..6,
        ),
    ) {
        let (codec, mut reuse) = (codec(goal), Reuse::default());
        for (kind, bytes) in inputs {
            let input = generate(kind, bytes);
            let (mut kept, mut output) = (reuse.encoder(&codec), Vec::new());
            prop_assert_eq!(kept.choice(), None);
            kept.announce(bytes as u64);
            for segment in input.chunks(SEGMENT_BYTES) {
                kept.write(segment, &mut output)?;
            }
            kept.finish(&mut output)?;
            prop_assert!((output, kept.choice()) == compress(&codec, &input));
            reuse.keep(&codec, kept, None);
        }
    }
}
