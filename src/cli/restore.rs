//! The flags of `restore`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use bagpress_broker::descriptor::DeliveryPath;
use bagpress_broker::ids::{BagId, Pool, RunName};
use bagpress_broker::limits;
use bagpress_objstore::object_ref::Reference;
use bagpress_producer::{Span, Usage};
use clap::Args;

use super::bag::TransferArg;
use super::broker::{LocalArgs, ReachArgs};
use super::common::{FollowArgs, TrustArgs};

const RUNNING: &str = "How tasks run";
const FOLDER: &str = "Run folder";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress restore runs/t1/staged --out back\n  \
    bagpress restore packed --out back --workers 4\n  \
    bagpress restore notes.txt.gz table.csv.zz --out . --dry-run\n  \
    bagpress restore runs/t1/staged --out back --server nats://127.0.0.1:4222\n  \
    bagpress restore big.log.zst --range 1GiB..+64KiB --out part.log\n  \
    bagpress restore runs/t1/staged big.log --range 4096..8192 --out -\n  \
    bagpress restore t1-abcdefgh --out back --server nats://127.0.0.1:4222\n  \
    bagpress restore obj://bag-t1-abcdefgh/out_0.bin --out back --server nats://127.0.0.1:4222\n\n\
    Of a run, every file comes back under its name, with its mode and time, and is compared with the digest that the run \
    recorded. Of other files, the checksum in the file decides. What cannot be restored fails by name, the rest comes \
    back, and the exit code is 1.\n\nA range of one file is restored by this process alone, without a server.")]
pub(crate) struct RestoreArgs {
    /// Run folder, such as runs/NAME/staged; or compressed files, which end in .gz, .zz, .zst or .zfp, and folders of them; or the id of
    /// a bag of objects on a server; or objects, as obj://BUCKET/NAME
    #[arg(value_name = "BAG|FILE|REF", required_unless_present = "refs")]
    pub(crate) inputs: Vec<PathBuf>,

    /// Restore the objects listed in FILE, one reference per line, or JSON lines as `object` prints them; - is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) refs: Option<PathBuf>,

    /// Folder for what comes back, such as `DIR/doc/readme.txt`; with --range, the file that gets it, or - for stdout
    #[arg(long, short = 'o', value_name = "DIR", required = true)]
    pub(crate) out: PathBuf,

    /// Restore these bytes of one file, without reading all of it where it has an index: 1GiB..1GiB+64KiB, 1GiB..+64KiB or 4096..
    #[arg(long, value_name = "FROM..TO")]
    pub(crate) range: Option<Span>,

    /// Replace existing files
    #[arg(long)]
    pub(crate) overwrite: bool,

    /// Remove each compressed file once the bag has ended, what came of it is durable, and it has not changed since it was read
    #[arg(long)]
    pub(crate) remove_source: bool,

    /// Print what would be done, one line per file; start and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// How tasks reach workers: jetstream (the broker keeps them) or queue-group (the gatherer keeps them and
    /// offers them to workers; needs no JetStream)
    #[arg(long, value_name = "HOW", default_value = "jetstream", help_heading = RUNNING)]
    pub(crate) delivery: DeliveryPath,

    /// Pool of workers that runs the tasks
    #[arg(long, env = "BAGPRESS_POOL", value_name = "POOL", default_value = "default", help_heading = RUNNING)]
    pub(crate) pool: Pool,

    /// Small files that are delivered together, at most; 1: each by itself [default: by the size of the bag; up to 64]
    #[arg(long, value_name = "N", help_heading = RUNNING)]
    pub(crate) pack: Option<u32>,

    /// Attempts of a task before it is reported failed
    #[arg(long, value_name = "N", default_value_t = limits::ATTEMPTS_DEFAULT, help_heading = RUNNING)]
    pub(crate) attempts: u32,

    /// Whether files may be passed by path where worker and gatherer see the same folder
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = RUNNING)]
    pub(crate) transfer: TransferArg,

    /// Name of the run that restores, and of its folder, of a-z, 0-9 and - [default: date, time and 4 letters]
    #[arg(long, value_name = "NAME", help_heading = FOLDER)]
    pub(crate) name: Option<RunName>,

    /// Folder of all runs
    #[arg(long, env = "BAGPRESS_RUNS", value_name = "DIR", default_value = "runs", help_heading = FOLDER)]
    pub(crate) runs: PathBuf,

    #[command(flatten, next_help_heading = FOLDER)]
    pub(crate) trust: TrustArgs,

    #[command(flatten)]
    pub(crate) follow: FollowArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
}

/// Characters of an id behind the name of its run.
pub(crate) const ID_TAIL: usize = 8;

/// The id of a bag that is named, if there is no file of that name.
pub(crate) fn id_of(input: &Path) -> Option<BagId> {
    let text = input.to_str()?;
    let (_, tail) = text.rsplit_once('-')?;
    let is_tail =
        tail.len() == ID_TAIL && tail.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
    if !is_tail || input.symlink_metadata().is_ok() {
        return None;
    }
    text.parse().ok()
}

impl RestoreArgs {
    /// Refuses a range of what is no file here, before anything is said of flags that lead to a server.
    ///
    /// # Errors
    ///
    /// [`Usage`], with what to do instead.
    pub(crate) fn refuse_range_of_objects(&self) -> Result<()> {
        if self.range.is_none() {
            return Ok(());
        }
        let here = "a range is of a file on this machine, and";
        let is_object = |input: &&PathBuf| input.to_str().is_some_and(Reference::is_meant);
        if let Some(object) = self.inputs.iter().find(is_object) {
            return Err(Usage::error(
                format!("{here} {} is an object on a server", object.display()),
                "without --range all of it comes back; or fetch it with `bagpress object get`, give it the ending of its codec, such \
                 as .zst, and name that file",
            ));
        }
        match self.inputs.iter().find_map(|input| id_of(input)) {
            Some(bag) => Err(Usage::error(
                format!("{here} {bag} is the id of a bag on a server"),
                "name the run folder of the bag and one of its files, such as runs/t1/staged big.log; without --range all of the bag \
                 comes back",
            )),
            None => Ok(()),
        }
    }
}
