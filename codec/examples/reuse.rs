//! Prints what a small input costs with a new encoder and verifier, and with those of the input before.
//!
//! `cargo run --release -p bagpress-codec --example reuse`

use std::hint::black_box;
use std::time::{Duration, Instant};

use bagpress_codec::{Codec, DataKind, Error, Generator, Reuse};

/// Bytes of each input.
const BYTES: usize = 4096;
/// Inputs in each measurement.
const INPUTS: u32 = 500;
/// Each number is the best of so many; both ways alternate.
const REPEATS: usize = 15;

#[expect(clippy::print_stdout, reason = "it is what the example is for")]
fn main() -> Result<(), Error> {
    println!("{:<14}{:<8}{:>12}{:>12}", "codec", "data", "new us", "reused us");
    for codec in ["zlib:6", "gzip:6", "zlib:1", "zlib:9", "zlib:6,full"] {
        let codec: Codec = codec.parse()?;
        for kind in [DataKind::Text, DataKind::Random] {
            let mut input = vec![0; BYTES];
            Generator::new(kind, 0, 0, BYTES as u64).fill(&mut input);
            let mut reuse = Reuse::default();
            let mut best = [Duration::MAX; 2];
            for _ in 0..REPEATS {
                for (best, keeps) in best.iter_mut().zip([false, true]) {
                    let began = Instant::now();
                    for _ in 0..INPUTS {
                        one(&codec, &input, &mut reuse, keeps)?;
                    }
                    *best = (*best).min(began.elapsed() / INPUTS);
                }
            }
            let [new, reused] = best.map(|best| best.as_secs_f64() * 1e6);
            println!("{:<14}{kind:<8}{new:>12.1}{reused:>12.1}", codec.to_string());
        }
    }
    Ok(())
}

/// Compresses and verifies one input, as a slot does.
fn one(codec: &Codec, input: &[u8], reuse: &mut Reuse, keeps: bool) -> Result<(), Error> {
    let (mut encoder, mut verifier) = (reuse.encoder(codec), reuse.verifier(codec));
    let mut output = Vec::with_capacity(2 * BYTES);
    encoder.announce(input.len() as u64);
    encoder.write(input, &mut output)?;
    verifier.check(input, &output)?;
    let start = output.len();
    encoder.finish(&mut output)?;
    verifier.finish(&output[start..])?;
    black_box(&output);
    if keeps {
        reuse.keep(codec, encoder, Some(verifier));
    } else {
        *reuse = Reuse::default();
    }
    Ok(())
}
