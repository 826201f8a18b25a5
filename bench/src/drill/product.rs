//! The verbs of the program under test, as a lane calls them.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::bag::Bag;
use super::remains::LOOK;
use crate::program::Bagpress;

/// Lines of a log that an error quotes.
const LINES_SAID: usize = 12;

/// The program, and the server that is named to it.
#[derive(Debug)]
pub(super) struct Product {
    pub(super) bagpress: Bagpress,
    pub(super) url: String,
    /// Folder of logs, one for each bag.
    pub(super) logs: PathBuf,
}

impl Product {
    fn log(&self, bag: &Bag) -> PathBuf {
        self.logs.join(format!("{}.log", bag.shape.name()))
    }

    /// The last lines of what was said about a bag.
    fn said_last(&self, bag: &Bag) -> String {
        let said = fs::read(self.log(bag)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<_> = said.lines().rev().take(LINES_SAID).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }

    pub(super) fn spawn(&self, mut command: Command, bag: &Bag) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(bag))?;
        command.args(["--server", &self.url]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().context("start the program")
    }

    /// Begins a bag, or continues it with `more` flags.
    pub(super) fn gather(&self, bag: &Bag, more: &[&str]) -> Result<Child> {
        let mut command = if bag.run.join("bag.json").is_file() {
            let mut command = self.bagpress.guarded("gather");
            command.arg(&bag.run).args(more);
            command
        } else {
            bag.command(&self.bagpress)
        };
        command.args(["--quiet", "--stall-timeout", "1h"]);
        self.spawn(command, bag)
    }

    /// The exit code of `verify`; asked again while it blames the broker, or a bag that is good.
    pub(super) fn verify(&self, bag: &Bag, good: bool) -> Result<Option<i32>> {
        let verify = || {
            let mut command = self.bagpress.guarded("verify");
            command.arg(&bag.run);
            Ok(self.spawn(command, bag)?.wait()?.code())
        };
        LOOK.until(verify, |code| match code {
            Some(code) => *code == 0 || !good && *code < 2,
            None => false,
        })
    }

    /// Removes a bag and its outputs, again until its run folder is gone.
    pub(super) fn remove(&self, bag: &Bag) -> Result<()> {
        self.remove_run(bag, &bag.run)
    }

    /// The same of a run that goes with a bag.
    pub(super) fn remove_run(&self, bag: &Bag, run: &Path) -> Result<()> {
        LOOK.run(|| {
            let mut command = self.bagpress.guarded("rm");
            command.arg(run).arg("--outputs");
            self.spawn(command, bag)?.wait()?;
            ensure!(
                !run.exists(),
                "`rm {}` fails all the time: {}; in it {:?}",
                run.display(),
                self.said_last(bag),
                fs::read_dir(run).map(|all| all.flatten().map(|of| of.path()).collect::<Vec<_>>())
            );
            Ok(())
        })
    }
}
