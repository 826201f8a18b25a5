//! Whether outputs are of the inputs that they should be of, whoever made them.
//!
//! Different versions of zlib write different bytes, so what is compared is the digest of what comes out again.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use bagpress_codec::{DataKind, Digest, Generator, Hasher, SEGMENT_BYTES};
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use crate::cli::BagArgs;

/// The digests of a bag's inputs, in the order of its tasks.
#[derive(Debug)]
pub(crate) struct Expected {
    bytes: u64,
    digests: Vec<Digest>,
}

impl Expected {
    /// Generates the inputs once more.
    pub(crate) fn of(bag: &BagArgs, data: DataKind) -> Self {
        let bytes = bag.bytes.as_u64();
        let digest = |index| {
            let (mut segment, mut hasher) = (vec![0; SEGMENT_BYTES], Hasher::new());
            let mut generator = Generator::new(data, bag.seed, index, bytes);
            loop {
                match generator.fill(&mut segment) {
                    0 => return hasher.finish(),
                    filled => hasher.update(&segment[..filled]),
                }
            }
        };
        Self { bytes, digests: (0..bag.tasks).map(digest).collect() }
    }

    /// Decompresses `out_N.bin`, `.gz` or `.zst` of every task in a folder.
    ///
    /// # Errors
    ///
    /// The first output that is missing, cannot be read, or is of another input.
    pub(crate) fn check_outputs(&self, results: &Path) -> Result<()> {
        for (index, expected) in self.digests.iter().enumerate() {
            let digest = self.decompressed(results, index);
            let digest = digest.with_context(|| format!("read the output of task {index}"))?;
            ensure!(digest == *expected, "the output of task {index} is not of its input");
        }
        Ok(())
    }

    /// Compares with the digests that workers of ours have in their `stats_N.json`.
    ///
    /// # Errors
    ///
    /// As above.
    pub(crate) fn check_stats(&self, results: &Path) -> Result<()> {
        for (index, expected) in self.digests.iter().enumerate() {
            let text = fs::read_to_string(results.join(format!("stats_{index}.json")));
            let text = text.with_context(|| format!("read the stats of task {index}"))?;
            let stats: serde_json::Value = serde_json::from_str(&text)?;
            let same = stats["input_digest"] == expected.to_string().as_str();
            ensure!(same && stats["ok"] == true, "task {index} was not of its input: {text}");
        }
        Ok(())
    }

    fn decompressed(&self, results: &Path, index: usize) -> Result<Digest> {
        let path = |suffix: &str| results.join(format!("out_{index}.{suffix}"));
        let open = |suffix: &str| File::open(path(suffix)).map(BufReader::new);
        if let Ok(file) = open("bin") {
            self.digest(ZlibDecoder::new(file))
        } else if let Ok(file) = open("gz") {
            self.digest(MultiGzDecoder::new(file))
        } else if path("zst").is_file() {
            let mut zstd = Command::new("zstd");
            zstd.args(["-q", "-d", "-c"]).arg(path("zst")).stdout(Stdio::piped());
            let mut child = zstd.spawn().context("start zstd")?;
            let digest = self.digest(child.stdout.take().context("no stdout of zstd")?);
            ensure!(child.wait()?.success(), "zstd refuses it");
            digest
        } else {
            bail!("there is none")
        }
    }

    /// The digest of what a reader gives, of one byte more than is right at most.
    fn digest(&self, reader: impl Read) -> Result<Digest> {
        let mut reader = reader.take(self.bytes + 1);
        let (mut segment, mut hasher) = (vec![0; SEGMENT_BYTES], Hasher::new());
        loop {
            match reader.read(&mut segment)? {
                0 => return Ok(hasher.finish()),
                read => hasher.update(&segment[..read]),
            }
        }
    }
}

/// Writes a bag's inputs as `in_N`, for who compresses files.
pub(crate) fn write_inputs(bag: &BagArgs, data: DataKind, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut segment = vec![0; SEGMENT_BYTES];
    for index in 0..bag.tasks {
        let mut generator = Generator::new(data, bag.seed, index, bag.bytes.as_u64());
        let mut file = File::create_new(folder.join(format!("in_{index}")))?;
        loop {
            match generator.fill(&mut segment) {
                0 => break,
                filled => file.write_all(&segment[..filled])?,
            }
        }
    }
    Ok(())
}
