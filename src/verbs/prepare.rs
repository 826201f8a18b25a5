//! From the flags of a bag to a bag that is prepared: what `run` and `submit` share.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::Verify;
use bagpress_codec::Codec;
use bagpress_producer::{Generated, Preparation, Prepared, Request, prepare};
use bagpress_producer::{Usage, message};

use super::preview;
use crate::cli::arrays::Said;
use crate::cli::bag::{BagArgs, StatsArg, VerifyArg};
use crate::logging;
use crate::terminal::notes;

/// Log of the gathering or submitting process.
pub(super) const LOG: &str = "producer.log";

/// Prints what `--dry-run` would do.
pub(super) async fn dry_run(request: Request, json: bool) -> Result<ExitCode> {
    blocking(move || preview::show(&request, json)).await
}

/// Prepares a bag and starts its log; none if there is nothing to do, with a message.
pub(super) async fn prepared(request: Request) -> Result<Option<Box<Prepared>>> {
    match blocking(move || prepare(&request)).await? {
        Preparation::Bag(prepared) => {
            logging::start_in(prepared.folder.log(LOG)?)?;
            Ok(Some(prepared))
        }
        Preparation::NothingToDo(said) => {
            notes(&said);
            message("nothing to do");
            Ok(None)
        }
    }
}

/// What the flags ask for.
///
/// # Errors
///
/// [`Usage`] if they contradict each other.
pub(super) fn request(bag: BagArgs) -> Result<Request> {
    let stores_nothing = bag.codec.as_ref().is_some_and(Codec::stores_nothing);
    let said = Said { dtype: bag.dtype, shape: bag.shape };
    let (codec, generated) = match bag.generated.tasks {
        None => (said.of_files(bag.codec)?, None),
        Some(tasks) => {
            let bytes = bag.generated.bytes.map(|bytes| bytes.as_u64());
            let default = if stores_nothing { 0 } else { 2 << 20 };
            let (codec, data, bytes) =
                said.of_generated(bag.codec, bag.generated.data, (bytes, default))?;
            (codec, Some(Generated { tasks, bytes, data, seed: bag.generated.seed }))
        }
    };
    if generated.is_none() && bag.generated.bytes.is_some() {
        return Err(Usage::error("--bytes is for generated bags", "say how many with --tasks N"));
    }
    Ok(Request {
        inputs: bag.inputs,
        restore: false,
        selection: bag.select.into(),
        generated,
        codec,
        delivery: bag.delivery,
        results: bag.results,
        out: bag.out,
        get: bag.get,
        keep_inputs: bag.keep_inputs,
        name: bag.name,
        runs: bag.runs,
        trust: bag.trust.trust(),
        pool: bag.pool,
        attempts: bag.attempts,
        verify: match bag.verify {
            VerifyArg::Worker => Verify::Worker,
            VerifyArg::None => Verify::None,
        },
        transfer: bag.transfer.into(),
        stats: bag.stats.map(|stats| stats == StatsArg::Always),
        pack: bag.pack,
        block: bag.block.0,
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("prepare the bag")?
}
