//! `bagpress status`, `cancel` and `rm`.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::ids::BagId;
use bagpress_broker::{Address, Broker, Role, limits, server};
use bagpress_producer::{
    RunFolder, Specification, Usage, cancel, message, remove, status, sweep, task_status,
};
use serde::Serialize;

use crate::bag_cli::{CancelArgs, RmArgs, StatusArgs};
use crate::cli::BrokerAt;
use crate::logging;
use crate::run_cmd::{Named, Signals, address, print};

/// What a BAG argument names.
enum Bag {
    Folder(RunFolder, BagId),
    Id(BagId),
}

impl Bag {
    fn parse(text: &str) -> Result<Self> {
        if text.contains('/') {
            let folder = RunFolder::existing(Path::new(text))?;
            let specification = Specification::read(&folder)?;
            return Ok(Self::Folder(folder, specification.bag));
        }
        let id = text.parse().map_err(|error| {
            Usage::error(
                format!("{text} is no bag id: {error}"),
                "a run folder has a slash, such as runs/NAME/staged",
            )
        })?;
        Ok(Self::Id(id))
    }

    fn id(&self) -> &BagId {
        match self {
            Self::Folder(_, id) | Self::Id(id) => id,
        }
    }

    fn folder(&self) -> Option<&RunFolder> {
        match self {
            Self::Folder(folder, _) => Some(folder),
            Self::Id(_) => None,
        }
    }
}

/// Connects to the broker that was named, or to the run's own, if it runs. Starts nothing.
async fn reach(at: &BrokerAt, bag: Option<&Bag>) -> Result<Option<Broker>> {
    let named = address(at)?;
    let own = || bag.and_then(Bag::folder).and_then(|folder| server::running(&folder.broker()));
    let (address, from) = match named {
        Some((address, from)) => {
            let from = format!("{} (from {from})", address.url);
            (address, from)
        }
        None => match own() {
            Some(url) => (Address::plain(&url), "local".to_owned()),
            None => return Ok(None),
        },
    };
    message(&format!("broker: {from}"));
    Ok(Some(Broker::connect(&address, Role::Producer).await?))
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}

pub(crate) async fn status(args: StatusArgs) -> Result<ExitCode> {
    logging::start(None)?;
    let bag = args.bag.as_deref().map(Bag::parse).transpose()?;
    let broker = reach(&args.broker, bag.as_ref()).await?;
    if broker.is_none() {
        match &bag {
            Some(Bag::Folder(folder, _)) => say_where(folder),
            Some(Bag::Id(_)) | None => drop(address(&args.broker)?.context_missing()?),
        }
    }
    let broker = broker.as_ref();
    if let (Some(bag), Some(task)) = (&bag, args.task) {
        let task = task_status::of_task(bag.folder(), broker, bag.id(), task).await?;
        print(&if args.json { json(&task)? } else { task.to_string() })?;
        return Ok(ExitCode::SUCCESS);
    }
    if let (Some(bag), true) = (&bag, args.failed) {
        let failed = match (bag, broker) {
            (Bag::Folder(folder, _), _) => task_status::failed_in_folder(folder)?,
            (Bag::Id(id), Some(broker)) => task_status::failed_of_id(broker, id).await?,
            (Bag::Id(_), None) => Vec::new(),
        };
        let text: String = failed.iter().map(ToString::to_string).collect();
        print(&if args.json { json(&failed)? } else { text })?;
        return Ok(ExitCode::SUCCESS);
    }
    watch(&args, bag.as_ref(), broker).await
}

/// Where the bag's server is, for somebody who wants to know more than the ledger says.
fn say_where(folder: &RunFolder) {
    match folder.server() {
        Some(server) if server != "local" => {
            message(&format!("note: from the run folder alone; --server {server} tells more"));
        }
        _ => message("note: from the run folder alone, its server is not running"),
    }
}

