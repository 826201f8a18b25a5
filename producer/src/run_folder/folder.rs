//! A run's folder: where everything is that one run leaves behind.
//!
//! It is held, not named: what was looked at is what is read, written and removed, whatever its path leads to meanwhile.
//! A file in it that says what is done is believed only if [`Trust`] allows it, and no link is followed.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::RunName;
use bagpress_broker::quote::name;
use bagpress_objstore::beneath::Dir;
use rustix::fs::{Mode, OFlags, fstat};
use rustix::io::Errno;

use crate::error::Usage;
use crate::run_folder::trust::Trust;

/// The specification.
pub(crate) const SPECIFICATION: &str = "bag.json";
/// The files of a bag of files.
pub(crate) const INPUTS: &str = "inputs.jsonl";
/// The folders without files of a bag of files.
pub(crate) const FOLDERS: &str = "folders.jsonl";
/// Files that seem to have the content of others.
pub(crate) const TWINS: &str = "twins.jsonl";
/// Outputs of earlier runs that files may have.
pub(crate) const EARLIER: &str = "earlier.jsonl";
/// The ledger.
pub(crate) const MANIFEST: &str = "manifest.jsonl";
/// Why deliveries were given back, when the server that knew is gone.
pub(crate) const ATTEMPTS: &str = "attempts.jsonl";
/// The failed tasks, if there are any when it is summed up.
pub(crate) const FAILED: &str = "failed.txt";
/// What the run came to, for people.
pub(crate) const SUMMARY_TEXT: &str = "summary.txt";
/// What the run came to, for programs: where it is, the run is over.
pub(crate) const SUMMARY: &str = "summary.json";
/// Where the run's bag is.
pub(crate) const SERVER: &str = "server.txt";
/// Which process gathers it.
pub(crate) const LOCK: &str = ".lock";
/// Outputs of a run that has no other folder for them, and stats.
pub(crate) const RESULTS: &str = "results";
/// Logs of the run's own processes.
pub(crate) const LOGS: &str = "logs";
/// The store of the run's own server.
pub(crate) const STORE: &str = ".broker";

/// Mode of the folders above a run's own, if missing: users who may enter see the names of runs.
const ABOVE_MODE: u32 = 0o755;

/// `runs/<name>/<staged|objects>/`, held.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
    held: Dir,
    trust: Trust,
}

impl RunFolder {
    /// Where the folder of run `name` is, with results by `results`, below `runs`.
    #[must_use]
    pub fn path_of(runs: &Path, name: &RunName, results: ResultPath) -> PathBuf {
        runs.join(name.as_str()).join(results.as_str())
    }

    /// Makes it, with what belongs in it, for its owner alone; one that is there is used.
    ///
    /// # Errors
    ///
    /// [`Usage`] if that is not possible, or if the one that is there is not believed.
    pub fn make(runs: &Path, name: &RunName, results: ResultPath, trust: Trust) -> Result<Self> {
        let path = Self::path_of(runs, name, results);
        let around = runs.join(name.as_str());
        let is_new = path.symlink_metadata().is_err();
        DirBuilder::new()
            .recursive(true)
            .mode(ABOVE_MODE)
            .create(runs)
            .map_err(|error| cannot_be_made(&path, &error))?;
        let made = Dir::open(runs).and_then(|runs| make_dir(&runs, name.as_str()));
        let run = made.map_err(|error| cannot_be_made(&path, &error))?;
        trust.check(&around, &fstat(&run)?)?;
        let held = make_dir(&run, results.as_str());
        let folder = Self { held: held.map_err(|e| cannot_be_made(&path, &e))?, path, trust };
        let made = folder.check().and_then(|()| folder.make_inside());
        // What was there before is somebody's, and may be a run's.
        made.inspect_err(|_| {
            if is_new {
                folder.remove_empty();
            }
        })?;
        Ok(folder)
    }

    /// A folder that somebody named: links to it are followed, and what they lead to is looked at.
    ///
    /// # Errors
    ///
    /// [`Usage`] if it holds no run, or is not believed.
    pub fn existing(path: &Path, trust: Trust) -> Result<Self> {
        let held = match Dir::open(path) {
            Ok(held) => held,
            Err(error) if is_absent(&error) => return Err(no_run(path)),
            Err(error) => {
                return Err(Usage::error(
                    format!("the run folder {} cannot be opened: {error}", name(path)),
                    "name a folder that you may read",
                ));
            }
        };
        Self::of_held(path, held, trust)?.ok_or_else(|| no_run(path))
    }

