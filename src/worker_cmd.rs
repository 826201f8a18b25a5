//! `bagpress worker`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::DeliveryPath;
use bagpress_consumer::Options;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::broker_at::{Named, address};
use crate::broker_cli::{ServesArg, WorkerArgs};
use crate::logging;

pub(crate) async fn worker(args: WorkerArgs) -> Result<ExitCode> {
    logging::start(args.log.as_deref())?;
    let (address, from) = address(&args.broker)?.context_missing()?;
    if args.log.is_none() {
        bagpress_producer::message(&format!("broker: {} (from {from})", address.url()));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let allowed = args.allow.iter().map(std::fs::canonicalize).collect::<Result<_, _>>();
    let options = Options {
        address,
        slots: args.slots.unwrap_or(cores),
        pool: args.pool,
        delivery: match args.delivery {
            ServesArg::Jetstream => Some(DeliveryPath::Jetstream),
            ServesArg::QueueGroup => Some(DeliveryPath::QueueGroup),
            ServesArg::Both => None,
        },
        allowed: allowed.context("find an allowed folder")?,
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
