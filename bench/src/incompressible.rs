//! What the look for incompressible segments costs and saves, file by file: the sizes of each output with it and
//! without it (`,full`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bagpress_codec::{Codec, Digest, Probe, SEGMENT_BYTES};
use bagpress_producer::message;
use serde::Serialize;

use crate::cli::IncompressibleArgs;
use crate::output::print;
use crate::table::{row, table};

/// Files above this may not grow by much: below, a flush or a block's head is a part of the whole, in bytes.
const LARGE_BYTES: u64 = 64 * 1024;
/// Files that are named as the worst.
const WORST: usize = 10;

/// One file's outputs.
#[derive(Debug, Clone, Serialize)]
struct Sizes {
    file: String,
    bytes: u64,
    /// Bytes in segments that were stored unread.
    skipped_bytes: u64,
    with_bytes: u64,
    without_bytes: u64,
}

impl Sizes {
    /// How much larger the output is with the look, in percent; less than nothing if it is smaller.
    fn growth_percent(&self) -> f64 {
        growth_percent(self.with_bytes, self.without_bytes)
    }
}

/// What one file took.
#[derive(Debug, Default)]
struct Taken {
    look: Duration,
    look_skipped: Duration,
    with: Duration,
    without: Duration,
}

#[derive(Debug, Serialize)]
struct Worst {
    file: String,
    bytes: u64,
    growth_percent: f64,
}

/// The last line.
#[derive(Debug, Serialize)]
struct Summary {
    codec: String,
    files: u64,
    bytes: u64,
    skipped_bytes: u64,
    with_bytes: u64,
    without_bytes: u64,
    growth_percent: f64,
    /// Files above 64 KiB, and those of them that grew most.
    large_files: u64,
    worst: Vec<Worst>,
    /// Of the look alone, over all files, and over the segments in which it found nothing.
    look_ns_per_byte: f64,
    look_ns_per_skipped_byte: f64,
    /// Of the files in which something was skipped, in seconds.
    compress_with_s: f64,
    compress_without_s: f64,
}

pub(crate) fn incompressible(args: &IncompressibleArgs) -> Result<()> {
    let (codec, full) = codecs(args.codec)?;
    let files = chosen(&args.folders, args.per_ending.map(|size| size.as_u64()))?;
    let mut summary = Sums { codec: Some(codec), ..Sums::default() };
    let mut lines = BufWriter::new(std::io::stdout().lock());
    for file in files {
        // Files of a living system come and go, or are not ours to read.
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) => {
                message(&format!("note: {} was left out: {error}", file.display()));
                continue;
            }
        };
        let (sizes, taken) = measure(&file, &bytes, &codec, &full)?;
        if args.json {
            serde_json::to_writer(&mut lines, &sizes)?;
            lines.write_all(b"\n")?;
        }
        summary.add(sizes, &taken);
    }
    lines.flush()?;
    drop(lines);
    let summary = summary.finish();
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&summary)?))
    } else {
        print(&text(&summary))
    }
}

/// The codec with and without the look.
fn codecs(codec: Codec) -> Result<(Codec, Codec)> {
    if codec.is_full() {
        bail!("{codec} has no look: leave `,full` out");
    }
    let full = format!("{codec},full").parse().context("compare with it")?;
    Ok((codec, full))
}

/// The files below `folders`, in an order that neither their names nor their folders decide; of each ending, the first
/// that are at most `per_ending` bytes together.
fn chosen(folders: &[PathBuf], per_ending: Option<u64>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in folders {
        walk(folder, &mut files).with_context(|| format!("read {}", folder.display()))?;
    }
    files.sort_by_cached_key(|(file, _)| {
        Digest::of(file.as_os_str().as_encoded_bytes()).to_string()
    });
    let mut taken = BTreeMap::new();
    files.retain(|(file, bytes)| {
        let ending = file.extension().map(OsStr::to_ascii_lowercase);
        let sum: &mut u64 = taken.entry(ending).or_default();
        let fits = *bytes > 0 && per_ending.is_none_or(|most| *sum + bytes <= most);
        *sum += if fits { *bytes } else { 0 };
        fits
    });
    Ok(files.into_iter().map(|(file, _)| file).collect())
}

