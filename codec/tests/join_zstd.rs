//! Joined frames, and the table behind them.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use bagpress_codec::{Codec, DataKind, Error, Generator, SEGMENT_BYTES, decompress_all};

fn codec(text: &str) -> Codec {
    text.parse().unwrap()
}

fn inputs() -> Vec<Vec<u8>> {
    let sizes = [SEGMENT_BYTES, 2 * SEGMENT_BYTES, 1, 0, 5000, SEGMENT_BYTES + 3];
    let kinds = DataKind::ALL.into_iter().cycle();
    kinds
        .zip(sizes)
        .map(|(kind, bytes)| {
            let mut input = vec![0; bytes];
            Generator::new(kind, 3, 0, bytes as u64).fill(&mut input);
            input
        })
        .collect()
}

fn block(codec: &Codec, input: &[u8]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (codec.encoder(), Vec::new());
    encoder.announce(input.len() as u64);
    for segment in input.chunks(SEGMENT_BYTES) {
        encoder.write(segment, &mut bytes).unwrap();
    }
    encoder.finish(&mut bytes).unwrap();
    bytes
}

fn join(codec: &Codec, blocks: &[(Vec<u8>, u64)]) -> Result<Vec<u8>, Error> {
    let (mut joiner, mut file) = (codec.joiner(), Vec::new());
    for (block, input_bytes) in blocks {
        joiner.block(block.len() as u64, *input_bytes)?;
        for piece in block.chunks(1000) {
            joiner.write(piece, &mut file)?;
        }
    }
    joiner.finish(&mut file)?;
    Ok(file)
}

fn blocks(codec: &Codec, inputs: &[Vec<u8>]) -> Vec<(Vec<u8>, u64)> {
    inputs.iter().map(|input| (block(codec, input), input.len() as u64)).collect()
}

fn number(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes.try_into().unwrap()) as usize
}

/// As the specification of the seekable format has it, from the file's end.
fn table(file: &[u8]) -> Vec<[usize; 3]> {
    let (rest, footer) = file.split_at(file.len() - 9);
    assert_eq!(number(&footer[5..]), 0x8f92_eab1);
    assert_eq!(footer[4], 0x80, "checksums, and no other bit");
    let bytes = 12 * number(&footer[..4]);
    let (rest, entries) = rest.split_at(rest.len() - bytes);
    let head = &rest[rest.len() - 8..];
    assert_eq!((number(&head[..4]), number(&head[4..])), (0x184d_2a5e, bytes + 9));
    let entry = |entry: &[u8]| [&entry[..4], &entry[4..8], &entry[8..]].map(number);
    entries.chunks(12).map(entry).collect()
}

#[test]
fn the_table_finds_every_frame_and_each_decodes_alone() {
    for codec in ["zstd:1", "zstd:3", "zstd:19,long"].map(codec) {
        let inputs = inputs();
        let file = join(&codec, &blocks(&codec, &inputs)).unwrap();
        assert!(decompress_all(&codec, &file).unwrap() == inputs.concat());
        let (mut at, table) = (0, table(&file));
        assert_eq!(table.len(), inputs.len());
        for ([bytes, input_bytes, checksum], input) in table.into_iter().zip(&inputs) {
            let frame = &file[at..at + bytes];
            assert!(decompress_all(&codec, frame).unwrap() == *input);
            assert_eq!(input_bytes, input.len());
            assert_eq!(checksum, number(&frame[bytes - 4..]), "it is the frame's own");
            at += bytes;
        }
        assert_eq!(file.len() - at, 8 + 12 * inputs.len() + 9);
    }
}

#[test]
fn a_file_of_one_frame_or_none_has_no_table() {
    let codec = codec("zstd:3");
    let one = blocks(&codec, &inputs()[..1]);
    assert_eq!(join(&codec, &one).unwrap(), one[0].0);
    assert_eq!(join(&codec, &[]).unwrap(), block(&codec, b""));
}

