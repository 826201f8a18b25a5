//! Blocks become one file, which every tool reads whole to its end.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use bagpress_codec::{
    Codec, DataKind, Digest, Encoder, Error, Generator, Joined, Joiner, Reuse, SEGMENT_BYTES,
    decompress_all,
};
use flate2::{Decompress, FlushDecompress, Status};
use proptest::prelude::*;

/// A part of a file, and the whole output of an encoder for it.
struct Block {
    input: Vec<u8>,
    bytes: Vec<u8>,
}

fn codec(text: &str) -> Codec {
    text.parse().unwrap()
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
    texts.map(|text| codec(&text)).filter(|codec| !codec.stores_nothing()).collect()
}

fn generate(kind: DataKind, seed: u64, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    assert_eq!(Generator::new(kind, seed, 0, bytes as u64).fill(&mut buffer), bytes);
    buffer
}

fn encode(encoder: &mut dyn Encoder, input: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoder.announce(input.len() as u64);
    for segment in input.chunks(SEGMENT_BYTES) {
        encoder.write(segment, &mut bytes).unwrap();
    }
    encoder.finish(&mut bytes).unwrap();
    bytes
}

fn blocks(codec: &Codec, inputs: &[Vec<u8>]) -> Vec<Block> {
    let block = |input: &Vec<u8>| Block {
        input: input.clone(),
        bytes: encode(&mut *codec.encoder(), input),
    };
    inputs.iter().map(block).collect()
}

/// Blocks of all sizes with a boundary and of all kinds, an empty one among them.
fn inputs() -> Vec<Vec<u8>> {
    use DataKind::{Random, Text, Zeros};
    let kinds = [
        (Text, 1),
        (Text, 65_535),
        (Text, 65_536),
        (Random, 65_537),
        (Text, 0),
        (Random, SEGMENT_BYTES + 1),
        (Text, 2 * SEGMENT_BYTES),
        (Zeros, 65_537),
        (Random, 1),
        (Random, 70),
    ];
    let mut inputs: Vec<_> =
        (0..).zip(kinds).map(|(seed, (kind, bytes))| generate(kind, seed, bytes)).collect();
    // It repeats what the block before had, to which it must not refer, and has noise in between.
    let again = [&inputs[2][..], &inputs[5], &inputs[2]].concat();
    inputs.push(again);
    inputs
}

fn small_inputs() -> Vec<Vec<u8>> {
    let text = b"a task and a task and a task, and then one more".to_vec();
    vec![text.clone(), vec![], vec![7], generate(DataKind::Random, 3, 60), text]
}

fn whole(inputs: &[Vec<u8>]) -> Vec<u8> {
    inputs.concat()
}

fn announce(joiner: &mut Joiner, block: &Block) -> Result<(), Error> {
    joiner.block(block.bytes.len() as u64, block.input.len() as u64)
}

fn join(codec: &Codec, blocks: &[Block], piece_bytes: usize) -> Result<Vec<u8>, Error> {
    let (mut joiner, mut file) = (codec.joiner(), Vec::new());
    for block in blocks {
        announce(&mut joiner, block)?;
        for piece in block.bytes.chunks(piece_bytes) {
            joiner.write(piece, &mut file)?;
        }
    }
    let bytes = joiner.finish(&mut file)?;
    assert_eq!(bytes, file.len() as u64);
    Ok(file)
}

/// Checks that `file` is one gzip member or one zlib stream, from its first byte to its last.
fn assert_is_one_stream(codec: &Codec, file: &[u8]) {
    let mut decoder = match codec.name() {
        "gzip" => Decompress::new_gzip(15),
        "zlib" => Decompress::new(true),
        _ => return,
    };
    let mut scratch = vec![0; SEGMENT_BYTES];
    let mut status = Status::Ok;
    while status != Status::StreamEnd {
        let read = usize::try_from(decoder.total_in()).unwrap();
        status = decoder.decompress(&file[read..], &mut scratch, FlushDecompress::None).unwrap();
    }
    assert_eq!(decoder.total_in(), file.len() as u64, "{codec}");
}

/// Runs a program with `input` on its standard input, and returns its output when it succeeded.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program} {arguments:?}: {}", output.status);
    output.stdout
}

