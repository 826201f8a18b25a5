//! `bagpress rm`.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::quote::{name, words};
use bagpress_broker::{Broker, Role, limits};
use bagpress_producer::remove::{How, Removed};
use bagpress_producer::{RunFolder, cancel, message, remove, sweep};

use crate::bag_cli::RmArgs;
use crate::bag_cmd::{json, not_running};
use crate::broker_at::{Bag, address, reach, unless_denied};
use crate::flags::idle_flag;
use crate::logging;
use crate::terminal::print;

pub(crate) async fn rm(mut args: RmArgs) -> Result<ExitCode> {
    logging::start(None)?;
    let Some(text) = &args.bag else { return orphans(&args).await };
    let bag = Bag::parse(text)?;
    if args.folder_only {
        // One that is exported is for others.
        (args.broker.server, args.broker.context) = (None, None);
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
            let broker = reach(&args.broker, &args.patience, Some(&bag), Role::Producer).await?;
            let broker = broker.map_or_else(|| Err(not_running(&bag)), Ok)?;
            broker.unless_denied(remove::from_broker(&broker, id, None, how)).await?
        }
        Bag::Folder(folder, specification) => {
            let named = address(&args.broker)?.is_some();
            let elsewhere = folder.server().is_some_and(|server| server != "local");
            if elsewhere && !named && !args.folder_only {
                return Err(not_running(&bag));
            }
            let broker = reach(&args.broker, &args.patience, Some(&bag), Role::Producer).await?;
            let removing = remove_run(folder, &specification.bag, broker.clone(), named, how);
            unless_denied(broker.as_ref(), removing).await?
        }
    };
    print(&if args.json { json(&removed)? } else { told(&removed) })?;
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
    // Who only looks at what force would remove takes nothing from whoever gathers it.
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
    // Looking at files takes its time.
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
    let Removed { bag, messages, buckets, files, outputs, folder, .. } = removed;
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
    text
}

async fn orphans(args: &RmArgs) -> Result<ExitCode> {
    let mut swept = Vec::new();
    match reach(&args.broker, &args.patience, None, Role::Producer).await? {
        Some(broker) => {
            let sweeping = sweep::broker(&broker, args.older_than.into(), args.dry_run);
            swept.extend(broker.unless_denied(sweeping).await?);
        }
        None => message("note: run folders only; --server URL sweeps a server too"),
    }
    let runs = sweep::runs(&args.runs, args.dry_run).await.context("sweep the run folders")?;
    swept.extend(runs);
    let verb = if args.dry_run { "would remove" } else { "removed" };
    let line = |s: &sweep::Swept| format!("{verb} {}: {}\n", words(&s.named()), words(&s.why));
    let text: String = swept.iter().map(line).collect();
    print(&if args.json { json(&swept)? } else { text })?;
    if swept.is_empty() && !args.json {
        message("nothing to sweep");
    }
    Ok(ExitCode::SUCCESS)
}
