//! The flags of `object` and its verbs.

use std::path::PathBuf;

use bagpress_producer::object::Reconstruct;
use clap::{Args, Subcommand};

use super::broker::{BrokerAt, ReachArgs};
use super::common::TrustArgs;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress object ls --server nats://127.0.0.1:4222\n  \
    bagpress object put photo.png notes.txt --server nats://127.0.0.1:4222\n  \
    bagpress object get obj://objects/photo.png --out . --server nats://127.0.0.1:4222\n  \
    bagpress object get out_0.bin --run runs/t1/objects --out first.zz\n\n\
    A reference is obj://BUCKET/NAME. It stands for the same bytes for as long as the object is there.")]
pub(crate) struct ObjectArgs {
    #[command(subcommand)]
    pub(crate) verb: ObjectVerb,
}

/// What to do with objects.
#[derive(Debug, Subcommand)]
pub(crate) enum ObjectVerb {
    /// Put files into a bucket; a name that stands for other bytes is refused
    Put(PutArgs),
    /// Fetch objects into files, each compared with its digest before it gets its name
    Get(GetArgs),
    /// Wait until objects are there; prints which are, and which are not yet
    Wait(WaitArgs),
    /// Show what became of objects: there, never there, freed, expired, lost or corrupt
    Info(InfoArgs),
    /// List the buckets, or the objects of a bucket or run
    Ls(LsArgs),
    /// Keep objects: nothing frees them, or removes their bag, before they are unpinned
    Pin(PinArgs),
    /// Take a pin away
    Unpin(PinArgs),
    /// Free objects that nobody keeps; what they were is remembered
    Free(FreeArgs),
}

impl ObjectVerb {
    /// Which broker it is told to use.
    pub(crate) fn broker(&mut self) -> &mut BrokerAt {
        let at = match self {
            Self::Put(args) => &mut args.at,
            Self::Get(args) => &mut args.at,
            Self::Wait(args) => &mut args.at,
            Self::Info(args) => &mut args.at,
            Self::Ls(args) => &mut args.at,
            Self::Pin(args) | Self::Unpin(args) => &mut args.at,
            Self::Free(args) => &mut args.at,
        };
        &mut at.reach.broker
    }
}

/// Which objects.
#[derive(Debug, Args)]
pub(crate) struct RefsArgs {
    /// Objects, as obj://BUCKET/NAME; with --run, the name is enough
    #[arg(value_name = "REF")]
    pub(crate) names: Vec<String>,

    /// The objects listed in FILE, one reference per line, or JSON lines as `object` prints them; - is stdin
    #[arg(long = "refs", value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
}

/// Where objects are.
#[derive(Debug, Args)]
pub(crate) struct AtArgs {
    /// Run folder, such as runs/NAME/objects, whose own store has the objects
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<PathBuf>,

    /// Print a line of JSON for each object instead of text
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,

    #[command(flatten)]
    pub(crate) reach: ReachArgs,

    /// The nats-server program to supervise, for objects in the run's own store
    #[arg(long, value_name = "PATH")]
    pub(crate) nats_server: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress object put photo.png notes.txt --server nats://127.0.0.1:4222\n  \
    bagpress object put photo.png --bucket photos --name 2024/a.png --ttl 12h --server nats://127.0.0.1:4222")]
pub(crate) struct PutArgs {
    /// Files to put; each gets the last component of its path as its name
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// Bucket, made if it is not there, of a-z, A-Z, 0-9, - and _
    #[arg(long, value_name = "BUCKET", default_value = "objects")]
    pub(crate) bucket: String,

    /// Name of the object, for one file
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Have the objects expire after this long, such as 12h [default: they stay until they are freed]
    #[arg(long, value_name = "DURATION")]
    pub(crate) ttl: Option<humantime::Duration>,

    #[command(flatten)]
    pub(crate) at: AtArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress object get obj://objects/photo.png --out . --server nats://127.0.0.1:4222\n  \
    bagpress object get --refs list.jsonl --out fetched --deadline 10m --server nats://127.0.0.1:4222\n  \
    bagpress object get out_0.bin --run runs/t1/objects --out first.zz\n  \
    bagpress object get --refs list.jsonl --out fetched --depth 0 --server nats://127.0.0.1:4222")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,

    /// Folder for the objects, by their names; a file, for one object; or - for stdout
    #[arg(long, short = 'o', value_name = "DIR|FILE|-", required = true)]
    pub(crate) out: PathBuf,

    /// Wait for what is not there yet, and give up with exit code 124 after this long, such as 10m [default: do not wait]
    #[arg(long, value_name = "DURATION")]
    pub(crate) deadline: Option<humantime::Duration>,

    /// How many tasks may run one after the other to make a lost object again, its own included; 0: none is made again
    #[arg(long, value_name = "N", default_value_t = Reconstruct::default().depth)]
    pub(crate) depth: u32,

    /// How many tasks may run in all to make lost objects again
    #[arg(long, value_name = "TASKS", default_value_t = Reconstruct::default().tasks)]
    pub(crate) budget: u32,

    #[command(flatten)]
    pub(crate) at: AtArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress object wait obj://objects/a obj://objects/b --timeout 5m --server nats://127.0.0.1:4222\n  \
    bagpress object wait --refs list.jsonl --num 1 --timeout 30s --json --server nats://127.0.0.1:4222")]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,

    /// How many must be there [default: all of them]
    #[arg(long, value_name = "N")]
    pub(crate) num: Option<u64>,

    /// Give up with exit code 124 after this long, such as 30s [default: wait without an end]
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<humantime::Duration>,

    #[command(flatten)]
    pub(crate) at: AtArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress object info obj://objects/photo.png --server nats://127.0.0.1:4222\n  \
    bagpress object info out_0.bin out_1.bin --run runs/t1/objects --digest --json")]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,

    /// Read every byte, and compare the digest
    #[arg(long)]
    pub(crate) digest: bool,

    #[command(flatten)]
    pub(crate) at: AtArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress object ls --server nats://127.0.0.1:4222\n  \
    bagpress object ls objects --holders --server nats://127.0.0.1:4222\n  \
    bagpress object ls runs/t1/objects --json")]
pub(crate) struct LsArgs {
    /// Bucket; or run folder, such as runs/NAME/objects, for the outputs of that run; without it: all buckets
    #[arg(value_name = "BUCKET|RUN", conflicts_with = "run")]
    pub(crate) bucket: Option<String>,

    /// Only objects that are pinned, or that a bag reads that is not over, with who that is
    #[arg(long)]
    pub(crate) holders: bool,

    #[command(flatten)]
    pub(crate) at: AtArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress object pin obj://objects/photo.png --server nats://127.0.0.1:4222\n  \
    bagpress object pin --refs list.jsonl --as nightly --server nats://127.0.0.1:4222\n  \
    bagpress object unpin --refs list.jsonl --as nightly --server nats://127.0.0.1:4222")]
pub(crate) struct PinArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,

    /// Name of the pin: an object may have several, and each is taken away by its name
    #[arg(long = "as", value_name = "NAME", default_value = "user")]
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) at: AtArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    bagpress object free obj://objects/photo.png --server nats://127.0.0.1:4222\n  \
    bagpress object free --refs list.jsonl --json --server nats://127.0.0.1:4222")]
pub(crate) struct FreeArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,

    #[command(flatten)]
    pub(crate) at: AtArgs,
}
