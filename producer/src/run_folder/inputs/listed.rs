//! Files that a list names, one by one. A list may be of millions: of each line a few bytes are kept.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::quote;
use bagpress_codec::Codec;
use bagpress_objstore::beneath::inside;

use super::InputEntry;
use super::finder::{Candidate, Finder};
use super::folders::FolderEntry;
use super::refusal::unreadable;
use super::selection::{FilesFrom, ListForm, Selection};
use super::skipped::Kind;
use super::tasks::{self, Task, TaskInput};
use crate::error::Usage;

/// What some programs put in front of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Longest line: the system takes no longer path.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Takes every task of a list, for a bag of `codec`.
///
/// # Errors
///
/// [`Usage`], with the number of the line: it leads upwards, is too long, or is written to the place of another.
pub(super) fn read(
    finder: &mut Finder<'_>,
    (selection, from): (&Selection, &FilesFrom),
    codec: &Codec,
) -> Result<()> {
    let unreadable = |error: &io::Error| {
        Usage::error(
            format!("the list {} cannot be read: {error}", quote::name(&from.path)),
            "give a file with one path per line, or - for stdin",
        )
    };
    let mut reader: Box<dyn BufRead> = if from.path.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(&from.path).map_err(|error| unreadable(&error))?))
    };
    let is_of_tasks = from.form == ListForm::Tasks;
    let mut listed = Listed::new(finder, from);
    let end = if from.form == ListForm::Zeros { 0 } else { b'\n' };
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = io::Read::take(&mut reader, LINE_BYTES_MAX);
        let read = limited.read_until(end, &mut line).map_err(|error| unreadable(&error))?;
        if read == 0 {
            return if is_of_tasks && !listed.has_task { Err(no_task(from)) } else { Ok(()) };
        }
        listed.number += 1;
        if line.last() == Some(&end) {
            line.pop();
        } else if read as u64 == LINE_BYTES_MAX {
            return Err(listed.bad("it is too long for a path"));
        }
        if is_of_tasks && listed.number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.is_empty() {
            continue;
        }
        if is_of_tasks {
            listed.has_task = true;
            let task = tasks::read(&line, codec);
            let task = task.and_then(|task| task.unless_refused(selection, from.has_broker, codec));
            listed.take_task(task.map_err(|why| listed.bad(&why))?, codec)?;
        } else {
            listed.take(Path::new(std::ffi::OsStr::from_bytes(&line)), None, "")?;
        }
    }
}

fn no_task(from: &FilesFrom) -> anyhow::Error {
    Usage::error(
        format!("the list {} has no task", quote::name(&from.path)),
        "give a line a task, such as {\"file\":\"path\"}; docs/jsonl.md has its form",
    )
}

/// What has a name in the folder of the outputs.
#[derive(Debug, Clone, Copy, Default)]
struct Named {
    /// Whether its input's path was absolute.
    absolute: bool,
    is_output: bool,
}

/// What the output of a target is called.
fn output(target: &Path, extension: &str) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(extension);
    name.into()
}

struct Listed<'a, 'f> {
    finder: &'a mut Finder<'f>,
    from: &'a FilesFrom,
    hashes: [RandomState; 2],
    /// By the hashes of its name. Two paths of one kind with one target are one file.
    seen: HashMap<[u8; 16], Named>,
    /// The hashes of every folder that an output lies in.
    above: HashSet<[u8; 16]>,
    has_task: bool,
    /// The folder of the last one, as it was listed and without links: lists go folder by folder.
    folder: Option<(PathBuf, PathBuf)>,
    number: u64,
}

impl<'a, 'f> Listed<'a, 'f> {
    fn new(finder: &'a mut Finder<'f>, from: &'a FilesFrom) -> Self {
        Self {
            finder,
            from,
            hashes: [RandomState::new(), RandomState::new()],
            seen: HashMap::new(),
            above: HashSet::new(),
            has_task: false,
            folder: None,
            number: 0,
        }
    }

