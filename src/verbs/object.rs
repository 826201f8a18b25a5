//! `bagpress object …`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use bagpress_broker::quote::name;
use bagpress_broker::server::{self, Durability, find_program};
use bagpress_broker::{Broker, Role, subjects};
use bagpress_objstore::object_ref::Reference;
use bagpress_objstore::staging::Allowed;
use bagpress_producer::local::{self, Cluster, Needed};
use bagpress_producer::object::{self, Answer, Get, Put, Reconstruct, Tally, To, Wait, named};
use bagpress_producer::{RunFolder, Specification, Usage, message};

use super::object_text::{line, show, show_bucket, show_waited};
use crate::broker_at::{Named as _, address};
use crate::cli::object::{
    AtArgs, FreeArgs, GetArgs, InfoArgs, LsArgs, ObjectArgs, ObjectVerb, PinArgs, PutArgs,
    RefsArgs, WaitArgs,
};
use crate::exit::{SOME_FAILED, TIMED_OUT};
use crate::logging;

pub(crate) async fn object(args: ObjectArgs) -> Result<ExitCode> {
    logging::start(None)?;
    match args.verb {
        ObjectVerb::Put(args) => put(args).await,
        ObjectVerb::Get(args) => get(args).await,
        ObjectVerb::Wait(args) => wait(args).await,
        ObjectVerb::Ls(args) => ls(args).await,
        ObjectVerb::Info(InfoArgs { refs, digest, at }) => {
            let work = async |broker: &Broker, refs: Vec<Reference>| {
                object::info(broker, &refs, digest, |answer| show(answer, at.json)).await
            };
            with_references(&at, &refs, work).await
        }
        ObjectVerb::Pin(PinArgs { refs, name, at }) => {
            let work = async |broker: &Broker, refs: Vec<Reference>| {
                object::pin(broker, &refs, &name, |answer| show(answer, at.json)).await
            };
            with_references(&at, &refs, work).await
        }
        ObjectVerb::Unpin(PinArgs { refs, name, at }) => {
            let work = async |broker: &Broker, refs: Vec<Reference>| {
                object::unpin(broker, &refs, &name, |answer| show(answer, at.json)).await
            };
            with_references(&at, &refs, work).await
        }
        ObjectVerb::Free(FreeArgs { refs, at }) => {
            let work = async |broker: &Broker, refs: Vec<Reference>| {
                object::free(broker, &refs, |answer| show(answer, at.json)).await
            };
            with_references(&at, &refs, work).await
        }
    }
}

async fn put(PutArgs { files, bucket, name, ttl, at }: PutArgs) -> Result<ExitCode> {
    let put = Put { files, bucket, name, ttl: ttl.map(Into::into) };
    let work = async |broker: &Broker, _: Option<&str>| {
        object::put(broker, &put, |answer| show(answer, at.json)).await
    };
    with_broker(&at, None, 0, work).await
}

async fn get(GetArgs { refs, out, deadline, depth, budget, at }: GetArgs) -> Result<ExitCode> {
    // Where objects go to stdout, nothing else does.
    let (quiet, deadline) = (out == Path::new("-"), deadline.map(Into::into));
    let tell = |answer: &Answer| {
        if !quiet {
            return show(answer, at.json);
        }
        if !answer.ok {
            message(&format!("error: {}", line(answer)));
        }
        Ok(())
    };
    let work = async |broker: &Broker, bucket: Option<&str>| {
        let refs = references(&refs, bucket)?;
        let reconstruct = Reconstruct { depth, tasks: budget };
        let get = Get { to: To::of(&out, refs.len()), deadline, reconstruct };
        object::get(broker, &refs, &get, tell).await
    };
    // Of a run that is over nobody else makes again what is lost.
    with_broker(&at, None, usize::from(depth > 0), work).await
}

async fn wait(WaitArgs { refs, num, timeout, at }: WaitArgs) -> Result<ExitCode> {
    let timeout = timeout.map(Into::into);
    let work = async |broker: &Broker, refs: Vec<Reference>| {
        let all = refs.len() as u64;
        let num = num.unwrap_or(all);
        if num > all {
            let what = format!("--num {num}: only {all} objects are named");
            return Err(Usage::error(what, "name more, or choose a smaller --num"));
        }
        let wait = Wait { num, timeout };
        let tally =
            object::wait(broker, &refs, wait, |answer| show_waited(answer, at.json)).await?;
        // What is gone does no harm if enough others are there.
        Ok(if tally.done >= num { Tally { failed: 0, ..tally } } else { tally })
    };
    with_references(&at, &refs, work).await
}

