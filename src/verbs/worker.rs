//! `bagpress worker`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::DeliveryPath;
use bagpress_broker::quote;
use bagpress_consumer::Options;
use bagpress_objstore::staging::Allowed;
use bagpress_producer::Usage;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::broker_at::{Named, address};
use crate::cli::serve::{ServesArg, WorkerArgs};
use crate::logging;

/// Allowed paths with links resolved: a worker that follows no links reaches them only like this.
fn without_links<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<Vec<PathBuf>> {
    paths
        .map(|path| {
            path.canonicalize().map_err(|error| {
                Usage::error(
                    format!("an allowed path does not exist: {}: {error}", quote::name(path)),
                    "name folders that exist where the worker runs",
                )
            })
        })
        .collect()
}

pub(crate) async fn worker(args: WorkerArgs) -> Result<ExitCode> {
    logging::start(args.log.as_deref())?;
    let (address, from) = address(&args.broker)?.context_missing()?;
    if args.log.is_none() {
        bagpress_producer::message(&format!("broker: {} (from {from})", address.url()));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let allowed = Allowed {
        read: without_links(args.allow.iter().chain(&args.allow_read))?,
        write: without_links(args.allow.iter().chain(&args.allow_write))?,
    };
    let options = Options {
        address,
        slots: args.slots.unwrap_or(cores),
        pool: args.pool,
        delivery: match args.delivery {
            ServesArg::Jetstream => Some(DeliveryPath::Jetstream),
            ServesArg::QueueGroup => Some(DeliveryPath::QueueGroup),
            ServesArg::Both => None,
        },
        allowed,
        idle_exit: args.idle_exit.map(Into::into),
        time_limit: args.time_limit.map(Into::into),
        any_codec_version: args.any_codec_version,
    };
    let drain = CancellationToken::new();
    let working = bagpress_consumer::run(options, drain.clone());
    let mut terminate = signal(SignalKind::terminate()).context("wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for signals")?;
    let mut working = std::pin::pin!(working);
    loop {
        tokio::select! {
            worked = &mut working => return worked.map(|()| ExitCode::SUCCESS).map_err(Into::into),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if drain.is_cancelled() {
            // The second signal: at once. Leases bring the tasks to others.
            return Ok(ExitCode::from(143));
        }
        drain.cancel();
    }
}
