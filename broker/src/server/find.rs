//! Which nats-server is run.

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};

use crate::{Error, SERVER_VERSION_MIN, version_at_least};

const NAME: &str = "nats-server";
const VARIABLE: &str = "BAGPRESS_NATS_SERVER";
/// How long a program may take to say its version.
const VERSION_WITHIN: Duration = Duration::from_secs(5);
/// How much it may say.
const VERSION_BYTES: u64 = 1_024;

/// A nats-server program. It may be too old: a server says its version to who connects, so that a program is asked for it,
/// in a process of its own, only where there is a choice, or where it does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// How it was found, and under which name: for errors.
    found: String,
}

impl Program {
    /// Asks it for its version, for 5 s at most.
    ///
    /// # Errors
    ///
    /// [`Error::NoServerProgram`] if it is no nats-server; [`Error::TooOld`].
    pub fn version(&self) -> Result<String, Error> {
        let text = say_version(&self.path).map_err(|error| self.unusable(&error.to_string()))?;
        let version = text.split_whitespace().last().unwrap_or_default().trim_start_matches('v');
        if !text.starts_with(NAME) || version.is_empty() {
            return Err(self.unusable("it does not identify itself as nats-server"));
        }
        self.expect_fitting(version)?;
        Ok(version.to_owned())
    }

    /// # Errors
    ///
    /// [`Error::TooOld`] if that is its version.
    pub(super) fn expect_fitting(&self, version: &str) -> Result<(), Error> {
        if version_at_least(version, SERVER_VERSION_MIN) {
            return Ok(());
        }
        Err(Error::TooOld { found: version.to_owned(), place: crate::quote::name(&self.path) })
    }

    fn unusable(&self, why: &str) -> Error {
        Error::NoServerProgram { looked: format!("{}: {why}", self.found) }
    }
}

/// Finds the program: `explicit`, then `BAGPRESS_NATS_SERVER`, then `PATH`, then next to the running
/// program, then `.tools/bin` next to or above it, if only we or root can have put it there.
///
/// One that was named, or is the only one, is not asked for its version.
///
/// # Errors
///
/// [`Error::NoServerProgram`], naming what does not run or where we looked; [`Error::TooOld`] if there are several, and all
/// are. One that was named and does not fit is never passed over for another.
pub fn find_program(explicit: Option<&Path>) -> Result<Program, Error> {
    Places {
        explicit: explicit.map(Path::to_owned),
        variable: env::var_os(VARIABLE),
        path: env::var_os("PATH"),
        executable: env::current_exe().ok(),
    }
    .find()
}

/// Everything that decides which program is found.
#[derive(Debug, Default)]
struct Places {
    explicit: Option<PathBuf>,
    variable: Option<OsString>,
    path: Option<OsString>,
    executable: Option<PathBuf>,
}

impl Places {
    fn find(&self) -> Result<Program, Error> {
        if let Some(path) = &self.explicit {
            return named(path, "--nats-server names");
        }
        if let Some(path) = self.variable.as_ref().filter(|value| !value.is_empty()) {
            return named(Path::new(path), &format!("{VARIABLE} names"));
        }
        let candidates = self.candidates();
        let is_only = candidates.len() == 1;
        let mut first = None;
        for path in candidates {
            let program = named(&path, "there is");
            let asked =
                |program: &Program| if is_only { Ok(()) } else { program.version().map(drop) };
            match program.and_then(|program| asked(&program).map(|()| program)) {
                Ok(program) => return Ok(program),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| Error::NoServerProgram {
            looked: format!("looked at --nats-server, {VARIABLE}, PATH and .tools/bin"),
        }))
    }

    fn candidates(&self) -> Vec<PathBuf> {
        let mut folders: Vec<_> =
            self.path.iter().flat_map(|path| env::split_paths(path)).collect();
        if let Some(beside) = self.executable.as_deref().and_then(Path::parent) {
            folders.push(beside.to_owned());
            // In a checkout the program is target/<profile>/bagpress, or deps/ below it. Not the folder in which somebody
            // just is, nor one that another user made above the program: what lies there would be executed.
            let tools = beside.ancestors().take(5).map(|up| up.join(".tools"));
            let tools = tools.filter(|tools| is_ours(tools)).map(|tools| tools.join("bin"));
            folders.extend(tools.filter(|bin| is_ours(bin) && is_ours(&bin.join(NAME))));
        }
        let mut seen = HashSet::new();
        let there =
            folders.into_iter().map(|folder| folder.join(NAME)).filter(|path| path.is_file());
        // One folder may have two names, such as /bin and /usr/bin.
        there.filter(|path| path.canonicalize().is_ok_and(|path| seen.insert(path))).collect()
    }
}

/// Whether something is ours or root's, and not everybody's to write to.
fn is_ours(path: &Path) -> bool {
    let owners = [0, rustix::process::geteuid().as_raw()];
    path.metadata().is_ok_and(|found| owners.contains(&found.uid()) && found.mode() & 0o002 == 0)
}

/// The program at a path, if it can be executed.
fn named(path: &Path, found: &str) -> Result<Program, Error> {
    let found = format!("{found} {}", crate::quote::name(path));
    let mut program = Program { path: path.to_owned(), found };
    let executable = || -> io::Result<PathBuf> {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        access(path, Access::EXEC_OK)?;
        // A bare name is a file here, not one on PATH.
        std::path::absolute(path)
    };
    program.path = executable().map_err(|error| program.unusable(&error.to_string()))?;
    Ok(program)
}

