//! Inputs that are removed once their bag has ended, as their user asked: those whose output is there, and durable, and that
//! are still what they were when they were read.
//!
//! Nothing is removed earlier: until every task has its outcome, each can run again. What is decided here follows from what
//! lies on the disk and in the ledger, so it can be repeated: whoever died in the middle of it is continued by `gather`.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, Result};
use bagpress_broker::quote;
use bagpress_broker::result::{Done, FileId, TaskResult};
use bagpress_objstore::beneath::{Dir, below_root};
use bagpress_objstore::staging::{Plan as _, hash_file, mtime_ns};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::run_folder::folder::RunFolder;
use crate::run_folder::inputs::InputEntry;
use crate::run_folder::plan::BagPlan;

/// What became of the inputs of the tasks that are done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedInputs {
    /// That are not there any more.
    pub removed: u64,
    /// That stay although their task is done, by why.
    pub kept: BTreeMap<String, u64>,
    /// The first of those, with its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_kept: Option<String>,
}

impl fmt::Display for RemovedInputs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} removed", self.removed)?;
        self.kept.iter().try_for_each(|(why, count)| write!(formatter, ", {count} kept: {why}"))
    }
}

/// Why an input stays.
type Why = String;

impl RemovedInputs {
    fn keep(&mut self, path: &Path, why: Why) {
        let first = format!("{}: {why}", quote::name(path));
        self.first_kept.get_or_insert(first);
        *self.kept.entry(why).or_default() += 1;
    }
}

/// What became of an input that may go.
enum Fate {
    Gone,
    /// It has other names, and goes with all of them, if they are inputs too: device and inode.
    Linked((u64, u64)),
}

/// An input with other names.
struct Linked {
    result: Arc<TaskResult>,
    done: Done,
    entry: InputEntry,
}

/// Removes the inputs of a bag that has ended, if that was asked for. Each stays whose task failed. Blocks.
///
/// # Errors
///
/// If the ledger or the list of inputs cannot be read, or the folder of the outputs; then nothing more is removed.
pub fn remove_sources(
    plan: &BagPlan,
    folder: &RunFolder,
    stopped: &AtomicBool,
) -> Result<Option<RemovedInputs>> {
    if !plan.specification.remove_source {
        return Ok(None);
    }
    let out = plan.specification.output_root(folder);
    let outputs = Dir::open(&out).with_context(|| format!("open {}", quote::name(&out)))?;
    let removal = Removal { plan, outputs, root: Dir::root()?, wanted: wanted(plan)? };
    let (mut sources, mut unread) = (RemovedInputs::default(), None);
    let mut linked: BTreeMap<(u64, u64), Vec<Linked>> = BTreeMap::new();
    let reading = plan.ledger.outcomes(|result| {
        let Some(done) = result.done().filter(|_| !stopped.load(Relaxed) && unread.is_none())
        else {
            return;
        };
        let entry = match plan.entry(result.index) {
            Ok(entry) => entry,
            Err(error) => return unread = Some(error),
        };
        match removal.remove(&result, done, &entry) {
            Ok(Fate::Gone) => sources.removed += 1,
            Ok(Fate::Linked(file)) => {
                let (result, done) = (result.clone(), done.clone());
                linked.entry(file).or_default().push(Linked { result, done, entry });
            }
            Err(why) => sources.keep(&entry.path, why),
        }
    });
    for names in linked.into_values() {
        if stopped.load(Relaxed) {
            break;
        }
        removal.remove_linked(names, &mut sources);
    }
    reading.with_context(|| format!("read {}", quote::name(plan.ledger.path())))?;
    unread.map_or(Ok(Some(sources)), |error| Err(error).context("read the list of inputs"))
}

/// The inputs of tasks that are not done, as 8 bytes each: one that was given twice is still wanted. Two paths of one number
/// keep a file that could go.
fn wanted(plan: &BagPlan) -> Result<HashSet<u64>> {
    let open = (0..plan.specification.tasks).filter(|index| !plan.ledger.is_done(*index));
    let path = |index| Ok(number(&plan.entry(index).context("read the list of inputs")?.path));
    open.map(path).collect()
}

fn number(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

struct Removal<'a> {
    plan: &'a BagPlan,
    outputs: Dir,
    /// Beneath which the inputs are found, without links.
    root: Dir,
    wanted: HashSet<u64>,
}

