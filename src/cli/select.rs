//! The flags that say which files a bag is made of.

use std::path::PathBuf;

use bagpress_producer::{Existing, FilesFrom, ListForm, Selection};
use clap::Args;

/// Which files, and what becomes of outputs that are there.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which files")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct SelectArgs {
    /// Leave out files that match a .gitignore pattern relative to each INPUT: '*.tmp', '/build/', '!keep.tmp'; may
    /// be given more than once
    #[arg(long, value_name = "GLOB", conflicts_with = "tasks")]
    pub(crate) exclude: Vec<String>,

    /// Compress the files listed in FILE, one path per line; - is stdin. They keep their path below --out; a folder in
    /// the list is created, not walked
    #[arg(long, value_name = "FILE", conflicts_with_all = ["inputs", "tasks"])]
    pub(crate) files_from: Option<PathBuf>,

    /// Run the tasks of FILE, one JSON object per line: {"file":"path","to":"name.gz","codec":"gzip:9"}; - is stdin. In place of a
    /// file, a line may have an object or what is to be generated
    #[arg(long, value_name = "FILE", conflicts_with_all = ["inputs", "tasks", "files_from"])]
    pub(crate) from_jsonl: Option<PathBuf>,

    /// Paths in the list end with a zero byte, as `find -print0` writes them
    #[arg(long, short = '0', requires = "files_from", conflicts_with = "inputs")]
    pub(crate) null: bool,

    /// Leave out files that are already compressed, judged by their first bytes
    #[arg(long, conflicts_with = "tasks")]
    pub(crate) skip_compressed: bool,

    /// Skip files whose output is up to date, by time and size; replace outdated outputs
    #[arg(long, requires = "out", conflicts_with_all = ["overwrite", "tasks"])]
    pub(crate) update: bool,

    /// Decide what is up to date by decompressing it
    #[arg(long, requires = "update")]
    pub(crate) checksum: bool,

    /// Replace existing outputs
    #[arg(long, requires = "out", conflicts_with = "tasks")]
    pub(crate) overwrite: bool,

    /// Compress every input, also one with the content of another one; otherwise it gets that one's output
    #[arg(long)]
    pub(crate) no_dedup: bool,

    /// Print what would be done, one line per file; start and write nothing
    #[arg(long, conflicts_with = "tasks")]
    pub(crate) dry_run: bool,
}

impl From<SelectArgs> for Selection {
    fn from(args: SelectArgs) -> Self {
        let form = if args.null { ListForm::Zeros } else { ListForm::Lines };
        let listed = args.files_from.map(|path| FilesFrom { path, form, has_broker: false });
        let tasks = args.from_jsonl.map(|path| {
            let form = ListForm::Tasks;
            FilesFrom { path, form, has_broker: false }
        });
        Self {
            exclude: args.exclude,
            files_from: listed.or(tasks),
            existing: if args.update {
                Existing::Update { checksum: args.checksum }
            } else if args.overwrite {
                Existing::Overwrite
            } else {
                Existing::Refuse
            },
            skip_compressed: args.skip_compressed,
            note_changes: false,
        }
    }
}