fn say_version(path: &Path) -> io::Result<String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let since = Instant::now();
    while child.try_wait()?.is_none() {
        if since.elapsed() > VERSION_WITHIN {
            child.kill()?;
            child.wait()?;
            let why = format!("it does not print its version within {VERSION_WITHIN:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        thread::sleep(Duration::from_millis(1));
    }
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(VERSION_BYTES).read_to_end(&mut text)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    /// A program that prints `words`. Another process writes it: a program that is open for writing,
    /// even in a child that some other test has just forked, cannot be executed.
    fn fake(folder: &TempDir, place: &str, words: &str) -> PathBuf {
        let path = folder.path().join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let script = "printf '#!/bin/sh\\necho \"%s\"\\n' \"$1\" > \"$2\" && chmod +x \"$2\"";
        let written = Command::new("sh").args(["-c", script, "sh", words]).arg(&path).status();
        assert!(written.unwrap().success());
        path
    }

    fn version(places: &Places) -> Result<String, Error> {
        places.find()?.version()
    }

    #[test]
    fn one_that_was_named_or_is_the_only_one_is_not_asked_for_its_version() {
        let folder = tempfile::tempdir().unwrap();
        // It fails if it is asked.
        let named = fake(&folder, "path/nats-server", "something else v9.9.9");
        let path = named.parent().unwrap().to_owned();
        let other_name = folder.path().join("other-name");
        std::os::unix::fs::symlink(&path, &other_name).unwrap();
        let twice = env::join_paths([&path, &other_name]).unwrap();
        let explicit = Places { explicit: Some(named.clone()), ..Places::default() };
        let only = Places { path: Some(twice), ..Places::default() };
        for places in [explicit, only] {
            assert_eq!(places.find().unwrap().path, named);
            assert!(matches!(version(&places), Err(Error::NoServerProgram { .. })));
        }
    }

    #[test]
    fn what_cannot_be_executed_is_refused_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        fs::write(&text, "no program").unwrap();
        for (path, why) in
            [(text, "Permission denied"), (folder.path().to_owned(), "it is no file")]
        {
            let places = Places { explicit: Some(path), ..Places::default() };
            let error = places.find().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_first_place_that_has_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let at =
            |place: &str, patch: u32| fake(&folder, place, &format!("nats-server: v2.15.{patch}"));
        let mut places = Places {
            explicit: Some(at("explicit", 1)),
            variable: Some(at("variable", 2).into()),
            path: Some(at("path/nats-server", 3).parent().unwrap().into()),
            executable: Some(folder.path().join("checkout/target/debug/bagpress")),
        };
        at("checkout/.tools/bin/nats-server", 5);
        at("checkout/target/debug/nats-server", 6);
        let found = |places: &Places| version(places).unwrap();
        assert_eq!(found(&places), "2.15.1");
        places.explicit = None;
        assert_eq!(found(&places), "2.15.2");
        places.variable = Some(OsString::new());
        assert_eq!(found(&places), "2.15.3");
        places.path = None;
        assert_eq!(found(&places), "2.15.6");
        fs::remove_file(folder.path().join("checkout/target/debug/nats-server")).unwrap();
        assert_eq!(found(&places), "2.15.5");
    }

    /// Above a program in a shared folder anybody may have made `.tools`.
    #[test]
    fn what_others_can_write_to_is_not_executed() {
        let folder = tempfile::tempdir().unwrap();
        let planted = fake(&folder, ".tools/bin/nats-server", "nats-server: v2.15.1");
        let executable = Some(folder.path().join("bin/bagpress"));
        let places = Places { executable, ..Places::default() };
        assert_eq!(version(&places).unwrap(), "2.15.1");
        let bin = planted.parent().unwrap();
        for path in [&planted, bin, bin.parent().unwrap()] {
            let mode = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            mode(0o777);
            assert!(places.find().is_err(), "{}", path.display());
            mode(0o755);
        }
    }

    #[test]
    fn one_that_was_named_is_never_passed_over_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let good = fake(&folder, "path/nats-server", "nats-server: v2.15.1");
        let path = Some(good.parent().unwrap().into());
        let missing = folder.path().join("missing");
        let named = |explicit: Option<PathBuf>, variable: Option<PathBuf>| {
            let variable = variable.map(PathBuf::into_os_string);
            let places = Places { explicit, variable, path: path.clone(), ..Places::default() };
            version(&places).unwrap_err().to_string()
        };
        let why = named(Some(missing.clone()), Some(good.clone()));
        assert!(why.contains(&format!("--nats-server names {}", missing.display())), "{why}");
        let why = named(None, Some(missing.clone()));
        assert!(why.contains(&format!("{VARIABLE} names {}", missing.display())), "{why}");
        let other = fake(&folder, "other", "something else v9.9.9");
        let why = named(Some(other), None);
        assert!(why.contains("it does not identify itself as nats-server"), "{why}");
    }

    #[test]
    fn one_that_is_too_old_is_refused_when_named_and_passed_over_when_found() {
        let folder = tempfile::tempdir().unwrap();
        let old = fake(&folder, "path/nats-server", "nats-server: v2.9.10");
        let mut places = Places { explicit: Some(old.clone()), ..Places::default() };
        let error = version(&places).unwrap_err();
        assert!(matches!(&error, Error::TooOld { found, .. } if found == "2.9.10"), "{error}");
        places.explicit = None;
        places.path = Some(old.parent().unwrap().into());
        assert!(matches!(version(&places).unwrap_err(), Error::TooOld { .. }));
        places.executable = Some(folder.path().join("bin/bagpress"));
        fake(&folder, ".tools/bin/nats-server", "nats-server: v2.11.0");
        assert_eq!(version(&places).unwrap(), "2.11.0");
    }

    #[test]
    fn without_any_the_places_are_listed() {
        let why = Places::default().find().unwrap_err().to_string();
        for place in ["--nats-server", VARIABLE, "PATH", ".tools/bin"] {
            assert!(why.contains(place), "{why}");
        }
    }
}
