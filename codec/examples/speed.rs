//! Prints how fast one core generates, compresses, verifies and hashes.
//!
//! `cargo run --release -p bagpress-codec --example speed`

use std::hint::black_box;
use std::time::{Duration, Instant};

use bagpress_codec::{Codec, DataKind, Digest, Error, Generator, SEGMENT_BYTES, Verifier};
use flate2::{Compress, Compression, FlushCompress};

/// Input of a measurement, in bytes.
const BYTES: u32 = 2 << 20;
/// Each number is the best of so many.
const REPEATS: usize = 9;

#[expect(clippy::print_stdout, reason = "it is what the example is for")]
#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn main() -> Result<(), Error> {
    println!("{:<8}{:<10}{:>10}{:>14}", "data", "what", "MB/s", "output/input");
    for kind in DataKind::ALL {
        let mut input = vec![0; BYTES as usize];
        let row = |what: &str, seconds: f64, output: &[u8]| {
            let rate = f64::from(BYTES) / 1e6 / seconds;
            println!(
                "{kind:<8}{what:<10}{rate:>10.1}{:>14.5}",
                output.len() as f64 / f64::from(BYTES)
            );
        };
        let taken = best(|| {
            Generator::new(kind, 0, 0, u64::from(BYTES)).fill(&mut input);
            Ok(())
        })?;
        row("generate", taken, &input);
        let taken = best(|| {
            black_box(Digest::of(&input));
            Ok(())
        })?;
        row("sha256", taken, &[0; 32]);
        for level in [1, 6, 9] {
            let mut output = Vec::with_capacity(2 * BYTES as usize);
            let taken = best(|| {
                plain_deflate(level, &input, &mut output);
                Ok(())
            })?;
            row(&format!("flate2:{level}"), taken, &output);
            let codec: Codec = format!("zlib:{level}").parse()?;
            let taken = best(|| compress(&codec, &input, &mut output, None))?;
            row(&codec.to_string(), taken, &output);
            let taken =
                best(|| compress(&codec, &input, &mut output, Some(Verifier::new(&codec))))?;
            row(" +verify", taken, &output);
        }
    }
    Ok(())
}

/// The shortest of a few calls, in seconds.
fn best(mut call: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let mut shortest = Duration::MAX;
    for _ in 0..REPEATS {
        let start = Instant::now();
        call()?;
        shortest = shortest.min(start.elapsed());
    }
    Ok(shortest.as_secs_f64())
}

/// What the library alone costs: one stream, one call, no framing of ours.
fn plain_deflate(level: u32, input: &[u8], output: &mut Vec<u8>) {
    output.clear();
    let mut deflate = Compress::new(Compression::new(level), true);
    let status = deflate.compress_vec(input, output, FlushCompress::Finish);
    black_box(status.is_ok());
}

fn compress(
    codec: &Codec,
    input: &[u8],
    output: &mut Vec<u8>,
    mut verifier: Option<Verifier>,
) -> Result<(), Error> {
    output.clear();
    let mut encoder = codec.encoder();
    encoder.announce(input.len() as u64);
    for segment in input.chunks(SEGMENT_BYTES) {
        let start = output.len();
        encoder.write(segment, output)?;
        if let Some(verifier) = &mut verifier {
            verifier.check(segment, &output[start..])?;
        }
    }
    let start = output.len();
    encoder.finish(output)?;
    verifier.map_or(Ok(()), |mut verifier| verifier.finish(&output[start..]))
}