#[test]
fn joined_blocks_are_one_stream_of_everything_at_every_level() {
    let inputs = inputs();
    let expected = whole(&inputs);
    for codec in storing_codecs() {
        let blocks = blocks(&codec, &inputs);
        let file = join(&codec, &blocks, 100_000).unwrap();
        assert!(decompress_all(&codec, &file).unwrap() == expected, "{codec}");
        assert_is_one_stream(&codec, &file);
        let framing = encode(&mut *codec.encoder(), b"").len();
        let bytes: usize = blocks.iter().map(|block| block.bytes.len()).sum();
        if codec.extension() == ".zst" {
            assert_eq!(file.len(), bytes + blocks.len() * 12 + 8 + 9, "{codec}");
            continue;
        }
        assert_eq!(file.len(), bytes - (blocks.len() - 1) * framing, "{codec}");
    }
}

#[test]
fn gzip_reads_joined_blocks_to_the_end() {
    let inputs = inputs();
    for codec in (0..=9).map(|level| codec(&format!("gzip:{level}"))) {
        let file = join(&codec, &blocks(&codec, &inputs), 4096).unwrap();
        pipe("gzip", &["-t"], &file);
        assert!(pipe("gzip", &["-dc"], &file) == whole(&inputs), "{codec}");
    }
}

#[test]
fn python_reads_joined_blocks_as_one_stream() {
    let script = "import sys, gzip, zlib, hashlib\n\
        data = sys.stdin.buffer.read()\n\
        reader = zlib.decompressobj({'zlib': 15, 'gzip': 31}[sys.argv[1]])\n\
        once = reader.decompress(data)\n\
        assert reader.eof and not reader.unused_data\n\
        again = {'zlib': zlib.decompress, 'gzip': gzip.decompress}[sys.argv[1]](data)\n\
        assert once == again\n\
        print('sha256:' + hashlib.sha256(once).hexdigest())";
    let inputs = inputs();
    let expected = Digest::of(&whole(&inputs)).to_string();
    for codec in ["zlib:0", "zlib:1", "zlib:6", "zlib:9,full", "gzip:0", "gzip:6"].map(codec) {
        let file = join(&codec, &blocks(&codec, &inputs), usize::MAX).unwrap();
        let digest = pipe("python3", &["-c", script, codec.name()], &file);
        assert_eq!(String::from_utf8(digest).unwrap().trim(), expected, "{codec}");
    }
}

#[test]
fn a_file_of_one_block_is_that_block() {
    for codec in storing_codecs() {
        for input in [vec![], vec![1], generate(DataKind::Text, 0, 70_000)] {
            let blocks = blocks(&codec, &[input]);
            assert!(join(&codec, &blocks, 1000).unwrap() == blocks[0].bytes, "{codec}");
        }
        assert_eq!(join(&codec, &[], 1).unwrap(), encode(&mut *codec.encoder(), b""), "{codec}");
    }
    let nothing = blocks(&codec("noop"), &small_inputs());
    assert_eq!(join(&codec("noop"), &nothing, 1).unwrap(), b"");
}

/// Where no segment is compressed there is nothing that a block could not refer to.
#[test]
fn joined_blocks_of_stored_segments_are_the_file_that_one_worker_makes() {
    let parts: Vec<_> =
        (0..3).map(|seed| generate(DataKind::Random, seed, 2 * SEGMENT_BYTES)).collect();
    for codec in ["zlib:0", "gzip:0", "zlib:6", "gzip:9", "store"].map(codec) {
        let file = join(&codec, &blocks(&codec, &parts), 99_999).unwrap();
        assert!(file == encode(&mut *codec.encoder(), &whole(&parts)), "{codec}");
    }
}

#[test]
fn pieces_may_be_cut_anywhere() {
    for codec in ["zlib:6", "gzip:6", "zlib:0", "gzip:1,full", "store", "zstd:3"].map(codec) {
        let blocks = blocks(&codec, &small_inputs());
        let expected = join(&codec, &blocks, usize::MAX).unwrap();
        assert_eq!(decompress_all(&codec, &expected).unwrap(), whole(&small_inputs()));
        for piece_bytes in 1..=100 {
            assert_eq!(join(&codec, &blocks, piece_bytes).unwrap(), expected, "{codec}");
        }
        let longest = blocks.iter().map(|block| block.bytes.len()).max().unwrap();
        for cut in 0..=longest {
            let (mut joiner, mut file) = (codec.joiner(), Vec::new());
            for block in &blocks {
                announce(&mut joiner, block).unwrap();
                let (begin, end) = block.bytes.split_at(cut.min(block.bytes.len()));
                for piece in [begin, b"", end, b""] {
                    joiner.write(piece, &mut file).unwrap();
                }
            }
            joiner.finish(&mut file).unwrap();
            assert_eq!(file, expected, "{codec}, cut at {cut}");
        }
    }
}

