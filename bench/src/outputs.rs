//! Whether outputs are of the inputs that they should be of, whoever made them.
//!
//! Different versions of a library write different bytes, so what is compared is the digest of what comes out again; of arrays that
//! are not to keep every bit, every value.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use bagpress_codec::{
    Codec, DataKind, Digest, Generator, Hasher, SEGMENT_BYTES, Verifier, decompress_all,
};
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use crate::cli::BagArgs;
use crate::payload::{Format, Payload};

/// The inputs of a bag in the order of its tasks, and what is made of them.
#[derive(Debug)]
pub(crate) struct Expected {
    bag: BagArgs,
    data: DataKind,
    /// What the outputs are compressed with once more.
    then: Option<Codec>,
    digests: Vec<Digest>,
}

impl Expected {
    /// Generates the inputs once more.
    pub(crate) fn of(bag: &BagArgs, data: DataKind, then: Option<Codec>) -> Self {
        let digest = |index| {
            let (mut segment, mut hasher) = (vec![0; SEGMENT_BYTES], Hasher::new());
            let mut generator = Generator::new(data, bag.seed, index, bag.bytes.as_u64());
            loop {
                match generator.fill(&mut segment) {
                    0 => return hasher.finish(),
                    filled => hasher.update(&segment[..filled]),
                }
            }
        };
        let digests = (0..bag.tasks).map(digest).collect();
        Self { bag: bag.clone(), data, then, digests }
    }

    /// Decompresses `out_N.bin`, `.gz`, `.zst` or `.zfp` of every task in a folder.
    ///
    /// # Errors
    ///
    /// The first output that is missing, cannot be read, or is of another input.
    pub(crate) fn check_outputs(&self, results: &Path) -> Result<()> {
        for (index, expected) in (0..).zip(&self.digests) {
            let is_right = self.is_right(results, index, *expected);
            let is_right = is_right.with_context(|| format!("read the output of task {index}"))?;
            ensure!(is_right, "the output of task {index} is not of its input");
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

    /// Whether the output of a task is of its input, whose digest is given.
    fn is_right(&self, results: &Path, index: u32, expected: Digest) -> Result<bool> {
        let codec = Payload::of(&self.bag.codec)?.format;
        let last = self.then.map_or(Ok(codec), |then| Payload::of(&then).map(|p| p.format))?;
        let mut opened = Opened::new(results, index, last)?;
        if self.then.is_none() && last != Format::Zfp {
            let digest = self.digest(&mut opened.reader)?;
            opened.end()?;
            return Ok(digest == expected);
        }
        let mut bytes = Vec::new();
        // Nothing of these codecs is twice its input, or a kilobyte.
        let most = 2 * self.bag.bytes.as_u64() + 1024;
        (&mut opened.reader).take(most).read_to_end(&mut bytes)?;
        opened.end()?;
        if codec == Format::Zfp {
            return Ok(self.is_near(index, &bytes));
        }
        Ok(Digest::of(&decompress_all(&self.bag.codec, &bytes)?) == expected)
    }

    /// Whether what zfp made is as near to the input as the codec promises.
    fn is_near(&self, index: u32, output: &[u8]) -> bool {
        let bytes = self.bag.bytes.as_u64();
        let mut input = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        let filled = Generator::new(self.data, self.bag.seed, index, bytes).fill(&mut input);
        let mut verifier = Verifier::new(&self.bag.codec);
        filled == input.len()
            && verifier.check(&input, output).and_then(|()| verifier.finish(&[])).is_ok()
    }

    /// The digest of what a reader gives, of one byte more than is right at most.
    fn digest(&self, reader: impl Read) -> Result<Digest> {
        let mut reader = reader.take(self.bag.bytes.as_u64() + 1);
        let (mut segment, mut hasher) = (vec![0; SEGMENT_BYTES], Hasher::new());
        loop {
            match reader.read(&mut segment)? {
                0 => return Ok(hasher.finish()),
                read => hasher.update(&segment[..read]),
            }
        }
    }
}

/// An output that is being decompressed; of zfp, the output itself.
struct Opened {
    reader: Box<dyn Read>,
    /// The program that does it.
    child: Option<Child>,
}

impl Opened {
    /// Looks for the output of a task; one that is called `.bin` has this format.
    fn new(results: &Path, index: u32, format: Format) -> Result<Self> {
        let open = |suffix: &str| File::open(results.join(format!("out_{index}.{suffix}")));
        let alone = |reader: Box<dyn Read>| Ok(Self { reader, child: None });
        if let Ok(file) = open("gz") {
            return alone(Box::new(MultiGzDecoder::new(BufReader::new(file))));
        }
        let (file, format) = match (open("bin"), open("zst"), open("zfp")) {
            (Ok(file), ..) => (file, format),
            (_, Ok(file), _) => (file, Format::Zstd),
            (_, _, Ok(file)) => (file, Format::Zfp),
            _ => bail!("there is none"),
        };
        match format {
            Format::Deflate => alone(Box::new(ZlibDecoder::new(BufReader::new(file)))),
            Format::Zfp => alone(Box::new(file)),
            Format::Zstd => {
                let mut zstd = Command::new("zstd");
                zstd.args(["-q", "-d", "-c"]).stdin(file).stdout(Stdio::piped());
                let mut child = zstd.spawn().context("start zstd")?;
                let reader = child.stdout.take().context("no stdout of zstd")?;
                Ok(Self { reader: Box::new(reader), child: Some(child) })
            }
        }
    }

    fn end(self) -> Result<()> {
        drop(self.reader);
        let Some(mut child) = self.child else { return Ok(()) };
        ensure!(child.wait()?.success(), "zstd refuses it");
        Ok(())
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
