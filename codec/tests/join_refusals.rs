//! What is not the next block is an error, or makes a file that every decoder refuses; never other bytes.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use bagpress_codec::{Codec, Error, Joiner, decompress_all};
use proptest::prelude::*;

const INPUTS: [&[u8]; 3] = [b"a task and a task and a task", b"", b"and then one more task"];

fn codec(text: &str) -> Codec {
    text.parse().unwrap()
}

fn block(codec: &Codec, input: &[u8]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (codec.encoder(), Vec::new());
    encoder.announce(input.len() as u64);
    encoder.write(input, &mut bytes).unwrap();
    encoder.finish(&mut bytes).unwrap();
    bytes
}

fn blocks(codec: &Codec) -> Vec<Vec<u8>> {
    INPUTS.iter().map(|input| block(codec, input)).collect()
}

fn join(codec: &Codec, blocks: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
    let (mut joiner, mut file) = (codec.joiner(), Vec::new());
    for (block, input) in blocks.iter().zip(INPUTS) {
        joiner.block(block.len() as u64, input.len() as u64)?;
        joiner.write(block, &mut file)?;
    }
    joiner.finish(&mut file)?;
    Ok(file)
}

/// A joiner with one block in it, and what that made.
fn with_one(codec: &Codec) -> (Joiner, Vec<u8>) {
    let (mut joiner, mut file, block) = (codec.joiner(), Vec::new(), block(codec, INPUTS[0]));
    joiner.block(block.len() as u64, INPUTS[0].len() as u64).unwrap();
    joiner.write(&block, &mut file).unwrap();
    (joiner, file)
}

/// A block as it is, announced with its own length.
fn given(joiner: &mut Joiner, block: &[u8], input_bytes: u64) -> Result<(), Error> {
    joiner.block(block.len() as u64, input_bytes)?;
    joiner.write(block, &mut Vec::new())
}

fn reason(refused: Result<(), Error>) -> String {
    refused.unwrap_err().to_string()
}

#[test]
fn no_flipped_bit_of_a_block_passes_as_other_bytes() {
    for (text, framing_begins) in [("zlib:6", 2), ("gzip:6", 10), ("zlib:0", 2), ("gzip:0", 10)] {
        let codec = codec(text);
        let good = blocks(&codec);
        for index in 0..good.len() {
            let tail_begins = good[index].len() - codec.joiner().tail_bytes();
            for bit in 0..good[index].len() * 8 {
                let mut blocks = good.clone();
                blocks[index][bit / 8] ^= 1 << (bit % 8);
                let joined = join(&codec, &blocks);
                if bit / 8 < framing_begins || (tail_begins..tail_begins + 2).contains(&(bit / 8)) {
                    assert!(joined.is_err(), "{text}, block {index}, bit {bit}");
                }
                let Ok(file) = joined else { continue };
                if let Ok(decoded) = decompress_all(&codec, &file) {
                    assert_eq!(decoded, INPUTS.concat(), "{text}, block {index}, bit {bit}");
                    let kept = (framing_begins..tail_begins).contains(&(bit / 8));
                    assert!(kept, "{text}, block {index}, bit {bit}: a checksum is not checked");
                }
            }
        }
    }
}

#[test]
fn a_block_that_is_cut_is_refused_at_every_length() {
    for codec in ["zlib:6", "gzip:6", "zlib:0", "store"].map(codec) {
        let whole = block(&codec, INPUTS[2]);
        let input_bytes = INPUTS[2].len() as u64;
        for length in 0..whole.len() {
            let (mut joiner, mut file) = with_one(&codec);
            joiner.block(whole.len() as u64, input_bytes).unwrap();
            joiner.write(&whole[..length], &mut file).unwrap();
            assert!(joiner.clone().block(1, 1).is_err(), "{codec} at {length}");
            assert!(joiner.finish(&mut file).is_err(), "{codec} at {length}");

            let (mut joiner, mut file) = with_one(&codec);
            let shorter = joiner
                .block(length as u64, input_bytes)
                .and_then(|()| joiner.write(&whole[..length], &mut file));
            assert!(shorter.is_err(), "{codec} at {length}");
        }
    }
}