impl Removal<'_> {
    /// Removes inputs that are one file, if these are all of its names: what is checked of one is no more what it was once another is gone,
    /// so all are checked first.
    fn remove_linked(&self, mut names: Vec<Linked>, sources: &mut RemovedInputs) {
        names.sort_by(|one, other| one.entry.path.cmp(&other.entry.path));
        let paths = names.chunk_by(|one, other| one.entry.path == other.entry.path).count();
        let look = |of: &Linked, links| self.look(&of.result, &of.done, &of.entry, links);
        let checked = names.iter().map(|of| look(of, paths as u64)).collect::<Vec<_>>();
        let all = checked.iter().all(|checked| matches!(checked, Ok(Some(_))));
        for (of, checked) in names.iter().zip(checked) {
            let removed = match checked {
                Ok(Some((folder, name))) if all => match folder.remove_file(Path::new(&name)) {
                    // Given twice, it is gone by now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    removed => removed.map_err(|error| error.to_string()),
                },
                Ok(Some(_)) => Err("another name of it stays".to_owned()),
                Ok(None) => Ok(()),
                Err(why) => Err(why),
            };
            match removed {
                Ok(()) => sources.removed += 1,
                Err(why) => sources.keep(&of.entry.path, why),
            }
        }
    }

    /// Removes one input, if it may go. That it is gone already is fine.
    fn remove(&self, result: &TaskResult, done: &Done, entry: &InputEntry) -> Result<Fate, Why> {
        match self.look(result, done, entry, 1) {
            Ok(Some((folder, name))) => {
                folder.remove_file(Path::new(&name)).map_err(|error| error.to_string())?;
                Ok(Fate::Gone)
            }
            Ok(None) => Ok(Fate::Gone),
            Err(why) if why == LINKED => {
                let file = self.root.dir(
                    below_root(&entry.path)
                        .map_err(|e| e.to_string())?
                        .parent()
                        .unwrap_or(Path::new("")),
                );
                let there = file.and_then(|folder| {
                    folder.stat(Path::new(entry.path.file_name().unwrap_or_default()))
                });
                there.map(|there| Fate::Linked((there.st_dev, there.st_ino))).map_err(|_| why)
            }
            Err(why) => Err(why),
        }
    }

    /// Looks at one input of so many names: the folder that has it, and its name there, if it may go; none if it is gone already.
    fn look(
        &self,
        result: &TaskResult,
        done: &Done,
        entry: &InputEntry,
        links: u64,
    ) -> Result<Option<(Dir, OsString)>, Why> {
        let said = |error: io::Error| error.to_string();
        if !done.verified {
            return Err("its output was not verified".to_owned());
        }
        if self.wanted.contains(&number(&entry.path)) {
            return Err("it is the input of another task that is not done".to_owned());
        }
        let output = self.output(result, done, entry)?;
        let below = below_root(&entry.path).map_err(said)?;
        let (Some(above), Some(name)) = (below.parent(), below.file_name().map(Path::new)) else {
            return Err("it has no name".to_owned());
        };
        let folder = match self.root.dir(above) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_link(&error) => {
                return Err("a symbolic link leads to it by now".to_owned());
            }
            folder => folder.map_err(said)?,
        };
        let look = || match folder.stat(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            there => there.map(Some).map_err(said),
        };
        let Some(there) = look()? else { return Ok(None) };
        is_as_it_was(&there, entry, links)?;
        if (there.st_dev, there.st_ino) == output {
            return Err("it is its own output".to_owned());
        }
        // Where it is not known when it was last changed, its bytes decide.
        if entry.changed_ns.is_none() {
            let (digest, bytes) = hash_file(&folder, name).map_err(said)?;
            let Some(after) = look()? else { return Ok(None) };
            is_as_it_was(&after, entry, links)?;
            if (digest, bytes) != (done.input_digest, done.input_bytes)
                || changed_ns(&after) != changed_ns(&there)
            {
                return Err(CHANGED.to_owned());
            }
        }
        Ok(Some((folder, name.as_os_str().to_owned())))
    }

    /// Which file the output is, if that is what was counted, durably.
    fn output(
        &self,
        result: &TaskResult,
        done: &Done,
        entry: &InputEntry,
    ) -> Result<(u64, u64), Why> {
        let said = |error: io::Error| format!("its output cannot be looked at: {error}");
        let gone = || "its output is not there".to_owned();
        let target = self.plan.target(result.index).map_err(said)?.path;
        let (file, there) = match self.outputs.file_and_metadata(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone()),
            found => found.map_err(said)?.ok_or_else(gone)?,
        };
        // Long ago or by another process it may have been written, and nothing but its bytes tells what a disk has done to it.
        let found = hash_file(&self.outputs, &target).map_err(said)?;
        if found != (done.output_digest, done.output_bytes) {
            return Err(
                "its output is damaged: `bagpress gather --repair` makes it again".to_owned()
            );
        }
        // The gatherer synced it before it wrote the line, and gave it the time of its input.
        let is_synced = result.file.is_some()
            && result.file == FileId::of(&there)
            && mtime_ns(&there) == entry.mtime_ns;
        if !is_synced {
            self.sync(&file, &target).map_err(said)?;
        }
        let there = rustix::fs::fstat(&file).map_err(|error| said(error.into()))?;
        Ok((there.st_dev, there.st_ino))
    }

    /// Makes an output durable of which nobody knows that it is.
    fn sync(&self, file: &File, target: &Path) -> io::Result<()> {
        file.sync_all()?;
        self.outputs.dir(target.parent().unwrap_or(Path::new("")))?.itself()?.sync_all()
    }
}

const CHANGED: &str = "it has changed since it was read";

const LINKED: &str = "it has another name, a hard link";

/// Whether what has the name of an input is that input, and has so many names.
fn is_as_it_was(there: &Stat, entry: &InputEntry, links: u64) -> Result<(), Why> {
    let is_file = FileType::from_raw_mode(there.st_mode) == FileType::RegularFile;
    let bytes = u64::try_from(there.st_size).unwrap_or(0);
    let mtime_ns = ns(there.st_mtime, there.st_mtime_nsec);
    if !is_file || (there.st_ino, bytes, mtime_ns) != (entry.inode, entry.bytes, entry.mtime_ns) {
        return Err(CHANGED.to_owned());
    }
    if count(there.st_nlink) > links {
        return Err(LINKED.to_owned());
    }
    match entry.changed_ns {
        Some(changed) if changed != changed_ns(there) => Err(CHANGED.to_owned()),
        _ => Ok(()),
    }
}

fn changed_ns(there: &Stat) -> i64 {
    ns(there.st_ctime, there.st_ctime_nsec)
}

/// How many names a file has: a number of other bits on other machines.
fn count(links: impl Into<u64>) -> u64 {
    links.into()
}

fn ns(seconds: impl Into<i64>, nanoseconds: impl TryInto<i64>) -> i64 {
    let nanoseconds = nanoseconds.try_into().unwrap_or(0);
    seconds.into().saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

fn is_link(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::LOOP | Errno::NOTDIR))
}