#[test]
fn no_flipped_bit_of_a_frame_passes_as_other_bytes() {
    let codec = codec("zstd:3");
    let inputs = [&b"a task and a task and a task"[..], b"", b"and then one more task"];
    let inputs = inputs.map(<[u8]>::to_vec);
    let good = blocks(&codec, &inputs);
    for index in 0..good.len() {
        for bit in 0..good[index].0.len() * 8 {
            let mut blocks = good.clone();
            blocks[index].0[bit / 8] ^= 1 << (bit % 8);
            let joined = join(&codec, &blocks);
            if let Ok(decoded) = joined.and_then(|file| decompress_all(&codec, &file)) {
                assert_eq!(decoded, inputs.concat(), "block {index}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_refusal_says_what_is_no_frame() {
    let codec = codec("zstd:3");
    let good = block(&codec, b"and then one more task");
    let refused = |bytes: &[u8], input_bytes| {
        join(&codec, &[(bytes.to_vec(), input_bytes)]).unwrap_err().to_string()
    };
    let changed = |at: usize, xor: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= xor;
        bytes
    };
    let two = [&good[..], &good].concat();
    let reasons = [
        refused(&changed(0, 1), 22),
        refused(&changed(4, 4), 22),
        refused(&changed(4, 1), 22),
        refused(&changed(4, 0x20), 22),
        refused(&changed(6, 6), 22),
        refused(&changed(8, 0x80), 22),
        refused(&good, 21),
        refused(&good[..good.len() - 1], 22),
        refused(&two, 44),
        refused(&good[..12], 0),
        refused(&good, 1 << 31),
    ];
    insta::assert_snapshot!(reasons.join("\n"), @"
    block 0 of the zstd file cannot be joined: it is no zstd frame
    block 0 of the zstd file cannot be joined: its frame has no checksum, or a dictionary
    block 0 of the zstd file cannot be joined: its frame has no checksum, or a dictionary
    block 0 of the zstd file cannot be joined: its frame does not say how long its content is
    block 0 of the zstd file cannot be joined: its frame has a block of no kind
    block 0 of the zstd file cannot be joined: its frame has a block that is too long
    block 0 of the zstd file cannot be joined: its header has another length than announced
    block 0 of the zstd file cannot be joined: it is not one frame of the announced length
    block 0 of the zstd file cannot be joined: it is not one frame of the announced length
    block 0 of the zstd file cannot be joined: no block of 12 bytes decodes to 0
    block 0 of the zstd file cannot be joined: no block of 35 bytes decodes to 2147483648
    ");
}

#[test]
fn a_joiner_that_goes_on_wants_the_bytes_that_it_had() {
    let codec = codec("zstd:3");
    let blocks = blocks(&codec, &inputs());
    let (mut joiner, mut file) = (codec.joiner(), Vec::new());
    for (block, input_bytes) in &blocks[..3] {
        joiner.block(block.len() as u64, *input_bytes).unwrap();
        joiner.write(block, &mut file).unwrap();
    }
    let reached = joiner.joined();
    let next = |recalled: &[&[u8]]| {
        let mut again = codec.resume_joiner(reached);
        recalled.iter().try_for_each(|piece| again.recall(piece))?;
        let (block, input_bytes) = &blocks[3];
        again.block(block.len() as u64, *input_bytes)
    };
    assert_eq!(next(&[&file]), Ok(()));
    assert_eq!(next(&[&file[..7], b"", &file[7..]]), Ok(()));
    let first = blocks[0].0.len();
    let swapped = [&file[first..], &file[..first]].concat();
    let mut changed = file.clone();
    changed[first - 1] ^= 1; // a checksum
    for wrong in [&file[..first], &[][..], &swapped, &changed] {
        let refused = next(&[wrong]).unwrap_err().to_string();
        assert!(refused.ends_with("what was joined before was not read again"), "{refused}");
    }
    assert!(next(&[&file, b"x"]).unwrap_err().to_string().contains("more bytes than were joined"));
    assert!(next(&[b"PK\x03\x04"]).is_err());
    assert!(codec.resume_joiner(reached).finish(&mut Vec::new()).is_err());
}

#[test]
fn a_block_of_more_than_a_gibibyte_has_no_place_in_the_table() {
    let zstd = codec("zstd:3");
    assert_eq!(zstd.block_bytes_max(), 1 << 30);
    assert!(zstd.joiner().check(1 << 20, 1 << 30).is_ok());
    assert!(zstd.joiner().check(1 << 20, (1 << 30) + 1).is_err());
    assert_eq!(codec("gzip").block_bytes_max(), u64::MAX);
}