    /// A folder that is held; none if it holds no run.
    ///
    /// # Errors
    ///
    /// [`Usage`] if it is not believed.
    pub(crate) fn of_held(path: &Path, held: Dir, trust: Trust) -> Result<Option<Self>> {
        let folder = Self { path: path.to_owned(), held, trust };
        match folder.held.metadata(Path::new(SPECIFICATION)) {
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("look into {}", name(path))),
            Ok(_) => folder.check().map(|()| Some(folder)),
        }
    }

    fn check(&self) -> Result<()> {
        self.trust.check(&self.path, &fstat(&self.held)?)?;
        self.trust.check_above(&self.path, &self.held)
    }

    /// Makes the folders in it, if they are not there.
    ///
    /// # Errors
    ///
    /// [`Usage`] if that is not possible, naming the folder.
    pub fn make_inside(&self) -> Result<()> {
        for inside in [RESULTS, LOGS] {
            let made = make_dir(&self.held, inside);
            made.map_err(|error| cannot_be_made(&self.at(inside), &error))?;
        }
        Ok(())
    }

    /// Removes those of the folders that are empty.
    pub(crate) fn remove_empty(&self) {
        for inside in [RESULTS, LOGS] {
            self.held.remove_dir(Path::new(inside)).ok();
        }
        self.remove_itself().ok();
    }

    /// Removes the folder if nothing is in it, and that of the run's name if that is empty then: the other result path may
    /// have a run of that name.
    ///
    /// # Errors
    ///
    /// What the system said of the first.
    pub(crate) fn remove_itself(&self) -> io::Result<()> {
        // What was named may be a link, or `.`: the name is asked for where it is really.
        let path = self.path.canonicalize()?;
        let (above, name) = (above(&self.held)?, path.file_name().unwrap_or_default());
        above.remove_dir(Path::new(name))?;
        if let Some(name) = path.parent().and_then(Path::file_name) {
            self::above(&above)?.remove_dir(Path::new(name)).ok();
        }
        Ok(())
    }

    pub(crate) fn not_writable(&self, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Usage>() {
            return error;
        }
        Usage::error(
            format!("the run folder {} is not writable: {error:#}", name(&self.path)),
            "choose a writable place with --runs DIR",
        )
    }

    /// The folder itself, as it is called.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What something in it is called.
    pub(crate) fn at(&self, inside: &str) -> PathBuf {
        self.path.join(inside)
    }

    /// The folder itself.
    pub(crate) fn held(&self) -> &Dir {
        &self.held
    }

    pub(crate) fn trust(&self) -> Trust {
        self.trust
    }

    /// `results/`, held.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn held_results(&self) -> Result<Dir> {
        let held = self.held.dir(Path::new(RESULTS));
        held.with_context(|| format!("open {}", name(self.results())))
    }

    /// `results/`.
    #[must_use]
    pub fn results(&self) -> PathBuf {
        self.at(RESULTS)
    }

    /// `logs/`.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.at(LOGS)
    }

    /// `.broker/`: the store of the run's own server, which need not be there.
    ///
    /// # Errors
    ///
    /// [`Usage`] if it is not believed, or a link.
    pub fn store(&self) -> Result<PathBuf> {
        let path = self.at(STORE);
        match self.held.dir(Path::new(STORE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_no_file(&error) || is_absent(&error) => {
                return Err(self.no_file(STORE));
            }
            held => {
                let held = held.with_context(|| format!("open {}", name(&path)))?;
                self.trust.check(&path, &fstat(&held)?)?;
            }
        }
        Ok(path)
    }

    /// The same, made if it is not there.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store).
    pub(crate) fn make_store(&self) -> Result<PathBuf> {
        let made = make_dir(&self.held, STORE);
        if let Err(error) = made
            && !is_no_file(&error)
            && !is_absent(&error)
        {
            return Err(cannot_be_made(&self.at(STORE), &error));
        }
        self.store()
    }

    pub(crate) fn no_file(&self, inside: &str) -> anyhow::Error {
        Usage::error(
            format!(
                "{} is not a file: links in a run folder are not followed",
                name(self.at(inside))
            ),
            "remove it, or put the file itself in its place",
        )
    }
}

/// Makes a folder for its owner alone, and holds it, or the one that is there; a link is an error.
fn make_dir(around: &Dir, inside: &str) -> io::Result<Dir> {
    match around.make_dir(Path::new(inside)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => around.dir(Path::new(inside)),
    }
}

/// The folder that a held one is in.
fn above(held: &Dir) -> io::Result<Dir> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Dir::from(rustix::fs::openat(held, "..", flags, Mode::empty())?))
}

/// Whether something that was to be opened is a link, or something else that is no file.
pub(crate) fn is_no_file(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::LOOP | Errno::INVAL | Errno::ISDIR | Errno::NXIO))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn cannot_be_made(folder: &Path, error: &io::Error) -> anyhow::Error {
    Usage::error(
        format!("the run folder {} cannot be made: {error}", name(folder)),
        "choose a writable place with --runs DIR",
    )
}

fn no_run(path: &Path) -> anyhow::Error {
    let inside = ["staged", "objects"].iter().find(|p| path.join(p).join(SPECIFICATION).is_file());
    let hint = inside.map_or_else(
        || "name the folder that contains bag.json, such as runs/NAME/staged".to_owned(),
        |inside| format!("did you mean {}?", name(path.join(inside))),
    );
    let text = if path.is_dir() {
        format!("{} is not a run folder: it has no bag.json", name(path))
    } else {
        format!("there is no folder {}", name(path))
    };
    Usage::error(text, hint)
}
