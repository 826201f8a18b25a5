//! Programs under measurement: found, run, timed, watched.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bagpress_broker::server::Guard;
use bagpress_codec::DataKind;
use bagpress_producer::Summary;
use rustix::process::Signal;
use serde::de::DeserializeOwned;

use crate::cli::BagArgs;
use crate::machine;
use crate::retry::Retry;

/// A process obeys SIGTERM within this, or is called a leftover.
const END: Retry = Retry { every: Duration::from_millis(10), within: Duration::from_secs(30) };

/// The `bagpress` program.
#[derive(Debug, Clone)]
pub(crate) struct Bagpress {
    path: PathBuf,
    /// The file with the token of the server that is named to it.
    token: Option<PathBuf>,
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Ran<T> {
    /// What it printed.
    pub(crate) printed: T,
    /// From before it was started to after it ended.
    pub(crate) wall: Duration,
}

impl Bagpress {
    /// Takes the one that was named, or the one next to this program.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => {
                std::env::current_exe().context("find this program")?.with_file_name("bagpress")
            }
        };
        if !path.is_file() {
            bail!(
                "no {}: build it with `cargo build --release`, or name it with --bagpress",
                path.display()
            );
        }
        Ok(Self { path, token: None })
    }

    /// The same, for a server whose token is in this file.
    pub(crate) fn with_token(self, file: PathBuf) -> Self {
        Self { token: Some(file), ..self }
    }

    /// One of its verbs. Of exported variables only that of the server program counts.
    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.arg(verb);
        self.settings(&mut command);
        command
    }

    /// The same; the process dies with the thread that starts it.
    pub(crate) fn guarded(&self, verb: &str) -> Command {
        let mut command = Guard { executable: self.path.clone() }.command(&self.path);
        command.arg(verb);
        self.settings(&mut command);
        command
    }

    fn settings(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("BAGPRESS_") && text != "BAGPRESS_NATS_SERVER" {
                command.env_remove(&name);
            }
        }
        if let Some(file) = &self.token {
            command.env("BAGPRESS_TOKEN_FILE", file);
        }
    }

    /// `run` of a generated bag, in `runs`.
    pub(crate) fn run(&self, bag: &BagArgs, data: DataKind, runs: &Path, name: &str) -> Command {
        let mut command = self.command("run");
        command
            .args(bag_arguments(bag, data))
            .arg("--runs")
            .arg(runs)
            .args(["--name", name, "--quiet", "--json"]);
        if data.is_the_same_for_all() {
            // Each is to be measured.
            command.arg("--no-dedup");
        }
        command
    }
}

/// The bag as both programs' command lines say it.
pub(crate) fn bag_arguments(bag: &BagArgs, data: DataKind) -> Vec<String> {
    let BagArgs { tasks, bytes, codec, seed } = bag;
    let pairs = [
        ("--tasks", tasks.to_string()),
        ("--bytes", bytes.as_u64().to_string()),
        ("--codec", codec.to_string()),
        ("--data", data.to_string()),
        ("--seed", seed.to_string()),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

/// Runs a program that prints JSON.
pub(crate) fn run<T: DeserializeOwned>(command: Command, log: &Path) -> Result<Ran<T>> {
    let (ran, ()) = run_watched(command, log, |_, _| ())?;
    Ok(ran)
}

/// Runs a bag and insists that each task was done.
pub(crate) fn run_bag<W: Send>(
    command: Command,
    log: &Path,
    watch: impl FnOnce(u32, &Receiver<()>) -> W + Send,
) -> Result<(Ran<Summary>, W)> {
    let (ran, watched) = run_watched::<Summary, W>(command, log, watch)?;
    let Summary { tasks, completed, .. } = ran.printed;
    ensure!(completed == tasks, "{completed} of {tasks} tasks done: this measures nothing");
    Ok((ran, watched))
}

/// Runs a program and, on another thread, `watch`, which gets its process id and hears of its end.
fn run_watched<T: DeserializeOwned, W: Send>(
    mut command: Command,
    log: &Path,
    watch: impl FnOnce(u32, &Receiver<()>) -> W + Send,
) -> Result<(Ran<T>, W)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(log)?);
    let name = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?")).to_owned();
    let (ended, end) = mpsc::channel();
    let began = Instant::now();
    let child = command.spawn().with_context(|| format!("start {}", name.display()))?;
    let pid = child.id();
    let (output, wall, watched) = std::thread::scope(|scope| {
        let watching = scope.spawn(move || watch(pid, &end));
        let output = child.wait_with_output();
        let wall = began.elapsed();
        drop(ended);
        (output, wall, watching.join())
    });
    let output = output?;
    if !output.status.success() {
        let said = fs::read_to_string(log).unwrap_or_default();
        bail!("{} ended with {}:\n{}", name.display(), output.status, said.trim_end());
    }
    let Ok(watched) = watched else { bail!("the watching thread panicked") };
    let printed = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("read what {} printed", name.display()))?;
    Ok((Ran { printed, wall }, watched))
}

/// Ends a process by SIGTERM; kills it, and says so, if it does not obey.
pub(crate) fn end(mut child: Child, what: &str) -> Result<Option<String>> {
    // It was not waited for, so its number is still its own, even if it has ended by itself.
    machine::send(child.id(), Signal::TERM);
    let ended = END.until(|| Ok(child.try_wait()?), Option::is_some)?;
    if ended.is_some() {
        return Ok(None);
    }
    child.kill()?;
    child.wait()?;
    Ok(Some(format!("{what}, process {}, did not end within {:?}", child.id(), END.within)))
}
