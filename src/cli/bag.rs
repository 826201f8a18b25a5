//! The flags that make a bag: its inputs, its outputs, and how its tasks run.

use std::path::PathBuf;

use bagpress_broker::descriptor::{DeliveryPath, ResultPath, Transfer};
use bagpress_broker::ids::{Pool, RunName};
use bagpress_broker::limits;
use bagpress_codec::{Codec, Scalar, Shape};
use bagpress_producer::Blocks;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::arrays::DataArg;
use super::common::TrustArgs;
use super::select::SelectArgs;

const RUNNING: &str = "How tasks run";
const FOLDER: &str = "Run folder";
const OUTPUTS: &str = "Outputs";

/// The bag.
#[derive(Debug, Clone, Args)]
pub(crate) struct BagArgs {
    /// Files and folders to compress; a folder keeps its last component below --out. Or objects, as obj://BUCKET/NAME, which
    /// workers read where they are
    #[arg(value_name = "INPUT")]
    pub(crate) inputs: Vec<PathBuf>,

    /// Compress the objects listed in FILE, one reference per line, or JSON lines as `object` prints them; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "tasks")]
    pub(crate) refs: Option<PathBuf>,

    /// Folder for the outputs, such as `DIR/doc/readme.txt.gz`
    #[arg(long, short = 'o', value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    #[arg(long, short = 'c', value_name = "CODEC", help = codec_help(), long_help = codec_long_help())]
    pub(crate) codec: Option<Codec>,

    /// What `--codec auto` tries to be best at; chooses that codec if none is named
    #[arg(long, value_name = "GOAL", help_heading = OUTPUTS)]
    pub(crate) goal: Option<GoalArg>,
    /// Type of the values, where inputs are arrays without a header: i32, i64, f32 or f64, little-endian [default: f32 for
    /// generated fields]
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<Scalar>,

    /// Shape of these arrays, the slowest dimension first, such as 100x500x500 [default: of generated fields by their size;
    /// 8x256x256 for 2MiB]
    #[arg(long, value_name = "SHAPE")]
    pub(crate) shape: Option<Shape>,

    /// How outputs come back: staged (files) or objects (references)
    #[arg(long, value_name = "PATH", default_value = "staged", help_heading = OUTPUTS)]
    pub(crate) results: ResultPath,

    /// Fetch objects into results/ as they arrive; for --results objects
    #[arg(long, help_heading = OUTPUTS)]
    pub(crate) get: bool,

    /// Keep the inputs in their bucket after their task is done; for --results objects
    #[arg(long, help_heading = OUTPUTS)]
    pub(crate) keep_inputs: bool,

    /// Remove each input once the bag has ended, its output was verified and is durable, and it has not changed since it was read
    #[arg(long, help_heading = OUTPUTS)]
    pub(crate) remove_source: bool,

    /// Have outputs expire this long after each was made, such as 12h; for --results objects [default: they stay until the bag is
    /// removed]
    #[arg(long, value_name = "DURATION", help_heading = OUTPUTS)]
    pub(crate) ttl: Option<humantime::Duration>,

    /// Write stats_N.json files [default: for generated bags of up to 1,000 tasks]
    #[arg(long, value_name = "WHEN", help_heading = OUTPUTS)]
    pub(crate) stats: Option<StatsArg>,

    /// How tasks reach workers: jetstream (the broker keeps them) or queue-group (the gatherer keeps them and
    /// offers them to workers; needs no JetStream with staged results)
    #[arg(long, value_name = "HOW", default_value = "jetstream", help_heading = RUNNING)]
    pub(crate) delivery: DeliveryPath,

    /// Pool of workers that runs the tasks
    #[arg(long, env = "BAGPRESS_POOL", value_name = "POOL", default_value = "default", help_heading = RUNNING)]
    pub(crate) pool: Pool,

    /// Small files that are delivered together, at most; 1: each by itself [default: by the size of the bag; up to 64]
    #[arg(long, value_name = "N", help_heading = RUNNING)]
    pub(crate) pack: Option<u32>,

