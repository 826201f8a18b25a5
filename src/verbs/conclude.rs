//! The end of a bag: its summary is written and printed, and what it needs no longer is removed.

use std::process::ExitCode;

use anyhow::Result;
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::quote::name;
use bagpress_broker::server::remove_store;
use bagpress_producer::gather::Gathered;
use bagpress_producer::{
    Cancelled, Helps, RemovedInputs, RunFolder, Summary, message, write_failed,
};

use crate::cli::common::FollowArgs;
use crate::exit::SOME_FAILED;
use crate::terminal::{print, print_json};

/// What is said of closed folders, and of names that cannot be had.
const NEW_RUN: &str = "hint: a file in a closed folder is not in this bag, and one whose name is too long, or whose output would be the file itself, \
                       cannot be done: open it, rename it or choose another --out, then give the same `bagpress run` again with --update, \
                       and without --name";
/// The same of what was to be restored.
const NEW_RESTORE: &str = "hint: a file in a closed folder is not in this bag, and one whose name is too long, or whose original would be the file itself, \
                           cannot be restored: open it, or choose another --out; of what the run has no output, `bagpress gather` of the run makes one; then restore again, without --name";
/// What is said of outputs whose names others have.
const CLEAR_WAY: &str = "hint: what fails with output-exists is done once the file that has the output's name was moved away";

/// What is said of arrays that the codec does not take so, and of objects with another digest than was said.
const OTHER_REQUEST: &str = "hint: what fails for its type, shape or values, or because its object has another digest than was said, fails again: give \
                             another codec (docs/zfp.md), or the digest that `bagpress object info` prints, to a new run";

/// Sums up what was gathered. `again` are the flags that lead the next command to the same broker.
///
/// # Errors
///
/// What ended the gathering before the bag was complete; what the disk says of the summary.
pub(super) async fn conclude(
    folder: &RunFolder,
    gathered: Result<(Gathered, Option<RemovedInputs>)>,
    args: &FollowArgs,
    again: &str,
) -> Result<ExitCode> {
    let (gathered, sources) = match gathered {
        Ok(gathered) => gathered,
        Err(error) => {
            let resume = if error.is::<Cancelled>() { " --resume" } else { "" };
            let folder = name(folder.path());
            message(&format!("note: `bagpress gather {folder}{resume}{again}` continues it"));
            return Err(error);
        }
    };
    if let Some(first) = sources.as_ref().and_then(|sources| sources.first_kept.as_ref()) {
        message(&format!("note: not all inputs could be removed, such as {first}"));
    }
    let summary = Summary::of(&gathered, folder).with_sources(sources);
    write_failed(folder, &gathered.plan)?;
    summary.write(folder)?;
    if gathered.plan.specification.results == ResultPath::Staged {
        remove_store(&folder.store()?).await?;
    }
    let (failed, tasks, helps) =
        (summary.failed, summary.tasks, summary.failures.what_helps(summary.failed));
    if args.json {
        print_json(&summary.all_failures(&gathered))?;
    } else {
        print(&summary.text())?;
    }
    if failed > 0 {
        message(&format!("error: {failed} of {tasks} tasks failed"));
        let restores = gathered.plan.specification.restores();
        tell_what_helps(Helps { new_run: helps.new_run && !restores, ..helps }, folder, again);
        if helps.new_run && restores {
            message(NEW_RESTORE);
        }
        return Ok(ExitCode::from(SOME_FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what helps failed tasks.
pub(super) fn tell_what_helps(helps: Helps, folder: &RunFolder, again: &str) {
    if helps.clear_way {
        message(CLEAR_WAY);
    }
    if helps.retry {
        let folder = name(folder.path());
        message(&format!("hint: bagpress gather {folder} --retry-failed{again}"));
    }
    if helps.new_run {
        message(NEW_RUN);
    }
    if helps.other_request {
        message(OTHER_REQUEST);
    }
}
