//! A program of `bench/peers`: asked for its version, and run with a bag.
//!
//! How it is called is in `docs/benchmark.md`. It is a program, so that each peer is used in its own language and way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use bagpress_codec::{DataKind, Digest};
use serde::{Deserialize, Serialize};

use crate::cli::BagArgs;
use crate::machine::ms;
use crate::program::run;
use crate::systems::PeerKind;

/// A program that runs a bag with a system that is not ours.
#[derive(Debug)]
pub(crate) struct Peer {
    program: PathBuf,
    pub(crate) kind: PeerKind,
}

/// The bag, and how it is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) bag: &'a BagArgs,
    pub(crate) data: DataKind,
    pub(crate) workers: u16,
    /// How often the bag is run; the last is the one that counts, and is warm if it is not the first.
    pub(crate) bags: u32,
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct PeerRun {
    pub(crate) makespan_ms: f64,
    /// All of the process but bags after the first, and what was written for the check only.
    pub(crate) cold_ms: f64,
    /// What each task says, if the peer knows.
    pub(crate) tasks: Vec<TaskStats>,
}

/// What a task says about itself: `stats_N.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TaskStats {
    pub(crate) input_bytes: u64,
    pub(crate) output_bytes: u64,
    pub(crate) total_ms: f64,
}

/// What the program prints.
#[derive(Debug, Deserialize)]
struct Printed {
    makespan_ms: f64,
    extra_ms: f64,
    #[serde(default)]
    tasks: Vec<TaskStats>,
}

impl Peer {
    /// Looks for its file among the peers.
    pub(crate) fn find(folder: &Path, kind: PeerKind) -> Result<Self> {
        let program = folder.join(kind.file);
        let Ok(program) = program.canonicalize() else {
            bail!(
                "no {}: run this in a checkout of Bagpress, or name its bench/peers with --peers",
                program.display()
            );
        };
        Ok(Self { program, kind })
    }

    /// Its version, and those of what decides its speed.
    ///
    /// # Errors
    ///
    /// It is not installed; the message names `make bench-peers`.
    pub(crate) fn versions(&self) -> Result<Vec<String>> {
        let mut command = Command::new(&self.program);
        let output = command.arg("version").stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("start {}", self.program.display()))?;
        if !output.status.success() {
            // Its error and its hint are lines at a terminal; here they are one.
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim_end().replace("\nhint: ", "; ");
            bail!("{}", said.strip_prefix("error: ").unwrap_or(&said));
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Runs a bag; everything about it is in the folder afterwards, which must be empty.
    pub(crate) fn run(&self, case: &Case<'_>, folder: &Path, inputs: &Path) -> Result<PeerRun> {
        let results = folder.join("results");
        fs::create_dir_all(&results)?;
        let mut command = Command::new(&self.program);
        command.arg("run").envs(variables(case)?).env("FOLDER", folder).env("INPUTS", inputs);
        let ran = run::<Printed>(command, &folder.join(self.log()))?;
        let Printed { makespan_ms, extra_ms, mut tasks } = ran.printed;
        if tasks.is_empty() && results.join("stats_0.json").is_file() {
            tasks =
                (0..case.bag.tasks).map(|index| stats(&results, index)).collect::<Result<_>>()?;
        }
        Ok(PeerRun { makespan_ms, cold_ms: ms(ran.wall) - extra_ms, tasks })
    }

    /// The command as anybody can repeat it, without a path of this machine.
    pub(crate) fn shown(&self, case: &Case<'_>) -> Result<String> {
        let pairs = variables(case)?.map(|(name, value)| format!("{name}={value}"));
        Ok(format!("{} FOLDER=DIR INPUTS=DIR bench/peers/{} run", pairs.join(" "), self.kind.file))
    }

    fn log(&self) -> String {
        let name = self.kind.file.split(['.', '_']).next().unwrap_or(self.kind.file);
        format!("{name}.log")
    }
}

/// What a peer gets in its environment.
fn variables(case: &Case<'_>) -> Result<[(&'static str, String); 7]> {
    let Case { bag, data, workers, bags } = case;
    let key = Digest::of(format!("bagpress/1/{}", bag.seed).as_bytes()).to_string();
    Ok([
        ("TASKS", bag.tasks.to_string()),
        ("BYTES", bag.bytes.as_u64().to_string()),
        ("WORKERS", workers.to_string()),
        ("LEVEL", level(&bag.codec.to_string())?.to_string()),
        ("DATA", data.to_string()),
        ("KEY", key.strip_prefix("sha256:").unwrap_or(&key).to_owned()),
        ("BAGS", bags.to_string()),
    ])
}

/// The level that a peer's deflate gets: the number of a codec such as `zlib:6`, whatever follows it.
fn level(codec: &str) -> Result<u8> {
    let settings = codec.split_once(':').map(|(_, settings)| settings);
    let level = settings.and_then(|settings| settings.split(',').next()?.parse().ok());
    let level = level.with_context(|| format!("{codec} has no level that a peer could use"))?;
    ensure!(level <= 9, "{codec}: peers have levels from 0 to 9");
    Ok(level)
}

fn stats(results: &Path, index: u32) -> Result<TaskStats> {
    let text = fs::read_to_string(results.join(format!("stats_{index}.json")));
    let text = text.with_context(|| format!("read the stats of task {index}"))?;
    serde_json::from_str(&text).with_context(|| format!("understand the stats of task {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_get_the_level_of_a_codec_whatever_follows_it() {
        assert_eq!(level("zlib:6").unwrap(), 6);
        assert_eq!(level("zlib:6,full").unwrap(), 6);
        let refused = level("store").unwrap_err().to_string();
        assert!(refused.contains("store has no level"), "{refused}");
    }
}
