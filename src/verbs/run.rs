//! `bagpress run` and `gather`, and what `restore` has in common with them.

use std::process::ExitCode;

use anyhow::Result;
use bagpress_producer::{Prepared, Request};
use bagpress_producer::{RunFolder, Specification};

use super::follow::{Begin, Following, follow};
use super::prepare::{LOG, dry_run, prepared, request, with_references};
use crate::broker_at::At;
use crate::cli::RunArgs;
use crate::cli::broker::{LocalArgs, ReachArgs};
use crate::cli::common::FollowArgs;
use crate::cli::existing::GatherArgs;
use crate::logging;
use crate::terminal::Signals;

pub(crate) async fn run(args: RunArgs) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let RunArgs { bag, follow, reach, local } = args;
    let (only_print, list) = (bag.select.dry_run, bag.refs.clone());
    let request = Box::pin(with_references(request(bag)?, list.as_deref(), &reach)).await?;
    start(request, only_print, (&follow, &reach, &local), &mut signals).await
}

/// Prepares what is asked for, and follows it to its end; or only prints what would be done.
///
/// # Errors
///
/// [`Usage`](bagpress_producer::Usage), before anything was begun; what ended the bag before it was complete.
pub(super) async fn start(
    request: Request,
    only_print: bool,
    (follow_args, reach, local): (&FollowArgs, &ReachArgs, &LocalArgs),
    signals: &mut Signals,
) -> Result<ExitCode> {
    if only_print {
        return dry_run(request, follow_args.json).await;
    }
    // Before anything is written.
    let at = At::of(&reach.broker, local)?;
    let Some(prepared) = prepared(request).await? else { return Ok(ExitCode::SUCCESS) };
    let Prepared { folder, lock, specification, fresh, new_out, notes } = *prepared;
    let begin = Begin { fresh, new_out, notes, ..Begin::default() };
    let bag =
        Following { folder, lock, specification, at, begin, follow: follow_args, reach, local };
    follow(bag, signals).await
}

pub(crate) async fn gather(args: GatherArgs) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let at = At::of(&args.reach.broker, &args.local)?;
    let folder = RunFolder::existing(&args.folder, args.trust.trust())?;
    let specification = Specification::read(&folder)?;
    folder.make_inside()?;
    let lock = folder.lock()?;
    logging::start_in(folder.log(LOG)?)?;
    let GatherArgs { retry_failed, repair, resume, .. } = args;
    let begin = Begin { retry_failed, repair, resume, ..Begin::default() };
    let (reach, local) = (&args.reach, &args.local);
    let bag =
        Following { folder, lock, specification, at, begin, follow: &args.follow, reach, local };
    follow(bag, &mut signals).await
}