    /// Bytes of the blocks into which larger files are cut, each a task of its own: 1MiB or more, rounded up to 256 KiB; none: no
    /// file is cut [default: auto, which cuts files above 64 MiB into blocks of 8 MiB]
    #[arg(long, value_name = "SIZE", default_value = "auto", hide_default_value = true, help_heading = RUNNING)]
    pub(crate) block: BlockArg,

    /// Attempts of a task before it is reported failed
    #[arg(long, value_name = "N", default_value_t = limits::ATTEMPTS_DEFAULT, help_heading = RUNNING)]
    pub(crate) attempts: u32,

    /// Which process decompresses every output and compares it with its input
    #[arg(long, value_name = "WHO", default_value = "worker", help_heading = RUNNING)]
    pub(crate) verify: VerifyArg,

    /// Whether files may be passed by path where worker and gatherer see the same folder
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = RUNNING)]
    pub(crate) transfer: TransferArg,

    /// Name of the run and of its folder, of a-z, 0-9 and - [default: date, time and 4 letters]
    #[arg(long, value_name = "NAME", help_heading = FOLDER)]
    pub(crate) name: Option<RunName>,

    /// Folder of all runs
    #[arg(long, env = "BAGPRESS_RUNS", value_name = "DIR", default_value = "runs", help_heading = FOLDER)]
    pub(crate) runs: PathBuf,

    #[command(flatten, next_help_heading = FOLDER)]
    pub(crate) trust: TrustArgs,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    #[command(flatten)]
    pub(crate) generated: GeneratedArgs,
}

/// A generated bag.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Generated bag, instead of inputs")]
pub(crate) struct GeneratedArgs {
    /// Number of tasks
    #[arg(long, value_name = "N")]
    pub(crate) tasks: Option<u32>,

    /// Uncompressed bytes of each task, such as 2MiB [default: 2MiB; 0 for noop]
    #[arg(long, value_name = "SIZE")]
    pub(crate) bytes: Option<ByteSize>,

    /// Kind of generated bytes: random, text or zeros; or an array of numbers by --dtype and --shape: field, field-rough or
    /// field-constant
    #[arg(long, value_name = "KIND", default_value = "random")]
    pub(crate) data: DataArg,

    /// Seed of the generated bytes
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

/// Which process checks outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyArg {
    /// The worker, while it compresses
    Worker,
    /// Nobody; every result says so
    None,
}

/// How files may be passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransferArg {
    /// By path where possible
    Auto,
    /// Always through NATS
    Wire,
}

impl From<TransferArg> for Transfer {
    fn from(arg: TransferArg) -> Self {
        match arg {
            TransferArg::Auto => Self::Auto,
            TransferArg::Wire => Self::Wire,
        }
    }
}

/// What `auto` is to be best at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GoalArg {
    /// Small outputs
    Ratio,
    /// Both, as far as they go together
    Balanced,
    /// Time
    Speed,
}

impl GoalArg {
    /// The codec that has this goal.
    pub(crate) fn codec(self) -> &'static str {
        match self {
            Self::Ratio => "auto,ratio",
            Self::Balanced => "auto",
            Self::Speed => "auto,speed",
        }
    }
}

/// When `stats_N.json` files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatsArg {
    /// For every task
    Always,
    /// For none
    Never,
}

/// How large files are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockArg(pub(crate) Blocks);

impl std::str::FromStr for BlockArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(Blocks::Auto)),
            "none" => Ok(Self(Blocks::None)),
            size => {
                let size: ByteSize = size.parse().map_err(|_| {
                    format!("{size:?} is no size of blocks: use auto, none, or a size such as 8MiB")
                })?;
                Ok(Self(Blocks::Of(size.as_u64())))
            }
        }
    }
}

fn codec_help() -> String {
    let codecs: Vec<_> = Codec::all().map(ToString::to_string).collect();
    let codecs = codecs.join(", ");
    format!("Codec and level: {codecs} [default: gzip:6 for files, zlib:6 for generated bags]")
}

fn codec_long_help() -> String {
    let codecs = Codec::all().map(|codec| {
        let switches = codec.switches.iter();
        let switches = switches.flat_map(|switch| ["; `,", switch.name, "` ", switch.summary]);
        format!("\n- {codec}: {}{}", codec.summary, switches.collect::<String>())
    });
    format!("{}\n{}", codec_help(), codecs.collect::<String>())
}
