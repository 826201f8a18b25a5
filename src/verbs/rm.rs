//! `bagpress rm`.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::quote::{name, words};
use bagpress_broker::{Broker, Role, limits};
use bagpress_producer::remove::{How, Removed};
use bagpress_producer::{RunFolder, Usage, cancel, message, remove, sweep};

use crate::broker_at::{Bag, address, reach, unless_denied};
use crate::cli::existing::RmArgs;
use crate::idle::idle_flag;
use crate::logging;
use crate::terminal::tell;

pub(crate) async fn rm(mut args: RmArgs) -> Result<ExitCode> {
    logging::start(None)?;
    let Some(text) = &args.bag else { return orphans(&args).await };
    let bag = Bag::parse(text, &args.common.trust)?;
    if args.folder_only {
        // An exported one is for other commands.
        let at = &mut args.common.reach.broker;
        (at.server, at.context) = (None, None);
    }
    let how = How { force: args.force, outputs: args.outputs, dry_run: args.dry_run };
    let removed = match &bag {
        Bag::Id(id) => {
            for (flag, is_set) in [("--outputs", args.outputs), ("--folder-only", args.folder_only)]
            {
                if is_set {
                    let why = "the outputs are known to the run folder";
                    return Err(idle_flag(flag, "with a bag's id", why));
                }
            }
            let broker = reach(&args.common.reach, Some(&bag), Role::Producer).await?;
            let broker = broker.map_or_else(|| Err(bag.not_running()), Ok)?;
            broker.unless_denied(remove::from_broker(&broker, id, None, how)).await?
        }
        Bag::Folder(folder, specification) => {
            if args.outputs && specification.remove_source {
                let why = "the run was told to remove its inputs, and its outputs are all there is of them";
                let hint = "keep them, or remove them by hand; without --outputs, `rm` leaves them where they are";
                return Err(Usage::error(why, hint));
            }
            let named = address(&args.common.reach.broker)?.is_some();
            let elsewhere = folder.server()?.is_some_and(|server| server != "local");
            if elsewhere && !named && !args.folder_only {
                return Err(bag.not_running());
            }
            let broker = reach(&args.common.reach, Some(&bag), Role::Producer).await?;
            let removing = remove_run(folder, &specification.bag, broker.clone(), named, how);
            Box::pin(unless_denied(broker.as_ref(), removing)).await?
        }
    };
    tell(args.common.json, &removed, &told(&removed))?;
    for kept in &removed.kept {
        let verb = if how.dry_run { "would keep" } else { "kept" };
        message(&format!("{verb}: {kept}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes a run's folder, and what it has on a broker that was `named`.
async fn remove_run(
    folder: &RunFolder,
    bag: &BagId,
    broker: Option<Broker>,
    named: bool,
    how: How,
) -> Result<Removed> {
    if how.force
        && !how.dry_run
        && folder.gatherer().is_some()
        && let Some(broker) = &broker
    {
        cancel::cancel(broker, bag).await?;
    }
    // A dry run of --force takes nothing from the gatherer.
    let lock = if how.dry_run && how.force {
        None
    } else {
        let patience = if how.force { limits::RELEASED_WITHIN } else { Duration::ZERO };
        Some(folder.lock_within(patience).await?)
    };
    let on_broker = match broker.filter(|_| named) {
        Some(broker) => Some(remove::from_broker(&broker, bag, lock.as_ref(), how).await?),
        None => None,
    };
    let lock = lock.filter(|_| !how.dry_run);
    let removed = remove::folder(folder, lock, how).await?;
    Ok(match on_broker {
        Some(Removed { messages, buckets, .. }) => Removed { messages, buckets, ..removed },
        None => removed,
    })
}

/// What was removed, for people; what would be, with names.
fn told(removed: &Removed) -> String {
    let verb = if removed.removed { "removed" } else { "would remove" };
    let Removed { bag, messages, buckets, files, outputs, outputs_left, folder, .. } = removed;
    let count = buckets.len();
    let mut text = format!("{verb} {bag}: {messages} messages, {count} buckets, {files} files\n");
    if !removed.removed {
        // Writing into a string cannot fail.
        for bucket in buckets {
            writeln!(text, "  bucket {bucket}").ok();
        }
        if let Some(folder) = folder {
            writeln!(text, "  folder {}", name(folder)).ok();
        }
        if *outputs > 0 {
            writeln!(text, "  {outputs} of the files are outputs in the --out folder").ok();
        }
    }
    if *outputs_left > 0 {
        writeln!(text, "  {outputs_left} outputs stay: they are not what this bag made").ok();
    }
    text
}

async fn orphans(args: &RmArgs) -> Result<ExitCode> {
    let mut swept = Vec::new();
    match reach(&args.common.reach, None, Role::Producer).await? {
        Some(broker) => {
            let sweeping = sweep::broker(&broker, args.older_than.into(), args.dry_run);
            swept.extend(broker.unless_denied(sweeping).await?);
        }
        None => message("note: run folders only; --server URL sweeps a server too"),
    }
    let runs = sweep::runs(&args.runs, args.common.trust.trust(), args.dry_run);
    let sweep::Runs { swept: of_runs, skipped } = runs.await.context("sweep the run folders")?;
    swept.extend(of_runs);
    let verb = if args.dry_run { "would remove" } else { "removed" };
    let line = |s: &sweep::Swept| format!("{verb} {}: {}\n", words(&s.named()), words(&s.why));
    let text: String = swept.iter().map(line).collect();
    tell(args.common.json, &swept, &text)?;
    for skipped in skipped {
        message(&format!("skipped: {skipped}"));
    }
    if swept.is_empty() && !args.common.json {
        message("nothing to sweep");
    }
    Ok(ExitCode::SUCCESS)
}