    fn bad(&self, why: &str) -> anyhow::Error {
        if self.from.form == ListForm::Tasks {
            let why = quote::words(why);
            return Usage::error(
                format!("{}:{}: {why}", quote::name(&self.from.path), self.number),
                "a line is a task, such as {\"file\":\"path\",\"to\":\"name.gz\"}; docs/jsonl.md has its form",
            );
        }
        Usage::error(
            format!("line {} of the list {}: {why}", self.number, quote::name(&self.from.path)),
            "name each file once, by a path without .., one per line; with -0, each followed by a zero byte",
        )
    }

    /// Takes a task of a bag of `codec`, whose output may be elsewhere than its input says.
    fn take_task(&mut self, task: Task, codec: &Codec) -> Result<()> {
        let Task { input, codec: own, target } = task;
        let extension = own.as_ref().unwrap_or(codec).extension();
        let entry = match (input, target) {
            (TaskInput::File(file), None) => return self.take(&file, own, extension),
            (TaskInput::File(file), Some(target)) => {
                return self.take_to(&file, (target, extension), own);
            }
            (TaskInput::Generate(generate), target) => {
                let target =
                    target.unwrap_or_else(|| format!("out_{}", self.finder.tasks()).into());
                InputEntry {
                    bytes: generate.bytes,
                    generate: Some(generate),
                    ..InputEntry::named(generate.to_string().into(), target)
                }
            }
            (TaskInput::Object(referenced), target) => {
                let object = &referenced.object;
                let named = || Path::new(object.bucket()).join(object.object());
                let target = target.unwrap_or_else(named);
                if inside(&target).is_err() || target.file_name().is_none() {
                    let why = "the name of the object leads out of the outputs' folder; say where its output goes with \"to\"";
                    return Err(self.bad(why));
                }
                let path = object.to_string().into();
                InputEntry { reference: Some(referenced), ..InputEntry::named(path, target) }
            }
        };
        if self.is_seen(&entry.target, extension, false).is_some() {
            return Err(self.same_output(&entry.path));
        }
        self.expect_room(&entry.target, extension)?;
        self.finder.take_made(InputEntry { codec: own, ..entry })
    }

    fn take(&mut self, shown: &Path, own: Option<Codec>, extension: &str) -> Result<()> {
        let mut target = PathBuf::new();
        for component in shown.components() {
            match component {
                Component::Normal(part) => target.push(part),
                Component::ParentDir => {
                    return Err(self.bad(&format!("{} leads upwards", quote::name(shown))));
                }
                _ => {}
            }
        }
        if target.as_os_str().is_empty() {
            return Ok(()); // the folder that all others are in
        }
        self.take_to(shown, (target, extension), own)
    }

    /// Notes the name of an output, or of a folder with the ending of one; of a list without tasks, without the bag's ending. Tells of
    /// one that has it already whether its input's path was absolute.
    fn is_seen(&mut self, target: &Path, extension: &str, absolute: bool) -> Option<bool> {
        let named = Named { absolute, is_output: false };
        self.seen.insert(self.key(&output(target, extension)), named).map(|named| named.absolute)
    }

    /// Notes that what has this name is the output of a task.
    ///
    /// # Errors
    ///
    /// [`Usage`] if another output is to be a file where this one needs a folder, or the other way round.
    fn expect_room(&mut self, target: &Path, extension: &str) -> Result<()> {
        let name = output(target, extension);
        let key = self.key(&name);
        if self.above.contains(&key) {
            let why = "is the folder of another output of the list";
            return Err(self.bad(&format!("its output {} {why}", quote::name(&name))));
        }
        for folder in name.ancestors().skip(1).take_while(|path| !path.as_os_str().is_empty()) {
            let above = self.key(folder);
            if self.seen.get(&above).is_some_and(|named| named.is_output) {
                let (name, folder) = (quote::name(&name), quote::name(folder));
                let why = "which is another output of the list";
                return Err(self.bad(&format!("its output {name} lies in {folder}, {why}")));
            }
            if !self.above.insert(above) {
                break; // those above it were looked at with an earlier one
            }
        }
        self.seen.entry(key).or_default().is_output = true;
        Ok(())
    }

