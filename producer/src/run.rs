//! From what a user asks for to a specification in a run folder.

use std::path::PathBuf;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::{DeliveryPath, ResultPath, Transfer, Verify};
use bagpress_broker::ids::{BagId, Pool, RunName, random_base32};
use bagpress_broker::limits;
use bagpress_broker::result::wall_clock_us;
use bagpress_codec::{Codec, DataKind};

use crate::Usage;
use crate::folder::RunFolder;
use crate::inputs::{InputList, check_roots, find};
use crate::spec::{Data, Specification};

/// A bag that a user asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Files and folders; none: a generated bag.
    pub inputs: Vec<PathBuf>,
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
    /// Name of the run; one is made up.
    pub name: Option<RunName>,
    /// Folder of all runs.
    pub runs: PathBuf,
    /// Whose workers take it.
    pub pool: Pool,
    /// Attempts of each task.
    pub attempts: u32,
    /// Who checks the outputs.
    pub verify: Verify,
    /// Whether files may be handed over by path.
    pub transfer: Transfer,
    /// Whether `stats_N.json` files are written; the default depends on the bag.
    pub stats: Option<bool>,
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

/// A bag in its run folder.
#[derive(Debug)]
pub struct Prepared {
    /// The folder.
    pub folder: RunFolder,
    /// The specification.
    pub specification: Specification,
    /// Whether it is new, or an unfinished one that goes on.
    pub fresh: bool,
    /// Links, special files and folders of part files that were left out.
    pub skipped: u64,
}

/// Checks a request and writes its specification; an unfinished run of the same bag goes on.
///
/// # Errors
///
/// [`Usage`], before anything has been started or published.
pub fn prepare(request: &Request) -> Result<Prepared> {
    check(request)?;
    let name = request.name.clone().map_or_else(made_up_name, Ok)?;
    let folder = RunFolder::of(&request.runs, &name, request.results);
    let existed = folder.specification().is_file();
    prepare_in(request, &name, folder.clone(), existed).inspect_err(|_| {
        if !existed {
            folder.remove_unused();
        }
    })
}

fn prepare_in(
    request: &Request,
    name: &RunName,
    folder: RunFolder,
    existed: bool,
) -> Result<Prepared> {
    folder.create()?;
    let out = absolute_out(request)?;
    let (mut specification, skipped, list) = specify(request, name, &folder, out.as_ref())?;
    if existed {
        let before = Specification::read(&folder)?;
        if let Some(list) = list {
            std::fs::remove_file(&list)
                .with_context(|| format!("remove {}", bagpress_broker::quote::name(&list)))?;
        }
        if !before.same_bag(&specification) || folder.path().join("summary.json").is_file() {
            let state = if before.same_bag(&specification) { "a finished" } else { "another" };
            return Err(Usage::error(
                format!("the name {name} is taken by {state} bag, {}", before.bag),
                format!(
                    "choose another --name, or remove {}",
                    bagpress_broker::quote::name(folder.path())
                ),
            ));
        }
        specification = before;
        return Ok(Prepared { folder, specification, fresh: false, skipped });
    }
    if let Some(list) = list {
        refuse_existing(&specification, &list)?;
        std::fs::rename(&list, folder.inputs()).context("name the list of inputs")?;
    }
    specification.write(&folder)?;
    Ok(Prepared { folder, specification, fresh: true, skipped })
}

fn check(request: &Request) -> Result<()> {
    match (&request.generated, request.inputs.is_empty()) {
        (None, true) => {
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
    if let Some(generated) = &request.generated {
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
    } else if request.results == ResultPath::Staged && request.out.is_none() {
        return Err(Usage::error(
            "a bag of files needs a folder for its outputs",
            "name one with --out DIR, or leave them in the object store with --results objects",
        ));
    }
    check_roots(&request.inputs)?;
    if !(1..=limits::ATTEMPTS_MAX).contains(&request.attempts) {
        return Err(Usage::error(
            format!("{} attempts: 1 to {} are possible", request.attempts, limits::ATTEMPTS_MAX),
            "choose another --attempts",
        ));
    }
    Ok(())
}

fn absolute_out(request: &Request) -> Result<Option<PathBuf>> {
    let Some(out) = &request.out else { return Ok(None) };
    let made = std::fs::create_dir_all(out).and_then(|()| out.canonicalize());
    let out = made.map_err(|error| {
        Usage::error(
            format!(
                "the output folder {} cannot be made: {error}",
                bagpress_broker::quote::name(out)
            ),
            "choose a writable --out DIR",
        )
    })?;
    let probe = out.join(format!(".bagpress-probe-{}", random_base32::<5>()));
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(|error| {
        Usage::error(
            format!(
                "the output folder {} is not writable: {error}",
                bagpress_broker::quote::name(&out)
            ),
            "choose a writable --out DIR",
        )
    })?;
    Ok(Some(out))
}

type Specified = (Specification, u64, Option<PathBuf>);

fn specify(
    request: &Request,
    name: &RunName,
    folder: &RunFolder,
    out: Option<&PathBuf>,
) -> Result<Specified> {
    let files = request.generated.is_none();
    let default = if files { "gzip:6" } else { "zlib:6" };
    let codec = match request.codec {
        Some(codec) => codec,
        None => default.parse()?,
    };
    let (mut skipped, mut list) = (0, None);
    let (data, tasks, input_bytes) = if let Some(generated) = &request.generated {
        let Generated { tasks, bytes, data, seed } = *generated;
        (Data::Generated { data, seed, bytes }, tasks, bytes.saturating_mul(u64::from(tasks)))
    } else {
        let path = folder.path().join(format!("inputs.{}", std::process::id()));
        let found = find(&request.inputs, &path, out.map(PathBuf::as_path)).inspect_err(|_| {
            drop(std::fs::remove_file(&path));
        })?;
        skipped = found.skipped;
        list = Some(path);
        let data = Data::Files { list: found.list, largest: found.largest };
        (data, found.files, found.bytes)
    };
    let specification = Specification {
        v: limits::WIRE_VERSION,
        bag: BagId::new(name),
        name: name.clone(),
        pool: request.pool.clone(),
        codec,
        library: codec.library(),
        delivery: request.delivery,
        results: request.results,
        verify: request.verify,
        transfer: request.transfer,
        attempts: request.attempts,
        tasks,
        input_bytes,
        data,
        out: out.cloned(),
        get: request.get,
        keep_inputs: request.keep_inputs,
        stats: request.stats.unwrap_or(!files && tasks <= limits::STATS_FILES_MAX),
        created_us: wall_clock_us(),
    };
    Ok((specification, skipped, list))
}

/// A new bag never replaces a file that was there before it.
fn refuse_existing(specification: &Specification, list: &std::path::Path) -> Result<()> {
    let Some(out) = &specification.out else { return Ok(()) };
    let inputs = InputList::open(list).context("read the list of inputs")?;
    for entry in inputs.entries().context("read the list of inputs")? {
        let mut target = out.join(entry?.target).into_os_string();
        target.push(specification.codec.extension());
        let target = PathBuf::from(target);
        if target.symlink_metadata().is_ok() {
            drop(std::fs::remove_file(list));
            return Err(Usage::error(
                format!("the output {} is there already", bagpress_broker::quote::name(&target)),
                "choose an empty --out DIR, or remove it",
            ));
        }
    }
    Ok(())
}

fn made_up_name() -> Result<RunName> {
    let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let tail: String = random_base32::<5>().chars().take(4).collect();
    Ok(format!("{now}-{tail}").parse()?)
}