#[test]
fn another_codecs_block_is_refused() {
    for (ours, others) in [
        ("zlib:6", ["zlib:9", "gzip:6"]),
        ("gzip:9", ["gzip:1", "zlib:9"]),
        ("gzip:6", ["gzip:1", "zlib:6"]),
    ] {
        for other in others.map(codec) {
            let (mut joiner, mut file) = with_one(&codec(ours));
            let block = block(&other, INPUTS[2]);
            joiner.block(block.len() as u64, INPUTS[2].len() as u64).unwrap();
            assert!(joiner.write(&block, &mut file).is_err(), "{ours} {other}");
        }
    }
}

#[test]
fn a_refusal_says_which_block_and_what_is_wrong_with_it() {
    let gzip = codec("gzip:6");
    let good = block(&gzip, INPUTS[2]);
    let (bytes, input_bytes) = (good.len() as u64, INPUTS[2].len() as u64);
    let refused = |bytes, input_bytes, given: &[u8]| {
        let (mut joiner, mut file) = with_one(&gzip);
        let given = joiner.block(bytes, input_bytes).and_then(|()| joiner.write(given, &mut file));
        reason(given.and_then(|()| joiner.finish(&mut file).map(|_| ())))
    };
    let changed = |at: usize| {
        let mut block = good.clone();
        block[at] ^= 1;
        block
    };
    let reasons = [
        refused(bytes, input_bytes, &changed(0)),
        refused(bytes, input_bytes, &changed(good.len() - 10)),
        refused(bytes, input_bytes, &changed(good.len() - 1)),
        refused(bytes, input_bytes + 1, &good),
        refused(bytes, input_bytes, &good[..20]),
        refused(bytes, input_bytes, &[&good[..], b"x"].concat()),
        refused(19, 0, b""),
        refused(20, 1, b""),
        refused(bytes, 0, b""),
        refused(u64::MAX, input_bytes, b""),
    ];
    insta::assert_snapshot!(reasons.join("\n"), @"
    block 1 of the gzip file cannot be joined: its header is not that of the codec
    block 1 of the gzip file cannot be joined: no empty last block precedes its trailer
    block 1 of the gzip file cannot be joined: its trailer has another length than announced
    block 1 of the gzip file cannot be joined: its trailer has another length than announced
    block 1 of the gzip file cannot be joined: it ended after 20 of 47 bytes
    block 1 of the gzip file cannot be joined: it has more bytes than announced
    block 1 of the gzip file cannot be joined: no block of 19 bytes decodes to 0
    block 1 of the gzip file cannot be joined: no block of 20 bytes decodes to 1
    block 1 of the gzip file cannot be joined: no block of 47 bytes decodes to 0
    block 1 of the gzip file cannot be joined: no block of 18446744073709551615 bytes decodes to 22
    ");
}

#[test]
fn lengths_that_no_file_has_are_refused() {
    let mut store = codec("store").joiner();
    assert!(store.block(5, 6).is_err() && store.block(6, 5).is_err());
    assert!(codec("noop").joiner().block(1, 1).is_err());
    for (input_bytes, output_bytes) in [(u64::MAX, 0), (0, u64::MAX)] {
        let note = format!(
            r#"{{"blocks":1,"input_bytes":{input_bytes},"output_bytes":{output_bytes},"checksum":1}}"#
        );
        for codec in ["store", "zlib"].map(codec) {
            let mut joiner = codec.resume_joiner(serde_json::from_str(&note).unwrap());
            let given = given(&mut joiner, &block(&codec, INPUTS[0]), INPUTS[0].len() as u64);
            assert!(reason(given).ends_with("the file is too long"), "{codec} {note}");
        }
    }
}

#[test]
fn a_checksum_that_no_bytes_have_is_refused() {
    let zlib = codec("zlib");
    let refused = |kept: usize, tail: &[u8]| {
        let header = &block(&zlib, b"")[..2];
        let block = [header, &vec![0; kept], tail].concat();
        reason(given(&mut zlib.joiner(), &block, if kept > 0 { 5 } else { 0 }))
    };
    for tail in [[3, 0, 0xff, 0xf1, 0, 1], [3, 0, 0, 1, 0xff, 0xf1]] {
        assert!(refused(12, &tail).contains("impossible checksum"));
    }
    assert!(refused(0, &[3, 0, 0, 1, 0, 2]).contains("impossible checksum"));
    for tail in [&[][..], &[3], &[3, 0, 0, 1, 0], &[3, 0, 0, 1, 0, 1, 0]] {
        assert!(refused(12, tail).contains("no empty last block"), "{tail:?}");
    }
}

/// An error leaves what was joined before; the file is cut to it, and the block is given again.
#[test]
fn after_a_refused_block_the_file_goes_on_from_the_block_before() {
    for codec in ["zlib:6", "gzip:6"].map(codec) {
        let (mut joiner, mut file) = with_one(&codec);
        let (good, input_bytes) = (block(&codec, INPUTS[2]), INPUTS[2].len() as u64);
        let mut wrong = good.clone();
        let end = wrong.len() - codec.joiner().tail_bytes();
        wrong[end] ^= 1;
        joiner.block(wrong.len() as u64, input_bytes).unwrap();
        assert!(joiner.write(&wrong, &mut file).is_err());
        let before = joiner.joined();
        assert_eq!(before.blocks(), 1);
        file.truncate(usize::try_from(before.output_bytes()).unwrap());
        let mut joiner = codec.resume_joiner(before);
        joiner.block(good.len() as u64, input_bytes).unwrap();
        joiner.write(&good, &mut file).unwrap();
        joiner.finish(&mut file).unwrap();
        assert_eq!(decompress_all(&codec, &file).unwrap(), [INPUTS[0], INPUTS[2]].concat());
    }
}

#[test]
fn bytes_without_an_announced_block_are_refused() {
    for codec in ["zlib", "gzip", "store", "noop"].map(codec) {
        let mut joiner = codec.joiner();
        joiner.write(b"", &mut Vec::new()).unwrap();
        assert!(joiner.write(b"x", &mut Vec::new()).is_err(), "{codec}");
    }
}

/// Something that may be a block in part, announced with some lengths.
fn anything() -> impl Strategy<Value = (u64, u64, Vec<u8>)> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        prop::sample::select(vec![codec("gzip:6"), codec("zlib:6")])
            .prop_map(|codec| block(&codec, INPUTS[0])),
    ];
    let xor = prop_oneof![Just(0_u8), any::<u8>()]; // else hardly a block would be joined
    let changed = (bytes, any::<prop::sample::Index>(), xor).prop_map(|(mut bytes, at, xor)| {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= xor;
        }
        bytes
    });
    (changed, any::<Option<u64>>(), prop_oneof![Just(28_u64), 0..100_u64, any::<u64>()]).prop_map(
        |(bytes, said, input_bytes)| (said.unwrap_or(bytes.len() as u64), input_bytes, bytes),
    )
}

