//! The two limits: what one process makes of the same bag with a plain thread pool.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bagpress_codec::{Codec, DataKind, Generator, Hasher, SEGMENT_BYTES, Verifier};
use serde::{Deserialize, Serialize};

use crate::cli::{BagArgs, Kind, LimitArgs};
use crate::machine::{Machine, cores, ms};
use crate::output::show;
use crate::session::temporary;
use crate::spread::Spread;
use crate::table::{row, table};

/// What was measured, of one limit.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Every run, in order.
    pub(crate) makespans_ms: Vec<f64>,
    pub(crate) output_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    tasks: u32,
    bytes: u64,
    codec: String,
    data: DataKind,
    threads: usize,
    machine: Machine,
    #[serde(rename = "codec-limit", skip_serializing_if = "Option::is_none")]
    codec_limit: Option<&'a Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a Measured>,
}

pub(crate) fn limit(args: &LimitArgs) -> Result<()> {
    let threads = args.threads.map_or_else(cores, usize::from);
    let kinds = args.only.map_or_else(|| vec![Kind::CodecLimit, Kind::Limit], |kind| vec![kind]);
    let (bag, data) = args.bag.of(args.data)?;
    let bag = Bag::new(&bag, data);
    let new = || Measured { makespans_ms: Vec::new(), output_bytes: 0 };
    let mut measured: Vec<_> = kinds.iter().map(|&kind| (kind, new())).collect();
    for _ in 0..args.runs {
        for (kind, measured) in &mut measured {
            let (makespan, output_bytes) = bag.run(*kind, threads, &args.dir)?;
            measured.makespans_ms.push(ms(makespan));
            measured.output_bytes = output_bytes;
        }
    }
    let of = |kind| measured.iter().find(|(is, _)| *is == kind).map(|(_, measured)| measured);
    let report = Report {
        tasks: bag.tasks,
        bytes: bag.bytes,
        codec: bag.codec.to_string(),
        data: bag.data,
        threads,
        machine: Machine::now(),
        codec_limit: of(Kind::CodecLimit),
        limit: of(Kind::Limit),
    };
    let mut rows = vec![row!["what", "makespan ms: median (min–max)", "runs"]];
    for (kind, measured) in &measured {
        let spread = Spread::of(&measured.makespans_ms);
        rows.push(row![kind.name(), format!("{spread:.1}"), spread.count]);
    }
    show(args.json, &report, &table(&rows))
}

/// A generated bag, without anything that would distribute it.
#[derive(Debug)]
struct Bag {
    tasks: u32,
    bytes: u64,
    codec: Codec,
    data: DataKind,
    seed: u64,
}

impl Bag {
    fn new(args: &BagArgs, data: DataKind) -> Self {
        let BagArgs { tasks, bytes, codec, seed } = args;
        Self { tasks: *tasks, bytes: bytes.as_u64(), codec: *codec, data, seed: *seed }
    }

    /// Executes every task, and returns the makespan and the bytes of all outputs.
    fn run(&self, kind: Kind, threads: usize, below: &Path) -> Result<(Duration, u64)> {
        let folder = temporary(below)?;
        let next = AtomicU32::new(0);
        let began = Instant::now();
        let output_bytes = std::thread::scope(|scope| {
            let spawn = |_| scope.spawn(|| self.thread(kind, &next, folder.path()));
            let running: Vec<_> = (0..threads).map(spawn).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<u64>>| {
                thread.join().map_err(|_| anyhow!("a thread panicked"))?
            };
            running.into_iter().map(join).sum::<Result<u64>>()
        });
        Ok((began.elapsed(), output_bytes?))
    }

    fn thread(&self, kind: Kind, next: &AtomicU32, folder: &Path) -> Result<u64> {
        let (mut segment, mut part) = (vec![0; SEGMENT_BYTES], Vec::with_capacity(SEGMENT_BYTES));
        let mut output_bytes = 0;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= self.tasks {
                return Ok(output_bytes);
            }
            output_bytes += match kind {
                Kind::CodecLimit => self.compress(index, &mut segment, &mut part)?,
                Kind::Limit => self.keep_promises(index, &mut segment, &mut part, folder)?,
            };
        }
    }

    /// Generates and compresses; the output is thrown away.
    fn compress(&self, index: u32, segment: &mut [u8], part: &mut Vec<u8>) -> Result<u64> {
        let mut generator = Generator::new(self.data, self.seed, index, self.bytes);
        let mut encoder = self.codec.encoder();
        encoder.announce(self.bytes);
        let mut output_bytes = 0;
        loop {
            part.clear();
            let bytes = generator.fill(segment);
            if bytes == 0 {
                encoder.finish(part)?;
                return Ok(output_bytes + part.len() as u64);
            }
            encoder.write(&segment[..bytes], part)?;
            output_bytes += part.len() as u64;
        }
    }

    /// The same, and verifies, hashes, writes and syncs, as a worker and the gatherer do together.
    fn keep_promises(
        &self,
        index: u32,
        segment: &mut [u8],
        part: &mut Vec<u8>,
        folder: &Path,
    ) -> Result<u64> {
        let mut generator = Generator::new(self.data, self.seed, index, self.bytes);
        let mut encoder = self.codec.encoder();
        encoder.announce(self.bytes);
        let mut verifier = Verifier::new(&self.codec);
        let (mut input, mut output) = (Hasher::new(), Hasher::new());
        let mut file = File::create_new(folder.join(format!("out_{index}.bin")))?;
        let mut output_bytes = 0;
        loop {
            part.clear();
            let bytes = generator.fill(segment);
            if bytes == 0 {
                break;
            }
            let segment = &segment[..bytes];
            encoder.write(segment, part)?;
            input.update(segment);
            output.update(part);
            verifier.check(segment, part)?;
            file.write_all(part)?;
            output_bytes += part.len() as u64;
        }
        encoder.finish(part)?;
        verifier.finish(part)?;
        output.update(part);
        file.write_all(part)?;
        file.sync_all()?;
        std::hint::black_box((input.finish(), output.finish()));
        Ok(output_bytes + part.len() as u64)
    }
}
