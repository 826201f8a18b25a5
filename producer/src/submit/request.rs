//! What a user asks for, and what can be said of it before any file is looked for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use bagpress_broker::descriptor::{DeliveryPath, ResultPath, Transfer, Verify};
use bagpress_broker::ids::{Pool, RunName};
use bagpress_broker::limits;
use bagpress_codec::{Codec, DataKind};

use crate::error::Usage;
use crate::run_folder::cuts::Blocks;
use crate::run_folder::inputs::existing::Outputs;
use crate::run_folder::inputs::folders::FolderEntry;
use crate::run_folder::inputs::roots::check_roots;
use crate::run_folder::inputs::selection::{Existing, Selection};
use crate::run_folder::trust::Trust;
use crate::submit::planned::Planned;

/// The shortest time that outputs stay: the server knows chunks that are sent again for as long.
const TTL_MIN: Duration = Duration::from_mins(1);

/// A bag that a user asks for.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Request {
    /// Files and folders; none: a generated bag, or a list. One run folder, if it is to be restored.
    pub inputs: Vec<PathBuf>,
    /// Objects that are the inputs in place of files, as [`resolve`](crate::resolve) found them.
    pub references: Vec<Planned>,
    /// Folders that are to be there too, the deepest first, as [`resolve_bag`](crate::resolve_bag) found them.
    pub folders: Vec<FolderEntry>,
    /// Whether they are to be restored, instead of being compressed.
    pub restore: bool,
    /// Which of the files.
    pub selection: Selection,
    /// A generated bag: how many tasks, bytes of each, what kind, from which seed.
    pub generated: Option<Generated>,
    /// Codec and level; the default depends on the kind of bag.
    pub codec: Option<Codec>,
    /// How the tasks reach the workers.
    pub delivery: DeliveryPath,
    /// How the outputs come back.
    pub results: ResultPath,
    /// Folder that receives the outputs.
    pub out: Option<PathBuf>,
    /// Fetch objects as they come.
    pub get: bool,
    /// Keep inputs in their bucket.
    pub keep_inputs: bool,
    /// Whether an input is removed once the bag has ended and its task is done.
    pub remove_source: bool,
    /// Name of the run; one is made up.
    pub name: Option<RunName>,
    /// Folder of all runs.
    pub runs: PathBuf,
    /// Whose run folders are believed, if there is one of that name already.
    pub trust: Trust,
    /// Whose workers take it.
    pub pool: Pool,
    /// Attempts of each task.
    pub attempts: u32,
    /// Which process checks the outputs.
    pub verify: Verify,
    /// Whether files may be handed over by path.
    pub transfer: Transfer,
    /// Whether `stats_N.json` files are written; the default depends on the bag.
    pub stats: Option<bool>,
    /// How many small files are delivered together, at most; the default depends on the bag.
    pub pack: Option<u32>,
    /// How large files are cut.
    pub block: Blocks,
    /// Whether a file with the content of another one gets that one's output.
    pub dedup: bool,
    /// For how long outputs stay in the bag's bucket; none: until the bag is removed.
    pub ttl: Option<Duration>,
}

/// A generated bag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generated {
    /// How many tasks.
    pub tasks: u32,
    /// Bytes of each.
    pub bytes: u64,
    /// What kind.
    pub data: DataKind,
    /// From which seed.
    pub seed: u64,
}

impl Request {
    /// Codec and level, where none was asked for the kind of bag's own.
    ///
    /// # Errors
    ///
    /// If the codec cannot be made.
    pub(crate) fn codec(&self) -> Result<Codec> {
        let default = match &self.generated {
            // Outputs are as they are written.
            None if self.restore => "store",
            None => "gzip:6",
            Some(_) => "zlib:6",
        };
        self.codec.map_or_else(|| Ok(default.parse()?), Ok)
    }

    /// Where the outputs become files, if they do; `results` is where they are without another folder for them.
    ///
    /// # Errors
    ///
    /// If the codec cannot be made.
    pub(crate) fn outputs(
        &self,
        results: &Path,
        out: Option<&Path>,
        goes_on: bool,
    ) -> Result<Option<Outputs>> {
        let codec = self.codec()?;
        let root = match out {
            _ if codec.stores_nothing() => None,
            Some(out) => Some(out.to_owned()),
            None => (self.get || self.results == ResultPath::Staged).then(|| results.to_owned()),
        };
        let outputs = root.map(|root| Outputs::new(root, codec, self.selection.existing, goes_on));
        Ok(if self.restore { outputs.map(Outputs::restored) } else { outputs })
    }