    fn key(&self, name: &Path) -> [u8; 16] {
        let [one, two] = self.hashes.each_ref().map(|hash| hash.hash_one(name).to_le_bytes());
        std::array::from_fn(|at| if at < 8 { one[at] } else { two[at - 8] })
    }

    fn same_output(&self, shown: &Path) -> anyhow::Error {
        self.bad(&format!("{} would have the same output as another one", quote::name(shown)))
    }

    fn take_to(
        &mut self,
        shown: &Path,
        (target, extension): (PathBuf, &str),
        own: Option<Codec>,
    ) -> Result<()> {
        let path = self.without_links(shown)?;
        match self.is_seen(&target, extension, shown.is_absolute()) {
            None => {}
            Some(absolute)
                if absolute == shown.is_absolute() && self.from.form != ListForm::Tasks =>
            {
                self.finder.skip(Kind::Twice, shown);
                return Ok(());
            }
            Some(_) => return Err(self.same_output(shown)),
        }
        if path.as_os_str().as_bytes().contains(&0) {
            return Err(self.bad("there is a zero byte in it"));
        }
        self.sort(Candidate { path: &path, shown, target, codec: own }, extension)
    }

    /// The absolute path of what is listed, as it is behind the links that lead to its folder.
    fn without_links(&mut self, shown: &Path) -> Result<PathBuf> {
        let (Some(parent), Some(name)) = (shown.parent(), shown.file_name()) else {
            return std::path::absolute(shown)
                .with_context(|| format!("find {}", quote::name(shown)));
        };
        if self.folder.as_ref().is_none_or(|(of, _)| of != parent) {
            let here = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let found = here.canonicalize().or_else(|_| std::path::absolute(here));
            let found = found.with_context(|| format!("find {}", quote::name(shown)))?;
            self.folder = Some((parent.to_owned(), found));
        }
        Ok(self.folder.as_ref().map_or_else(PathBuf::new, |(_, found)| found.join(name)))
    }

    fn sort(&mut self, file: Candidate<'_>, extension: &str) -> Result<()> {
        let Candidate { path, shown, ref target, .. } = file;
        let metadata = fs::symlink_metadata(path);
        let is_folder = metadata.as_ref().is_ok_and(fs::Metadata::is_dir);
        if self.finder.excluded().has_it_or_a_folder_above(target, is_folder) {
            self.finder.skip(Kind::Excluded, shown);
            return Ok(());
        }
        if let Some(why) = self.finder.left_out().has_run_above(path) {
            self.finder.leave_out(why, shown);
            return Ok(());
        }
        match metadata {
            Err(error) => self.finder.refuse(file, unreadable(path, &error)),
            Ok(metadata) if metadata.is_file() => {
                if self.from.form == ListForm::Tasks {
                    self.expect_room(target, extension)?;
                }
                self.finder.reads(path);
                self.finder.take(&file, &metadata)
            }
            Ok(metadata) if metadata.is_dir() => self.folder(file, &metadata),
            Ok(metadata) => {
                self.finder.skip(Kind::of(metadata.file_type()), shown);
                Ok(())
            }
        }
    }

    /// A folder of a list is made, not walked: `find` prints the folders, too.
    fn folder(&mut self, folder: Candidate<'_>, metadata: &fs::Metadata) -> Result<()> {
        if let Some(why) = self.finder.left_out().has(folder.path, metadata) {
            self.finder.leave_out(why, folder.shown);
            return Ok(());
        }
        let mut entry = FolderEntry::new(folder.target, folder.path, metadata);
        if !fs::read_dir(folder.path).is_ok_and(|mut entries| entries.next().is_none()) {
            entry.mode |= 0o700; // what belongs in it must find its way there
        }
        self.finder.folder(&entry)
    }
}