async fn watch(args: &StatusArgs, bag: Option<&Bag>, broker: Option<&Broker>) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    loop {
        let (text, value, over) = match (bag, broker) {
            (Some(Bag::Folder(folder, _)), broker) => shown(&of_folder(folder, broker).await?)?,
            (Some(Bag::Id(id)), Some(broker)) => shown(&status::of_id(broker, id).await?)?,
            (_, Some(broker)) => {
                let overview = status::overview(broker).await?;
                (overview.to_string(), serde_json::to_value(&overview)?, false)
            }
            (_, None) => return Ok(ExitCode::SUCCESS),
        };
        if !args.json {
            let clear = args.watch && std::io::stdout().is_terminal();
            print(&format!("{}{text}", if clear { "\x1b[2J\x1b[H" } else { "" }))?;
        } else if args.watch {
            print(&format!("{value}\n"))?;
        } else {
            print(&json(&value)?)?;
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
async fn of_folder(folder: &RunFolder, broker: Option<&Broker>) -> Result<status::Bag> {
    match status::of_folder(folder, broker).await {
        Err(error) if folder.server().as_deref() == Some("local") => {
            tracing::debug!(%error, "the run's server has ended");
            status::of_folder(folder, None).await
        }
        told => told,
    }
}

fn shown(bag: &status::Bag) -> Result<(String, serde_json::Value, bool)> {
    let over = matches!(bag.state.as_str(), "finished" | "cancelled" | "stopped");
    Ok((bag.to_string(), serde_json::to_value(bag)?, over))
}

pub(crate) async fn cancel(args: CancelArgs) -> Result<ExitCode> {
    logging::start(None)?;
    let bag = Bag::parse(&args.bag)?;
    let broker = reach(&args.broker, Some(&bag)).await?;
    let broker = broker.map_or_else(|| Err(not_running(&bag)), Ok)?;
    let cancelled = cancel::cancel(&broker, bag.id()).await?;
    let text = if cancelled.cancelled {
        format!(
            "cancelled: {} of {} tasks were done, {} failed\n",
            cancelled.done, cancelled.tasks, cancelled.failed
        )
    } else {
        format!("{} was over before, nothing is cancelled\n", cancelled.bag)
    };
    print(&if args.json { json(&cancelled)? } else { text })?;
    if cancelled.cancelled {
        let folder = bag.folder().map(|folder| folder.path().display().to_string());
        let folder = folder.unwrap_or_else(|| "RUN_FOLDER".to_owned());
        message(&format!("next: bagpress gather {folder} --resume, or bagpress rm {}", args.bag));
    }
    Ok(ExitCode::SUCCESS)
}

fn not_running(bag: &Bag) -> anyhow::Error {
    match bag {
        Bag::Folder(folder, _) => {
            let (path, server) = (folder.path().display(), folder.server());
            match server.filter(|server| server != "local") {
                Some(server) => Usage::error(
                    format!("{path} was run on {server}, which was not named"),
                    format!("give --server {server}, or --context NAME"),
                ),
                None => Usage::error(
                    format!("{path} does not run now"),
                    format!("nothing is to be stopped; `bagpress rm {path}` removes it"),
                ),
            }
        }
        Bag::Id(_) => Usage::error(
            "no server was named",
            "give --server URL, --context NAME or BAGPRESS_SERVER",
        ),
    }
}

pub(crate) async fn rm(args: RmArgs) -> Result<ExitCode> {
    logging::start(None)?;
    let Some(name) = &args.bag else { return orphans(&args).await };
    let bag = Bag::parse(name)?;
    let named = address(&args.broker)?.is_some();
    let broker = reach(&args.broker, Some(&bag)).await?;
    let removed = match &bag {
        Bag::Id(id) => {
            let broker = broker.map_or_else(|| Err(not_running(&bag)), Ok)?;
            remove::from_broker(&broker, id, None, args.force).await?
        }
        Bag::Folder(folder, id) => {
            let elsewhere = folder.server().is_some_and(|server| server != "local");
            if elsewhere && !named && !args.folder_only {
                return Err(not_running(&bag));
            }
            if args.force
                && folder.gatherer().is_some()
                && let Some(broker) = &broker
            {
                cancel::cancel(broker, id).await?;
            }
            let patience = if args.force { limits::RELEASED_WITHIN } else { Duration::ZERO };
            let lock = folder.lock_within(patience).await?;
            let mut on_broker = remove::Removed::default();
            if let Some(broker) = broker.filter(|_| named) {
                on_broker = remove::from_broker(&broker, id, Some(&lock), args.force).await?;
            }
            let mut removed = remove::folder(folder, lock, args.outputs).await?;
            (removed.messages, removed.buckets) = (on_broker.messages, on_broker.buckets);
            removed
        }
    };
    let text = format!(
        "removed {}: {} messages, {} buckets, {} files\n",
        removed.bag,
        removed.messages,
        removed.buckets.len(),
        removed.files
    );
    print(&if args.json { json(&removed)? } else { text })?;
    for kept in &removed.kept {
        message(&format!("kept: {kept}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn orphans(args: &RmArgs) -> Result<ExitCode> {
    let mut swept = Vec::new();
    match reach(&args.broker, None).await? {
        Some(broker) => {
            swept.extend(sweep::broker(&broker, args.older_than.into(), args.dry_run).await?);
        }
        None => message("note: run folders only; --server URL sweeps a server too"),
    }
    let runs = sweep::runs(&args.runs, args.dry_run).await.context("sweep the run folders")?;
    swept.extend(runs);
    let verb = if args.dry_run { "would remove" } else { "removed" };
    let line = |s: &sweep::Swept| format!("{verb} {}: {}\n", s.what, s.why);
    let text: String = swept.iter().map(line).collect();
    print(&if args.json { json(&swept)? } else { text })?;
    if swept.is_empty() && !args.json {
        message("nothing to sweep");
    }
    Ok(ExitCode::SUCCESS)
}
