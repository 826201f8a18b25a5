//! A bag of the drill: its inputs, its command, and what each of its outputs must decompress to.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_codec::Generator;
use flate2::read::{GzDecoder, ZlibDecoder};
use serde_json::Value;

use super::plan::{BLOCK_BYTES, Dice, Inputs, Shape};
use crate::program::Bagpress;

/// Folder of the outputs that have no name yet, in that of the outputs: in it each bag has one.
pub(super) const PARTS: &str = ".bagpress-part";

/// Folders of a bag.
#[derive(Debug, Clone)]
pub(super) struct Bag {
    pub(super) shape: Shape,
    /// The run's folder.
    pub(super) run: PathBuf,
    runs: PathBuf,
    /// The tree of real files, if it is of files.
    tree: Option<PathBuf>,
    /// Where outputs of files go.
    out: Option<PathBuf>,
}

impl Bag {
    /// Makes the bag's inputs below `inputs`; its run folder and outputs will be below `runs`.
    pub(super) fn prepare(shape: Shape, inputs: &Path, runs: &Path) -> Result<Self> {
        let name = shape.name();
        let run = runs.join(&name).join(shape.results.as_str());
        let tree = match shape.inputs {
            Inputs::Files { seed, files, large, .. } => {
                let tree = inputs.join(&name);
                make_tree(&tree, seed, files, large)
                    .with_context(|| format!("make {}", tree.display()))?;
                Some(tree)
            }
            Inputs::Generated { .. } => None,
        };
        let out = (tree.is_some() && shape.has_files()).then(|| runs.join(format!("{name}-out")));
        Ok(Self { shape, run, runs: runs.to_owned(), tree, out })
    }

    /// The command line that makes the bag and gathers it.
    pub(super) fn command(&self, bagpress: &Bagpress) -> std::process::Command {
        let shape = &self.shape;
        let mut command = bagpress.guarded("run");
        command.args(["--name", &shape.name(), "--runs"]).arg(&self.runs);
        command.args(["--codec", &shape.codec.to_string(), "--results", shape.results.as_str()]);
        command.args(["--delivery", shape.delivery.as_str()]);
        command.args(["--transfer", if shape.wire { "wire" } else { "auto" }, "--stats", "never"]);
        // Workers are killed all the time: that must not make a task a poisoned one.
        command.args(["--attempts", "1000"]);
        match &shape.inputs {
            Inputs::Generated { data, seed, tasks, bytes } => {
                command.args(["--tasks", &tasks.to_string(), "--bytes", &bytes.to_string()]);
                command.args(["--data", &data.to_string(), "--seed", &seed.to_string()]);
                if shape.fetched {
                    command.arg("--get");
                }
            }
            Inputs::Files { pack, .. } => {
                command.args(["--pack", &pack.to_string()]);
                if shape.has_blocks() {
                    command.args(["--block", &BLOCK_BYTES.to_string()]);
                }
                command.args(&self.tree);
                if let Some(out) = &self.out {
                    command.arg("--out").arg(out);
                }
            }
        }
        command
    }

    /// The ledger of the run.
    pub(super) fn ledger(&self) -> PathBuf {
        self.run.join("manifest.jsonl")
    }