#[test]
fn a_block_of_a_used_encoder_is_that_of_a_new_one() {
    let inputs = inputs();
    for codec in storing_codecs() {
        let mut reuse = Reuse::default();
        for block in blocks(&codec, &inputs) {
            let mut encoder = reuse.encoder(&codec);
            let bytes = encode(&mut *encoder, &block.input);
            assert!(bytes == block.bytes, "{codec}, {} bytes", block.input.len());
            reuse.keep(&codec, encoder, None);
        }
    }
}

#[test]
fn joining_goes_on_after_any_block() {
    for codec in ["zlib:6", "gzip:6", "zlib:0", "store", "zstd:3"].map(codec) {
        let blocks = blocks(&codec, &small_inputs());
        let expected = join(&codec, &blocks, usize::MAX).unwrap();
        let (mut joiner, mut file) = (codec.joiner(), Vec::new());
        for count in 0..=blocks.len() {
            let reached = joiner.joined();
            assert_eq!(reached.blocks(), count as u64);
            assert_eq!(reached.output_bytes(), file.len() as u64, "{codec}");
            assert_eq!(reached.input_bytes(), whole(&small_inputs()[..count]).len() as u64);
            let text = serde_json::to_string(&reached).unwrap();
            let read: Joined = serde_json::from_str(&text).unwrap();
            let (mut again, mut whole) = (codec.resume_joiner(read), file.clone());
            file.chunks(13).for_each(|piece| again.recall(piece).unwrap());
            for block in &blocks[count..] {
                announce(&mut again, block).unwrap();
                again.write(&block.bytes, &mut whole).unwrap();
            }
            assert_eq!(again.finish(&mut whole).unwrap(), expected.len() as u64);
            assert_eq!(whole, expected, "{codec} after {count}");
            if let Some(block) = blocks.get(count) {
                announce(&mut joiner, block).unwrap();
                joiner.write(&block.bytes, &mut file).unwrap();
            }
        }
    }
}

#[test]
fn what_is_written_down_is_pinned() {
    let mut joiner = codec("gzip:6").joiner();
    let block = &blocks(&codec("gzip:6"), &small_inputs())[0];
    announce(&mut joiner, block).unwrap();
    joiner.write(&block.bytes, &mut Vec::new()).unwrap();
    insta::assert_snapshot!(serde_json::to_string(&joiner.joined()).unwrap(), @r#"{"blocks":1,"input_bytes":47,"output_bytes":46,"checksum":723136726}"#);
}

/// A gzip trailer has the length modulo 2^32.
#[test]
fn more_than_four_gibibytes_have_their_length_modulo_that() {
    let mut joiner = codec("gzip:1").joiner();
    let mut block = encode(&mut *codec("gzip:1").encoder(), b"");
    let tail = [&[3, 0, 1, 2, 3, 4][..], &(3_u32 << 30).to_le_bytes()].concat();
    // What is kept is not looked at.
    block.splice(10.., vec![0; 20_000_000].into_iter().chain(tail));
    for _ in 0..2 {
        joiner.block(block.len() as u64, 3 << 30).unwrap();
        joiner.write(&block, &mut Vec::new()).unwrap();
    }
    assert_eq!(joiner.joined().input_bytes(), 6 << 30);
    let mut end = Vec::new();
    joiner.finish(&mut end).unwrap();
    assert_eq!(end[end.len() - 4..], (2_u32 << 30).to_le_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Blocks of whole segments: the file keeps the bound of a file that one worker made.
    #[test]
    fn any_file_of_whole_segments_keeps_the_bound(
        codec in prop::sample::select(storing_codecs()),
        kinds in prop::collection::vec(prop::sample::select(&DataKind::ALL[..]), 1..5),
        last_bytes in prop_oneof![0..3000_usize, 0..=SEGMENT_BYTES],
    ) {
        let last = kinds.len() - 1;
        let bytes = |index| if index == last { last_bytes } else { SEGMENT_BYTES };
        let inputs: Vec<_> =
            (0..).zip(&kinds).map(|(index, kind)| generate(*kind, 5, bytes(index))).collect();
        let file = join(&codec, &blocks(&codec, &inputs), 77_777)?;
        let expected = whole(&inputs);
        prop_assert!(file.len() as u64 <= codec.output_bytes_max(expected.len() as u64));
        prop_assert!(decompress_all(&codec, &file)? == expected);
    }
}
