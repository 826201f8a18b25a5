//! What one measurement works with; every single run is written down as soon as it is over: a later crash loses nothing.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use tempfile::TempDir;

use crate::cli::Measuring;
use crate::machine::Machine;
use crate::program::Bagpress;
use crate::quiet::Quiet;

/// The program, a folder, and the rules of one measurement.
#[derive(Debug)]
pub(crate) struct Session {
    verb: &'static str,
    bagpress: Bagpress,
    folder: TempDir,
    quiet: Quiet,
    /// The file of raw lines, if one is wanted.
    raw: Option<File>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    verb: &'a str,
    round: u32,
    /// Share of all cores that other work had meanwhile.
    others_busy: f64,
    #[serde(flatten)]
    machine: Machine,
    #[serde(flatten)]
    run: &'a T,
}

impl Session {
    pub(crate) fn begin(verb: &'static str, args: &Measuring) -> Result<Self> {
        let open = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("open {}", path.display()))
        };
        Ok(Self {
            verb,
            bagpress: Bagpress::find(args.bagpress.as_deref())?,
            folder: temporary(&args.dir)?,
            quiet: args.quiet(),
            raw: args.raw.as_deref().map(open).transpose()?,
        })
    }

    /// Writes a raw line about all runs that follow.
    pub(crate) fn note(&mut self, about: &impl Serialize) -> Result<()> {
        #[derive(Serialize)]
        struct Note<'a, T> {
            verb: &'a str,
            #[serde(flatten)]
            about: &'a T,
        }
        let line = serde_json::to_string(&Note { verb: self.verb, about })?;
        self.write(&line)
    }

    fn write(&mut self, line: &str) -> Result<()> {
        self.raw
            .as_mut()
            .map_or(Ok(()), |file| writeln!(file, "{line}"))
            .context("write a raw line")
    }

    /// Measures one run, in a round, in quiet; gives it the program and the folder.
    pub(crate) fn measure<T: Serialize>(
        &mut self,
        round: u32,
        mut run: impl FnMut(&Bagpress, &Path) -> Result<T>,
    ) -> Result<T> {
        let (ran, others_busy) = self.quiet.run(|| run(&self.bagpress, self.folder.path()))?;
        let (verb, machine, run) = (self.verb, Machine::now(), &ran);
        let line = serde_json::to_string(&Line { verb, round, others_busy, machine, run })?;
        self.write(&line)?;
        Ok(ran)
    }
}

/// A folder that goes when it is dropped.
pub(crate) fn temporary(below: &Path) -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("bagpress-bench-").tempdir_in(below);
    made.with_context(|| format!("make a temporary folder in {}", below.display()))
}