    /// The folder below which outputs become files.
    pub(super) fn root(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| self.run.join("results"))
    }

    /// A file that holds the output of a block, if there is one.
    pub(super) fn part_of_block(&self, index: u32) -> Option<PathBuf> {
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        let mut parts = entries(&self.root().join(PARTS)).flat_map(|bag| entries(&bag.path()));
        let name = format!("{index}.");
        let is_its =
            |entry: &fs::DirEntry| entry.file_name().as_bytes().starts_with(name.as_bytes());
        parts.find(is_its).map(|entry| entry.path())
    }

    /// The file that a task's output becomes, and the file that it comes from if there is one.
    pub(super) fn files(&self, index: u32) -> Result<(PathBuf, Option<PathBuf>)> {
        let Some(tree) = &self.tree else {
            return Ok((self.root().join(format!("out_{index}.bin")), None));
        };
        let list = fs::read_to_string(self.run.join("inputs.jsonl")).context("read the list")?;
        let line = list.lines().nth(index as usize).context("the list is too short")?;
        let line: Value = serde_json::from_str(line).context("read the list")?;
        let source = path_of(&line["path"]).context("a line without a path")?;
        let below = source.strip_prefix(tree.parent().unwrap_or(tree)).context("a foreign path")?;
        let mut target = self.root().join(below).into_os_string();
        target.push(self.extension());
        Ok((target.into(), Some(source)))
    }

    fn extension(&self) -> &'static str {
        self.shape.codec.extension()
    }

    /// The input of a task.
    pub(super) fn input(&self, index: u32) -> Result<Vec<u8>> {
        match self.shape.inputs {
            Inputs::Generated { data, seed, bytes, .. } => {
                let mut input = vec![0; usize::try_from(bytes)?];
                let mut generator = Generator::new(data, seed, index, bytes);
                let mut filled = 0;
                while filled < input.len() {
                    filled += generator.fill(&mut input[filled..]);
                }
                Ok(input)
            }
            Inputs::Files { .. } => {
                let source = self.files(index)?.1.context("no such file")?;
                fs::read(&source).with_context(|| format!("read {}", source.display()))
            }
        }
    }

    /// Fails unless `output` decompresses to the input of a task.
    pub(super) fn check(&self, index: u32, output: &[u8]) -> Result<()> {
        let mut input = Vec::new();
        let rest = match self.extension() {
            ".gz" => {
                let mut decoder = GzDecoder::new(output);
                decoder.read_to_end(&mut input).context("decompress")?;
                decoder.into_inner().len()
            }
            ".zz" => {
                let mut decoder = ZlibDecoder::new(output);
                decoder.read_to_end(&mut input).context("decompress")?;
                decoder.into_inner().len()
            }
            _ if self.shape.codec.to_string() != "store" => anyhow::bail!("an unknown codec"),
            _ => {
                input.extend_from_slice(output);
                0
            }
        };
        anyhow::ensure!(rest == 0, "{rest} bytes follow its end");
        anyhow::ensure!(input == self.input(index)?, "it decompresses to something else");
        Ok(())
    }

    /// Outputs that are still there; those that were set aside as damaged may stay.
    pub(super) fn outputs_left(&self) -> Result<Vec<String>> {
        let (mut left, mut folders) = (Vec::new(), vec![self.root()]);
        while let Some(folder) = folders.pop() {
            if !folder.is_dir() || folder.ends_with(".bad") {
                continue;
            }
            for entry in fs::read_dir(&folder).context("look at the outputs")? {
                let path = entry.context("look at the outputs")?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    left.push(path.display().to_string());
                }
            }
        }
        Ok(left)
    }

    /// Removes all that the bag has left on disk.
    pub(super) fn remove(&self) -> Result<()> {
        let run = self.runs.join(self.shape.name());
        for folder in [Some(&run), self.tree.as_ref(), self.out.as_ref()].into_iter().flatten() {
            if folder.exists() {
                fs::remove_dir_all(folder)
                    .with_context(|| format!("remove {}", folder.display()))?;
            }
        }
        Ok(())
    }

    /// Copies the run folder, the outputs and the inputs, for somebody to look at.
    pub(super) fn keep(&self, into: &Path) -> Result<()> {
        let mut copy = std::process::Command::new("cp");
        let folders = [Some(&self.run), self.out.as_ref(), self.tree.as_ref()];
        copy.arg("-a")
            .args(folders.into_iter().flatten().filter(|folder| folder.exists()))
            .arg(into);
        anyhow::ensure!(copy.status()?.success(), "cp failed");
        Ok(())
    }
}

/// A path of the list: a string, or its bytes in base64.
fn path_of(value: &Value) -> Option<PathBuf> {
    if let Some(text) = value.as_str() {
        return Some(text.into());
    }
    let bytes = data_encoding::BASE64.decode(value["base64"].as_str()?.as_bytes()).ok()?;
    Some(std::ffi::OsString::from_vec(bytes).into())
}

/// Names of all sorts; sizes from nothing to several chunks; folders in folders.
fn make_tree(tree: &Path, seed: u64, files: u32, large: u32) -> Result<()> {
    let mut dice = Dice::new(seed, "tree");
    for number in 0..files + large {
        let folder = match dice.below(4) {
            0 => tree.to_owned(),
            1 => tree.join("with spaces"),
            2 => tree.join("größe/深い"),
            _ => tree.join("a/b/c"),
        };
        fs::create_dir_all(&folder)?;
        let name = match dice.below(5) {
            0 => format!("{number}.txt").into(),
            1 => format!(" {number} 'quoted' \"name\" ").into(),
            2 => format!("naïve-{number}-🗜.md").into(),
            3 => format!("-{number}\n--out").into(),
            // Not UTF-8.
            _ => {
                std::ffi::OsString::from_vec([b"caf\xe9-", number.to_string().as_bytes()].concat())
            }
        };
        let bytes = match dice.below(6) {
            // Some end where a block does.
            0 if number >= files => dice.between(3, 9) << 20,
            _ if number >= files => dice.between(3 << 20, 9 << 20),
            0 => 0,
            1 => dice.below(10),
            2 => 512 * 1024,
            3 => dice.below(1_200_000),
            _ => dice.below(200_000),
        };
        let mut content = vec![0; bytes as usize];
        dice.fill(&mut content);
        if dice.one_in(2) {
            // Compressible: few different bytes.
            for byte in &mut content {
                *byte &= 3;
            }
        }
        fs::write(folder.join(name), content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn contents(tree: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![tree.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(tree).unwrap().to_owned();
                    found.insert(name, fs::read(path).unwrap());
                }
            }
        }
        found
    }

    #[test]
    fn a_tree_has_so_many_files_and_is_the_same_for_the_same_seed() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        make_tree(&one, 7, 60, 2).unwrap();
        make_tree(&two, 7, 60, 2).unwrap();
        let files = contents(&one);
        assert_eq!(files.len(), 62);
        let large = files.values().filter(|content| content.len() >= 3 << 20);
        assert_eq!(large.count(), 2);
        assert!(files.values().any(Vec::is_empty));
        assert!(files.keys().any(|name| name.to_str().is_none()));
        assert_eq!(files, contents(&two));
    }
}
