//! `bagpress status`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use bagpress_broker::{Broker, Role, limits, quote};
use bagpress_producer::{RunFolder, message, status};

use crate::broker_at::{Bag, Named, address, flags_again, reach, unless_denied};
use crate::cli::existing::StatusArgs;
use crate::logging;
use crate::terminal::{Signals, clear, print, print_json, tell};

pub(crate) async fn status(args: StatusArgs) -> Result<ExitCode> {
    logging::start(None)?;
    let bag = args.bag.as_deref().map(|bag| Bag::parse(bag, &args.common.trust)).transpose()?;
    if let (Some(Bag::Folder(folder, _)), true) = (&bag, args.failed) {
        // The ledger has all of it.
        return failed(&args, &status::task::failed_in_folder(folder)?);
    }
    // Looking takes no more than an observer's rights.
    let broker = reach(&args.common.reach, bag.as_ref(), Role::Observer).await?;
    if broker.is_none() {
        match &bag {
            Some(Bag::Folder(folder, _)) => say_where(folder)?,
            Some(Bag::Id(_)) | None => {
                address(&args.common.reach.broker)?.context_missing()?;
            }
        }
    }
    let broker = broker.as_ref();
    unless_denied(broker, Box::pin(show(&args, bag.as_ref(), broker))).await
}

async fn show(args: &StatusArgs, bag: Option<&Bag>, broker: Option<&Broker>) -> Result<ExitCode> {
    if let (Some(bag), Some(task)) = (bag, &args.task) {
        let index = status::which::which(bag.folder(), task)?;
        let task = status::task::of_task(bag.folder(), broker, bag.id(), index).await?;
        tell(args.common.json, &task, &task.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let (Some(Bag::Id(id)), Some(broker), true) = (bag, broker, args.failed) {
        return failed(args, &status::task::failed_of_id(broker, id).await?);
    }
    watch(args, bag, broker).await
}

/// Prints failed tasks, each with its attempts.
fn failed(args: &StatusArgs, failed: &[status::task::Task]) -> Result<ExitCode> {
    let text: String = failed.iter().map(ToString::to_string).collect();
    tell(args.common.json, &failed, &text)?;
    Ok(ExitCode::SUCCESS)
}

/// Where the bag's server is, which knows more than the ledger.
fn say_where(folder: &RunFolder) -> Result<()> {
    match folder.server()? {
        Some(server) if server != "local" => {
            message(&format!("note: from the run folder alone; --server {server} tells more"));
        }
        _ => message("note: the run's server is not running; this is what the run folder says"),
    }
    Ok(())
}

async fn watch(args: &StatusArgs, bag: Option<&Bag>, broker: Option<&Broker>) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let flags = bag.and_then(Bag::folder).map(|of| flags_again(&args.common.reach.broker, of));
    let flags = flags.unwrap_or_default();
    loop {
        let (text, value, over) = match (bag, broker) {
            (Some(Bag::Folder(folder, _)), broker) => {
                shown(&of_folder(folder, broker, &flags).await?)?
            }
            (Some(Bag::Id(id)), Some(broker)) => shown(&status::of_id(broker, id).await?)?,
            (_, Some(broker)) => {
                let overview = status::overview(broker).await?;
                (overview.to_string(), serde_json::to_value(&overview)?, false)
            }
            (_, None) => return Ok(ExitCode::SUCCESS),
        };
        if !args.common.json {
            if args.watch && std::io::stdout().is_terminal() {
                clear()?;
            }
            print(&text)?;
        } else if args.watch {
            print(&format!("{}\n", quote::json(&value.to_string())))?;
        } else {
            print_json(&value)?;
        }
        if !args.watch || over {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = tokio::time::sleep(limits::GATHERER_RENEWAL) => {}
            signalled = signals.received() => return Err(signalled.into()),
        }
    }
}

/// As the broker and the ledger tell it; as the ledger alone does, where the run's own server has ended
/// meanwhile.
async fn of_folder(
    folder: &RunFolder,
    broker: Option<&Broker>,
    flags: &str,
) -> Result<status::Bag> {
    match status::of_folder(folder, broker, flags).await {
        Err(error) if folder.server()?.as_deref() == Some("local") => {
            tracing::debug!(%error, "the run's server has ended");
            status::of_folder(folder, None, flags).await
        }
        told => told,
    }
}

fn shown(bag: &status::Bag) -> Result<(String, serde_json::Value, bool)> {
    let over = matches!(bag.state.as_str(), "finished" | "cancelled" | "stopped");
    Ok((bag.to_string(), serde_json::to_value(bag)?, over))
}
