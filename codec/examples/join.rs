//! Prints what a file costs that is joined of blocks, beside one that was compressed whole, and how fast one core joins.
//!
//! `cargo run --release -p bagpress-codec --example join [FILE]`, which takes the first 24 MiB of FILE too

use std::hint::black_box;
use std::time::{Duration, Instant};
use std::{env, error, fs};

use bagpress_codec::{Codec, DataKind, Error, Generator, SEGMENT_BYTES};

/// Input of a file, in bytes.
const FILE_BYTES: usize = 24 << 20;
/// Input of a block, in bytes.
const BLOCK_BYTES: usize = 8 << 20;
/// Bytes that a joiner is given at once.
const PIECE_BYTES: usize = 64 << 10;
/// The speed is the best of so many.
const REPEATS: usize = 9;

#[expect(clippy::print_stdout, reason = "it is what the example is for")]
fn main() -> Result<(), Box<dyn error::Error>> {
    let mut input = vec![0; FILE_BYTES];
    println!("{:<8}{:<8}{:>12}{:>12}{:>9}{:>9}", "data", "codec", "whole", "joined", "%", "GB/s");
    for kind in [DataKind::Text, DataKind::Random] {
        Generator::new(kind, 0, 0, FILE_BYTES as u64).fill(&mut input);
        measure(&kind.to_string(), &input)?;
    }
    if let Some(path) = env::args_os().nth(1) {
        let mut input = fs::read(path)?;
        input.truncate(FILE_BYTES);
        measure("file", &input)?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is what the example is for")]
#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn measure(what: &str, input: &[u8]) -> Result<(), Error> {
    for codec in ["gzip:1", "gzip:6", "gzip:9", "zlib:6"] {
        let codec: Codec = codec.parse()?;
        let whole = compress(&codec, input)?.len();
        let blocks: Vec<_> = input
            .chunks(BLOCK_BYTES)
            .map(|part| Ok((part.len() as u64, compress(&codec, part)?)))
            .collect::<Result<_, Error>>()?;
        let mut file = Vec::with_capacity(2 * FILE_BYTES);
        let mut best = Duration::MAX;
        for _ in 0..REPEATS {
            file.clear();
            let began = Instant::now();
            join(&codec, &blocks, &mut file)?;
            black_box(&file);
            best = best.min(began.elapsed());
        }
        let more = (file.len() as f64 / whole as f64 - 1.0) * 100.0;
        let rate = file.len() as f64 / 1e9 / best.as_secs_f64();
        let (name, bytes) = (codec.to_string(), file.len());
        println!("{what:<8}{name:<8}{whole:>12}{bytes:>12}{more:>9.4}{rate:>9.2}");
    }
    Ok(())
}

fn compress(codec: &Codec, input: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut encoder, mut output) = (codec.encoder(), Vec::new());
    encoder.announce(input.len() as u64);
    for segment in input.chunks(SEGMENT_BYTES) {
        encoder.write(segment, &mut output)?;
    }
    encoder.finish(&mut output)?;
    Ok(output)
}

fn join(codec: &Codec, blocks: &[(u64, Vec<u8>)], file: &mut Vec<u8>) -> Result<(), Error> {
    let mut joiner = codec.joiner();
    for (input_bytes, block) in blocks {
        joiner.block(block.len() as u64, *input_bytes)?;
        for piece in block.chunks(PIECE_BYTES) {
            joiner.write(piece, file)?;
        }
    }
    joiner.finish(file).map(|_| ())
}
