//! Which nats-server is run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, SERVER_VERSION_MIN, version_at_least};

const NAME: &str = "nats-server";
const VARIABLE: &str = "BAGPRESS_NATS_SERVER";

/// A nats-server program that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Its version.
    pub version: String,
}

/// Finds the program: `explicit`, then `BAGPRESS_NATS_SERVER`, then `PATH`, then `.tools/bin` here and
/// beside the running program.
///
/// # Errors
///
/// [`Error::NoServerProgram`], naming what does not run or where we looked; [`Error::TooOld`]. One that
/// was named and does not fit is never passed over for another.
pub fn find_program(explicit: Option<&Path>) -> Result<Program, Error> {
    if let Some(path) = explicit {
        return check(path, "--nats-server");
    }
    if let Some(path) = env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return check(Path::new(&path), VARIABLE);
    }
    let mut too_old = None;
    for path in candidates() {
        match check(&path, "") {
            Ok(program) => return Ok(program),
            Err(error @ Error::TooOld { .. }) => too_old = too_old.or(Some(error)),
            Err(_) => {}
        }
    }
    Err(too_old.unwrap_or_else(|| Error::NoServerProgram {
        looked: format!("looked at --nats-server, {VARIABLE}, PATH and .tools/bin"),
    }))
}

fn candidates() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&path).collect();
    folders.push(PathBuf::from(".tools/bin"));
    if let Ok(executable) = env::current_exe() {
        // In a checkout the program is target/<profile>/bagpress, or deps/ below it.
        folders.extend(executable.ancestors().skip(1).take(5).map(|up| up.join(".tools/bin")));
    }
    folders.into_iter().map(|folder| folder.join(NAME)).filter(|path| path.is_file()).collect()
}

fn check(path: &Path, named_by: &str) -> Result<Program, Error> {
    let unusable = |why: &str| Error::NoServerProgram {
        looked: format!("{named_by} names {}: {why}", path.display()),
    };
    let output = Command::new(path).arg("--version").output();
    let output = output.map_err(|error| unusable(&error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().last().unwrap_or_default().trim_start_matches('v');
    if !text.starts_with(NAME) || version.is_empty() {
        return Err(unusable("it does not say that it is a nats-server"));
    }
    if !version_at_least(version, SERVER_VERSION_MIN) {
        let place = path.display().to_string();
        return Err(Error::TooOld { found: version.to_owned(), place });
    }
    Ok(Program { path: path.to_owned(), version: version.to_owned() })
}