proptest! {
    /// Whatever is announced and given, nothing panics, and no more is written than was given.
    #[test]
    fn anything_given_is_joined_or_refused(
        codec in prop::sample::select(vec!["zlib:6", "gzip:6", "gzip:0", "store", "noop"]),
        given in prop::collection::vec(anything(), 0..6),
        piece_bytes in 1..40_usize,
    ) {
        let (mut joiner, mut file, mut bytes) = (self::codec(codec).joiner(), Vec::new(), 0);
        for (said, input_bytes, block) in given {
            let (kept, joined) = (file.len(), joiner.joined());
            bytes += block.len();
            let mut given = joiner.block(said, input_bytes);
            for piece in block.chunks(piece_bytes) {
                given = given.and_then(|()| joiner.write(piece, &mut file));
            }
            prop_assert!(file.len() <= bytes);
            if given.is_err() || joiner.joined() == joined {
                prop_assert_eq!(joiner.joined(), joined);
                file.truncate(kept);
                joiner = self::codec(codec).resume_joiner(joined);
            }
            prop_assert_eq!(joiner.joined().output_bytes(), file.len() as u64);
        }
        let length = joiner.finish(&mut file)?;
        prop_assert_eq!(length, file.len() as u64);
        prop_assert!(file.len() <= bytes + 20);
    }
}
