//! Every single run, written down as soon as it is over: a later crash loses nothing.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::machine::Machine;

/// A file of JSON lines, or nothing.
#[derive(Debug)]
pub(crate) struct Raw(Option<File>);

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

impl Raw {
    /// Appends to `path`, if there is one.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let open = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("open {}", path.display()))
        };
        path.map(open).transpose().map(Self)
    }

    pub(crate) fn write(
        &mut self,
        verb: &str,
        round: u32,
        run: &impl Serialize,
        others_busy: f64,
    ) -> Result<()> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        let line = serde_json::to_string(&Line {
            verb,
            round,
            others_busy,
            machine: Machine::now(),
            run,
        })?;
        writeln!(file, "{line}").context("write a raw line")
    }
}
