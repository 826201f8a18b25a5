//! `bagpress restore`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use bagpress_broker::descriptor::{ResultPath, Verify};
use bagpress_broker::ids::BagId;
use bagpress_producer::{
    Blocks, Existing, RangeRequest, Request, Selection, Span, Usage, message, restore_range,
};

use super::prepare::{with_bag, with_references};
use super::run::start;
use crate::cli::restore::{ID_TAIL, RestoreArgs, id_of};
use crate::terminal::Signals;

pub(crate) async fn restore(args: RestoreArgs) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    if let Some(span) = args.range {
        return range(args, span, &mut signals).await;
    }
    let existing = if args.overwrite { Existing::Overwrite } else { Existing::Refuse };
    let request = Request {
        inputs: args.inputs,
        references: Vec::new(),
        folders: Vec::new(),
        restore: true,
        selection: Selection { existing, note_changes: args.remove_source, ..Selection::default() },
        generated: None,
        codec: None,
        delivery: args.delivery,
        results: ResultPath::Staged,
        out: Some(args.out),
        get: false,
        keep_inputs: false,
        remove_source: args.remove_source,
        name: args.name,
        runs: args.runs,
        trust: args.trust.trust(),
        pool: args.pool,
        attempts: args.attempts,
        // What was restored is checked by nobody but who restores it.
        verify: Verify::Worker,
        transfer: args.transfer.into(),
        stats: None,
        pack: args.pack,
        block: Blocks::None,
        dedup: false,
        ttl: None,
    };
    let request = match bag_of(&request.inputs, args.refs.is_some())? {
        Some(bag) => Box::pin(with_bag(request, bag, &args.reach)).await?,
        None => Box::pin(with_references(request, args.refs.as_deref(), &args.reach)).await?,
    };
    let follow = (&args.follow, &args.reach, &args.local);
    start(request, args.dry_run, follow, &mut signals).await
}

/// The bag on a broker whose id is named, if none of that name is a file.
///
/// # Errors
///
/// [`Usage`] if other things are named besides.
fn bag_of(inputs: &[PathBuf], list: bool) -> Result<Option<BagId>> {
    let Some(bag) = inputs.iter().find_map(|input| id_of(input)) else {
        return inputs.iter().find_map(|input| no_such_bag(input)).map_or(Ok(None), Err);
    };
    if inputs.len() > 1 || list {
        return Err(Usage::error(
            format!("{bag} is the id of a bag, and other things are named"),
            "restore each bag by itself, with --out DIR for all of them",
        ));
    }
    Ok(Some(bag))
}

/// Refuses what is no file, and could only be an id, but is none of a bag that anybody made.
fn no_such_bag(input: &Path) -> Option<anyhow::Error> {
    let text = input.to_str()?;
    let bag: BagId = text.parse().ok()?;
    let is_meant = text.contains('-') && input.symlink_metadata().is_err();
    is_meant.then(|| {
        Usage::error(
            format!("there is no file {bag}, and no bag of that id is known: an id ends in - and {ID_TAIL} of a-z and 2-7"),
            "`bagpress status --server URL` lists the bags of a server; or name a file, or a run folder, such as runs/t1/staged",
        )
    })
}

/// Restores a range of one file, by this process.
async fn range(args: RestoreArgs, span: Span, signals: &mut Signals) -> Result<ExitCode> {
    let request = RangeRequest {
        inputs: args.inputs,
        span,
        out: (args.out.as_os_str() != "-").then_some(args.out),
        overwrite: args.overwrite,
        trust: args.trust.trust(),
    };
    let stopped = Arc::new(AtomicBool::new(false));
    let mut restoring = tokio::task::spawn_blocking({
        let stopped = stopped.clone();
        move || {
            let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
            let restored = restore_range(&request, &mut stdout, &stopped)?;
            // What could not be written is an error already.
            stdout.flush().ok();
            Ok::<_, anyhow::Error>(restored)
        }
    });
    let restored = tokio::select! {
        restored = &mut restoring => restored,
        signalled = signals.received() => {
            stopped.store(true, Ordering::Relaxed);
            // Its file is removed first. One that hangs in the file system is not waited for.
            tokio::time::timeout(bagpress_broker::limits::STOP_WITHIN, restoring).await.ok();
            return Err(signalled.into());
        }
    };
    if let Some(restored) = restored.context("restore a range")??.filter(|_| !args.follow.quiet) {
        message(&format!("note: {} bytes; {}", restored.bytes, restored.how));
    }
    Ok(ExitCode::SUCCESS)
}
