//! From the flags of a bag to a bag that is prepared: what `run` and `submit` share.

use std::process::ExitCode;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bagpress_broker::descriptor::Verify;
use bagpress_broker::ids::BagId;
use bagpress_broker::{Address, Role};
use bagpress_codec::Codec;
use bagpress_objstore::object_ref::Reference;
use bagpress_producer::object::named;
use bagpress_producer::{Generated, Preparation, Prepared, Request, Selection};
use bagpress_producer::{Usage, message};
use bagpress_producer::{prepare, resolve, resolve_bag};

use super::preview;
use crate::broker_at::address;
use crate::cli::arrays::Said;
use crate::cli::bag::{BagArgs, GoalArg, StatsArg, VerifyArg};
use crate::cli::broker::ReachArgs;
use crate::logging;
use crate::terminal::{interruptible, notes};

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

/// The same request, with references in place of inputs that are named as `obj://…`, and of the ones that `list` has: the broker
/// that was named is asked what is known of them.
///
/// # Errors
///
/// [`Usage`] if no broker was named, or one is no reference; if the broker does not answer.
pub(super) async fn with_references(
    mut request: Request,
    list: Option<&Path>,
    reach: &ReachArgs,
) -> Result<Request> {
    let text = |path: &PathBuf| path.to_str().is_some_and(Reference::is_meant);
    let (meant, files): (Vec<_>, Vec<_>) = request.inputs.into_iter().partition(text);
    request.inputs = files;
    if let Some(from) = &mut request.selection.files_from {
        from.has_broker = address(&reach.broker)?.is_some();
    }
    if meant.is_empty() && list.is_none() {
        return Ok(request);
    }
    let meant: Vec<_> = meant.iter().map(|path| path.display().to_string()).collect();
    let named = named(&meant, list, None)?;
    let what = "references are to objects on a server, and none was named";
    let at = server_of_objects(reach, what)?;
    let resolving = async {
        let broker = reach.begin().connect(&at.0, Role::Producer).await?;
        request.references =
            broker.unless_denied(resolve(&broker, &named, request.restore)).await?;
        Ok(request)
    };
    Box::pin(interruptible(resolving)).await
}

/// The broker that was named, which objects are on.
fn server_of_objects(reach: &ReachArgs, what: &str) -> Result<(Address, String)> {
    let hint = "give --server URL, --context NAME or BAGPRESS_SERVER; `bagpress broker --store RUN/.broker` serves the objects of a local run";
    address(&reach.broker)?.ok_or_else(|| Usage::error(what, hint))
}

/// The same request to restore, with the outputs of a bag in place of its id.
///
/// # Errors
///
/// [`Usage`] if no broker was named, or the bag cannot be restored by what it knows; if the broker does not answer.
pub(super) async fn with_bag(
    mut request: Request,
    bag: BagId,
    reach: &ReachArgs,
) -> Result<Request> {
    let what = format!(
        "there is no file {bag}; and as the id of a bag it needs the server that has the bag"
    );
    let at = server_of_objects(reach, &what)?;
    request.inputs.clear();
    let resolving = async {
        let broker = reach.begin().connect(&at.0, Role::Producer).await?;
        let resolving = Box::pin(resolve_bag(&broker, &bag));
        (request.references, request.folders) = broker.unless_denied(resolving).await?;
        Ok(request)
    };
    Box::pin(interruptible(resolving)).await
}

/// What the flags ask for.
///
/// # Errors
///
/// [`Usage`] if they contradict each other.
pub(super) fn request(bag: BagArgs) -> Result<Request> {
    let named = codec(bag.codec, bag.goal)?;
    let dedup = !bag.select.no_dedup;
    let stores_nothing = named.as_ref().is_some_and(Codec::stores_nothing);
    let said = Said { dtype: bag.dtype, shape: bag.shape };
    let (codec, generated) = match bag.generated.tasks {
        None => (said.of_files(named)?, None),
        Some(tasks) => {
            let bytes = bag.generated.bytes.map(|bytes| bytes.as_u64());
            let default = if stores_nothing { 0 } else { 2 << 20 };
            let (codec, data, bytes) =
                said.of_generated(named, bag.generated.data, (bytes, default))?;
            (codec, Some(Generated { tasks, bytes, data, seed: bag.generated.seed }))
        }
    };
    if generated.is_none() && bag.generated.bytes.is_some() {
        return Err(Usage::error("--bytes is for generated bags", "say how many with --tasks N"));
    }
    Ok(Request {
        inputs: bag.inputs,
        references: Vec::new(),
        folders: Vec::new(),
        restore: false,
        selection: Selection { note_changes: bag.remove_source, ..bag.select.into() },
        generated,
        codec,
        delivery: bag.delivery,
        results: bag.results,
        out: bag.out,
        get: bag.get,
        keep_inputs: bag.keep_inputs,
        remove_source: bag.remove_source,
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
        dedup,
        ttl: bag.ttl.map(Into::into),
    })
}

/// The codec that the flags ask for, if they do.
fn codec(named: Option<Codec>, goal: Option<GoalArg>) -> Result<Option<Codec>> {
    let Some(goal) = goal else { return Ok(named) };
    if let Some(named) = named.filter(|named| named.to_string() != "auto") {
        return Err(Usage::error(
            format!("--goal says what --codec auto chooses by, and {named} is named"),
            "leave one of them out",
        ));
    }
    Ok(Some(goal.codec().parse()?))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("prepare the bag")?
}