    /// Whether several of its files may be delivered together.
    ///
    /// # Errors
    ///
    /// If the codec cannot be made.
    pub(crate) fn can_be_packed(&self) -> Result<bool> {
        let files = self.generated.is_none() && self.references.is_empty();
        Ok((files || self.has_parts()) && !self.codec()?.stores_nothing())
    }

    /// Whether inputs are parts of objects.
    pub(crate) fn has_parts(&self) -> bool {
        self.references.iter().any(|planned| planned.part.is_some())
    }

    /// Whether its outputs become files, and so can be joined: those of blocks that stay objects are not.
    pub(crate) fn has_files(&self) -> bool {
        self.results == ResultPath::Staged || self.get || self.out.is_some()
    }

    /// Whether a task may get the output of another one, because both have the same input.
    ///
    /// # Errors
    ///
    /// If the codec cannot be made.
    pub(crate) fn may_have_twins(&self) -> Result<bool> {
        Ok(self.dedup && !self.restore && !self.codec()?.stores_nothing())
    }

    /// Whether a user asked what the files are to outputs that are there.
    pub(crate) fn selects(&self) -> bool {
        self.generated.is_none() && self.selection.existing != Existing::Refuse
    }
}

/// Refuses what cannot work whatever the files are.
///
/// # Errors
///
/// [`Usage`].
pub(crate) fn check(request: &Request) -> Result<()> {
    let listed = request.selection.files_from.is_some();
    match (&request.generated, request.inputs.is_empty()) {
        (None, true) if !listed && request.references.is_empty() => {
            return Err(Usage::error(
                "there is nothing to compress",
                "name files or folders, or ask for generated data: --tasks 24 --bytes 2MiB",
            ));
        }
        (Some(_), false) => {
            return Err(Usage::error(
                "a bag has either inputs or --tasks, not both",
                "leave one of them out",
            ));
        }
        _ => {}
    }
    if !request.references.is_empty() {
        check_references(request)?;
    }
    match &request.generated {
        Some(generated) => check_generated(generated)?,
        None if request.results == ResultPath::Staged && request.out.is_none() => {
            return Err(Usage::error(
                "a bag of files needs a folder for its outputs",
                "name one with --out DIR, or leave them in the object store with --results objects",
            ));
        }
        None => {}
    }
    check_roots(&request.inputs, request.out.as_deref())?;
    if !(1..=limits::ATTEMPTS_MAX).contains(&request.attempts) {
        return Err(Usage::error(
            format!("{} attempts: 1 to {} are possible", request.attempts, limits::ATTEMPTS_MAX),
            "choose another --attempts",
        ));
    }
    if let Some(files) = request.pack {
        check_pack(request, files)?;
    }
    if request.ttl.is_some_and(|ttl| ttl < TTL_MIN) {
        return Err(Usage::error(
            "the outputs of a bag stay for a minute at least",
            "choose a longer --ttl, such as 12h",
        ));
    }
    check_lossy(request)?;
    if let Blocks::Of(bytes) = request.block {
        check_blocks(request, bytes)?;
    }
    if request.remove_source {
        check_remove_source(request)?;
    }
    Ok(())
}

/// Refuses what needs an output that gives its input bit for bit, where none does.
fn check_lossy(request: &Request) -> Result<()> {
    let codec = request.codec()?;
    if codec.is_lossy() && request.selection.existing == (Existing::Update { checksum: true }) {
        return Err(Usage::error(
            format!(
                "an output of {codec} does not give its input bit for bit, and cannot be compared"
            ),
            "leave --checksum out: times and sizes decide",
        ));
    }
    if codec.is_lossy() && request.remove_source {
        return Err(Usage::error(
            format!(
                "an output of {codec} does not give its input bit for bit: with --remove-source the input would be lost"
            ),
            "leave --remove-source out, or compress with zfp:reversible",
        ));
    }
    Ok(())
}

