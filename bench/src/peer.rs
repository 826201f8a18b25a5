//! A program of `bench/peers`: asked for its version, and run with a bag.
//!
//! How it is called is in `docs/benchmark.md`. It is a program, so that each peer is used in its own language and way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use bagpress_codec::{Codec, DataKind, Digest};
use serde::{Deserialize, Serialize};

use crate::cli::BagArgs;
use crate::machine::ms;
use crate::payload::Payload;
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
    /// What its outputs are compressed with once more, by reference.
    pub(crate) then: Option<&'a Codec>,
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
    /// It is not installed, or not what it needs for these codecs; the message names `make bench-peers`.
    pub(crate) fn versions(&self, codec: &Codec, then: Option<&Codec>) -> Result<Vec<String>> {
        let mut command = Command::new(&self.program);
        command.arg("version").envs(codecs(codec, then)?);
        let output = command.stdin(Stdio::null()).output();
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
        let pairs: Vec<_> =
            variables(case)?.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(format!("{} FOLDER=DIR INPUTS=DIR bench/peers/{} run", pairs.join(" "), self.kind.file))
    }

    fn log(&self) -> String {
        let name = self.kind.file.split(['.', '_']).next().unwrap_or(self.kind.file);
        format!("{name}.log")
    }
}

/// What a peer gets in its environment.
fn variables(case: &Case<'_>) -> Result<Vec<(&'static str, String)>> {
    let Case { bag, data, workers, bags, then } = case;
    let key = Digest::of(format!("bagpress/1/{}", bag.seed).as_bytes()).to_string();
    let mut variables = vec![
        ("TASKS", bag.tasks.to_string()),
        ("BYTES", bag.bytes.as_u64().to_string()),
        ("WORKERS", workers.to_string()),
        ("LEVEL", Payload::of(&bag.codec)?.level),
        ("DATA", data.to_string()),
        ("KEY", key.strip_prefix("sha256:").unwrap_or(&key).to_owned()),
    ];
    variables.extend(codecs(&bag.codec, *then)?);
    variables.push(("BAGS", bags.to_string()));
    Ok(variables)
}

fn codecs(codec: &Codec, then: Option<&Codec>) -> Result<Vec<(&'static str, String)>> {
    let mut variables = vec![("CODEC", Payload::of(codec)?.codec)];
    if let Some(then) = then {
        variables.push(("THEN", Payload::of(then)?.codec));
    }
    Ok(variables)
}

fn stats(results: &Path, index: u32) -> Result<TaskStats> {
    let text = fs::read_to_string(results.join(format!("stats_{index}.json")));
    let text = text.with_context(|| format!("read the stats of task {index}"))?;
    serde_json::from_str(&text).with_context(|| format!("understand the stats of task {index}"))
}