async fn ls(LsArgs { bucket, holders, at }: LsArgs) -> Result<ExitCode> {
    let (run, named) = match bucket {
        Some(bucket) if bucket.contains('/') => (Some(PathBuf::from(bucket)), None),
        named => (None, named),
    };
    let work = async |broker: &Broker, bucket: Option<&str>| {
        if let Some(bucket) = named.as_deref().or(bucket) {
            return object::list(broker, bucket, holders, |answer| show(answer, at.json)).await;
        }
        object::buckets(broker, |bucket| show_bucket(bucket, at.json)).await?;
        Ok(Tally::default())
    };
    with_broker(&at, run.as_deref(), 0, work).await
}

/// Does `work` with the objects that are named, and the broker that has them.
async fn with_references(
    at: &AtArgs,
    args: &RefsArgs,
    work: impl AsyncFnOnce(&Broker, Vec<Reference>) -> Result<Tally>,
) -> Result<ExitCode> {
    let named =
        async |broker: &Broker, bucket: Option<&str>| work(broker, references(args, bucket)?).await;
    with_broker(at, None, 0, named).await
}

fn references(args: &RefsArgs, bucket: Option<&str>) -> Result<Vec<Reference>> {
    let named = named(&args.names, args.list.as_deref(), bucket)?;
    Ok(named.into_iter().map(|named| named.reference).collect())
}

/// Does `work` with the broker that has the objects, which is that of a run if one is named, whose bucket is told then. A
/// server that is started for it gets so many workers.
async fn with_broker(
    args: &AtArgs,
    run: Option<&Path>,
    workers: usize,
    work: impl AsyncFnOnce(&Broker, Option<&str>) -> Result<Tally>,
) -> Result<ExitCode> {
    let run = run.or(args.run.as_deref());
    let folder = run.map(|run| RunFolder::existing(run, args.trust.trust())).transpose()?;
    let bucket = match &folder {
        Some(folder) => Some(subjects::bucket(&Specification::read(folder)?.bag)),
        None => None,
    };
    let (address, own) = match (address(&args.reach.broker)?, &folder) {
        (Some((address, from)), _) => {
            message(&format!("broker: {} (from {from})", address.url()));
            (address, None)
        }
        (None, Some(folder)) => of_run(args, folder, workers).await?,
        (None, None) => return None.context_missing().map(|_| ExitCode::SUCCESS),
    };
    let done = async {
        let broker = args.reach.begin().connect(&address, Role::Producer).await?;
        broker.unless_denied(Box::pin(work(&broker, bucket.as_deref()))).await
    };
    let done = Box::pin(done).await;
    if let Some(cluster) = own {
        cluster.stop(Needed::Store).await;
    }
    Ok(conclude(done?))
}

/// The run's own server: the one that runs, or one that is started on the run's store.
async fn of_run(
    args: &AtArgs,
    folder: &RunFolder,
    workers: usize,
) -> Result<(bagpress_broker::Address, Option<Cluster>)> {
    let (store, path) = (folder.store()?, name(folder.path()));
    if let Some(running) = server::running(&store)? {
        message("broker: local");
        return Ok((running, None));
    }
    if let Some(server) = folder.server()?.filter(|server| server != "local") {
        let what = format!("{path} was run on {server}, which was not named");
        return Err(Usage::error(what, format!("give --server {server}, or --context NAME")));
    }
    if !store.is_dir() {
        let what = format!("{path} has no objects: its outputs are files, or it never began");
        return Err(Usage::error(what, "name the run of a bag with --results objects"));
    }
    message("broker: local");
    let options = local::Options {
        program: find_program(args.nats_server.as_deref())?,
        workers,
        durability: Durability::Default,
        pool: Specification::read(folder)?.pool,
        allowed: Allowed::default(),
    };
    let (cluster, _) = Box::pin(Cluster::start(folder, &options)).await?;
    Ok((cluster.address(), Some(cluster)))
}

fn conclude(tally: Tally) -> ExitCode {
    if tally.timed_out {
        let (pending, all) = (tally.pending, tally.done + tally.failed + tally.pending);
        message(&format!("error: {pending} of {all} objects were not there in time"));
        return ExitCode::from(TIMED_OUT);
    }
    if tally.failed > 0 {
        return ExitCode::from(SOME_FAILED);
    }
    ExitCode::SUCCESS
}