fn check_pack(request: &Request, files: u32) -> Result<()> {
    if files > 1 && !request.can_be_packed()? {
        return Err(Usage::error(
            "packs are made of files, with a codec that stores them",
            "leave --pack out; each task is then delivered by itself",
        ));
    }
    if !(1..=limits::PACK_FILES_MAX).contains(&files) {
        return Err(Usage::error(
            format!("packs of that many files: 1 to {} are possible", limits::PACK_FILES_MAX),
            "choose another --pack; 1 delivers each file by itself",
        ));
    }
    Ok(())
}

/// An input goes only where a file of the user's own takes its place.
fn check_remove_source(request: &Request) -> Result<()> {
    let refused = |why: &str, hint: &str| Err(Usage::error(format!("--remove-source {why}"), hint));
    if request.generated.is_some() {
        return refused("is for files, and a generated bag has none", "leave it out");
    }
    if request.codec()?.stores_nothing() {
        return refused(
            &format!("would lose everything: {} stores nothing", request.codec()?),
            "choose a codec that stores its outputs",
        );
    }
    if request.verify == Verify::None {
        return refused("is for outputs that were verified", "leave --verify none out");
    }
    if request.out.is_none() {
        return refused(
            "is for outputs that become files: objects go with their bucket, and results/ with its run",
            "name a folder for the outputs with --out DIR",
        );
    }
    Ok(())
}

fn check_blocks(request: &Request, bytes: u64) -> Result<()> {
    if !request.codec()?.can_be_cut() {
        return Err(Usage::error(
            format!("{} takes whole arrays, which are not cut", request.codec()?.name()),
            "leave --block out; cut large arrays along their slowest dimension yourself, at multiples of 4",
        ));
    }
    if !request.can_be_packed()? || !request.has_files() {
        return Err(Usage::error(
            "blocks are made of files, with a codec that stores them, and are joined to files",
            "leave --block out, and each file is one task; or let objects become files by --get or --out DIR",
        ));
    }
    let (least, most) = (limits::BLOCK_BYTES_MIN, limits::INPUT_BYTES_MAX);
    if !(least..=most).contains(&bytes) {
        return Err(Usage::error(
            format!(
                "blocks of {bytes} bytes: {} MiB to {} TiB are possible",
                least >> 20,
                most >> 40
            ),
            "choose another --block, such as 8MiB",
        ));
    }
    let (codec, most) = (request.codec()?, request.codec()?.block_bytes_max());
    if bytes > most {
        return Err(Usage::error(
            format!(
                "blocks of {bytes} bytes: with {} they have at most {} GiB",
                codec.name(),
                most >> 30
            ),
            "choose a smaller --block, such as 8MiB, or none",
        ));
    }
    Ok(())
}

/// Refuses what is for files.
fn check_references(request: &Request) -> Result<()> {
    if !request.inputs.is_empty() || request.generated.is_some() {
        return Err(Usage::error(
            "a bag has either references or files, not both",
            "put the files with `bagpress object put`, or run them as a bag of their own",
        ));
    }
    let Selection { exclude, files_from, existing, skip_compressed, note_changes } =
        &request.selection;
    let selects = !exclude.is_empty() || files_from.is_some() || *skip_compressed || *note_changes;
    // What comes back may take the place of what came back before.
    let may_replace = *existing == Existing::Overwrite && request.restore;
    let compares = *existing != Existing::Refuse && !may_replace;
    if selects || compares || request.keep_inputs {
        let flags = if request.restore {
            "leave --remove-source out"
        } else {
            "leave out --exclude, --files-from, --skip-compressed, --update, --overwrite, --keep-inputs and --remove-source"
        };
        let what = "a flag that chooses, keeps or removes files does nothing for references";
        return Err(Usage::error(what, flags));
    }
    Ok(())
}

fn check_generated(generated: &Generated) -> Result<()> {
    if generated.tasks == 0 || generated.tasks > limits::BAG_TASKS_MAX {
        return Err(Usage::error(
            format!("{} tasks: a bag has 1 to {}", generated.tasks, limits::BAG_TASKS_MAX),
            "choose another --tasks",
        ));
    }
    if generated.bytes > limits::INPUT_BYTES_MAX {
        return Err(Usage::error(
            format!(
                "{} bytes a task: at most {} are allowed",
                generated.bytes,
                limits::INPUT_BYTES_MAX
            ),
            "choose a smaller --bytes",
        ));
    }
    Ok(())
}