fn walk(folder: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push((entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(())
}

fn measure(file: &Path, bytes: &[u8], codec: &Codec, full: &Codec) -> Result<(Sizes, Taken)> {
    let (mut probe, mut taken, mut skipped_bytes) = (Probe::default(), Taken::default(), 0);
    for segment in bytes.chunks(SEGMENT_BYTES) {
        let began = Instant::now();
        let skips = probe.skips(segment);
        let took = began.elapsed();
        taken.look += took;
        if skips {
            taken.look_skipped += took;
            skipped_bytes += segment.len() as u64;
        }
    }
    let without_bytes;
    (without_bytes, taken.without) = compress(full, bytes)?;
    let with_bytes;
    // Where nothing is skipped, both encoders do the same.
    (with_bytes, taken.with) =
        if skipped_bytes > 0 { compress(codec, bytes)? } else { (without_bytes, taken.without) };
    let (file, bytes) = (file.display().to_string(), bytes.len() as u64);
    Ok((Sizes { file, bytes, skipped_bytes, with_bytes, without_bytes }, taken))
}

fn compress(codec: &Codec, bytes: &[u8]) -> Result<(u64, Duration)> {
    let (mut encoder, mut part, mut output_bytes) = (codec.encoder(), Vec::new(), 0);
    let began = Instant::now();
    encoder.announce(bytes.len() as u64);
    for segment in bytes.chunks(SEGMENT_BYTES) {
        part.clear();
        encoder.write(segment, &mut part)?;
        output_bytes += part.len() as u64;
    }
    part.clear();
    encoder.finish(&mut part)?;
    Ok((output_bytes + part.len() as u64, began.elapsed()))
}

#[derive(Debug, Default)]
struct Sums {
    codec: Option<Codec>,
    files: u64,
    bytes: u64,
    skipped_bytes: u64,
    with_bytes: u64,
    without_bytes: u64,
    large: Vec<Sizes>,
    taken: Taken,
}

impl Sums {
    fn add(&mut self, sizes: Sizes, taken: &Taken) {
        self.files += 1;
        self.bytes += sizes.bytes;
        self.skipped_bytes += sizes.skipped_bytes;
        self.with_bytes += sizes.with_bytes;
        self.without_bytes += sizes.without_bytes;
        self.taken.look += taken.look;
        self.taken.look_skipped += taken.look_skipped;
        if sizes.skipped_bytes > 0 {
            self.taken.with += taken.with;
            self.taken.without += taken.without;
        }
        if sizes.bytes > LARGE_BYTES {
            self.large.push(sizes);
        }
    }

    fn finish(mut self) -> Summary {
        self.large.sort_by(|a, b| b.growth_percent().total_cmp(&a.growth_percent()));
        let large_files = self.large.len() as u64;
        let worst = self.large.into_iter().take(WORST).map(|sizes| Worst {
            growth_percent: sizes.growth_percent(),
            file: sizes.file,
            bytes: sizes.bytes,
        });
        Summary {
            codec: self.codec.map(|codec| codec.to_string()).unwrap_or_default(),
            files: self.files,
            bytes: self.bytes,
            skipped_bytes: self.skipped_bytes,
            with_bytes: self.with_bytes,
            without_bytes: self.without_bytes,
            growth_percent: growth_percent(self.with_bytes, self.without_bytes),
            large_files,
            worst: worst.collect(),
            look_ns_per_byte: ns_per_byte(self.taken.look, self.bytes),
            look_ns_per_skipped_byte: ns_per_byte(self.taken.look_skipped, self.skipped_bytes),
            compress_with_s: self.taken.with.as_secs_f64(),
            compress_without_s: self.taken.without.as_secs_f64(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "files far below 2^52 bytes")]
fn growth_percent(with: u64, without: u64) -> f64 {
    if without == 0 { 0.0 } else { (with as f64 / without as f64 - 1.0) * 100.0 }
}

#[expect(clippy::cast_precision_loss, reason = "files far below 2^52 bytes")]
fn ns_per_byte(duration: Duration, bytes: u64) -> f64 {
    if bytes == 0 { 0.0 } else { duration.as_secs_f64() * 1e9 / bytes as f64 }
}

fn text(summary: &Summary) -> String {
    let Summary { files, bytes, skipped_bytes, with_bytes, without_bytes, .. } = summary;
    let mut rows = vec![
        row!["codec", summary.codec],
        row!["input", format!("{files} files, {bytes} B")],
        row!["stored unread", format!("{skipped_bytes} B")],
        row!["output", format!("{with_bytes} B, without the look {without_bytes} B")],
        row!["growth", format!("{:.4} %", summary.growth_percent)],
        row![
            "the look",
            format!(
                "{:.2} ns/B, where it finds nothing {:.2} ns/B",
                summary.look_ns_per_byte, summary.look_ns_per_skipped_byte
            )
        ],
        row![
            "these files",
            format!(
                "{:.2} s, without the look {:.2} s",
                summary.compress_with_s, summary.compress_without_s
            )
        ],
    ];
    let worst = summary.worst.iter().map(|worst| {
        row!["worst", format!("{:.3} %  {} B  {}", worst.growth_percent, worst.bytes, worst.file)]
    });
    rows.extend(worst);
    table(&rows)
}
