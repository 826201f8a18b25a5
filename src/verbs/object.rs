//! `bagpress object …`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use bagpress_broker::ids::Pool;
use bagpress_broker::quote::name;
use bagpress_broker::server::{self, Durability, find_program};
use bagpress_broker::{Broker, Role, subjects};
use bagpress_objstore::object_ref::Reference;
use bagpress_objstore::staging::Allowed;
use bagpress_producer::local::{self, Cluster, Needed};
use bagpress_producer::object::{self, Answer, Get, Put, State, Tally, To, Wait, named};
use bagpress_producer::{RunFolder, Specification, Usage, message};
use serde::Serialize;

use crate::broker_at::{Named as _, address};
use crate::cli::object::{AtArgs, ObjectArgs, ObjectVerb, RefsArgs};
use crate::exit::{SOME_FAILED, TIMED_OUT};
use crate::logging;
use crate::terminal::{print, print_json_line};

pub(crate) async fn object(args: ObjectArgs) -> Result<ExitCode> {
    logging::start(None)?;
    match args.verb {
        ObjectVerb::Put(args) => {
            let (bucket, ttl) = (args.bucket, args.ttl.map(Into::into));
            let put = Put { files: args.files, bucket, name: args.name, ttl };
            let json = args.at.json;
            let work = async |broker: &Broker, _: Option<&str>| {
                object::put(broker, &put, |answer| show(answer, json)).await
            };
            with_broker(&args.at, None, work).await
        }
        ObjectVerb::Get(args) => {
            let deadline = args.deadline.map(Into::into);
            // Where objects go to stdout, nothing else does.
            let (json, quiet) = (args.at.json, args.out == Path::new("-"));
            let work = async |broker: &Broker, bucket: Option<&str>| {
                let refs = references(&args.refs, bucket)?;
                let get = Get { to: To::of(&args.out, refs.len()), deadline };
                object::get(broker, &refs, &get, |answer| match (quiet, answer.ok) {
                    (true, true) => Ok(()),
                    (true, false) => {
                        message(&format!("error: {}", line(answer)));
                        Ok(())
                    }
                    _ => show(answer, json),
                })
                .await
            };
            with_broker(&args.at, None, work).await
        }
        ObjectVerb::Wait(args) => {
            let (timeout, json) = (args.timeout.map(Into::into), args.at.json);
            let work = async |broker: &Broker, bucket: Option<&str>| {
                let refs = references(&args.refs, bucket)?;
                let (all, num) = (refs.len() as u64, args.num);
                let num = num.unwrap_or(all);
                if num > all {
                    let what = format!("--num {num}: only {all} objects are named");
                    return Err(Usage::error(what, "name more, or choose a smaller --num"));
                }
                let wait = Wait { num, timeout };
                let waited = object::wait(broker, &refs, wait, |answer| show_waited(answer, json));
                let tally = waited.await?;
                // What is gone does no harm if enough others are there.
                Ok(if tally.done >= num { Tally { failed: 0, ..tally } } else { tally })
            };
            with_broker(&args.at, None, work).await
        }
        ObjectVerb::Info(args) => {
            let (json, digest) = (args.at.json, args.digest);
            let work = async |broker: &Broker, bucket: Option<&str>| {
                let refs = references(&args.refs, bucket)?;
                object::info(broker, &refs, digest, |answer| show(answer, json)).await
            };
            with_broker(&args.at, None, work).await
        }
        ObjectVerb::Ls(args) => {
            let run = args.bucket.as_deref().filter(|bucket| bucket.contains('/'));
            let run = run.map(PathBuf::from);
            let (json, holders) = (args.at.json, args.holders);
            let named = args.bucket.as_deref().filter(|_| run.is_none());
            let work = async |broker: &Broker, bucket: Option<&str>| match named.or(bucket) {
                Some(bucket) => {
                    object::list(broker, bucket, holders, |answer| show(answer, json)).await
                }
                None => {
                    object::buckets(broker, |bucket| show_bucket(bucket, json)).await?;
                    Ok(Tally::default())
                }
            };
            with_broker(&args.at, run.as_deref(), work).await
        }
        ObjectVerb::Pin(args) => {
            let json = args.at.json;
            let work = async |broker: &Broker, bucket: Option<&str>| {
                let refs = references(&args.refs, bucket)?;
                object::pin(broker, &refs, &args.name, |answer| show(answer, json)).await
            };
            with_broker(&args.at, None, work).await
        }
        ObjectVerb::Unpin(args) => {
            let json = args.at.json;
            let work = async |broker: &Broker, bucket: Option<&str>| {
                let refs = references(&args.refs, bucket)?;
                object::unpin(broker, &refs, &args.name, |answer| show(answer, json)).await
            };
            with_broker(&args.at, None, work).await
        }
        ObjectVerb::Free(args) => {
            let json = args.at.json;
            let work = async |broker: &Broker, bucket: Option<&str>| {
                let refs = references(&args.refs, bucket)?;
                object::free(broker, &refs, |answer| show(answer, json)).await
            };
            with_broker(&args.at, None, work).await
        }
    }
}

fn references(args: &RefsArgs, bucket: Option<&str>) -> Result<Vec<Reference>> {
    let named = named(&args.names, args.list.as_deref(), bucket)?;
    Ok(named.into_iter().map(|named| named.reference).collect())
}

/// Does `work` with the broker that has the objects, which is that of a run if one is named, whose bucket is told then.
async fn with_broker(
    args: &AtArgs,
    run: Option<&Path>,
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
        (None, Some(folder)) => of_run(args, folder).await?,
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
        workers: 0,
        durability: Durability::Default,
        pool: Pool::default(),
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

fn show(answer: &Answer, json: bool) -> Result<()> {
    if json { print_json_line(answer) } else { print(&format!("{}\n", line(answer))) }
}

/// What is waited for: whether it is there, may come, or is gone for good.
fn show_waited(answer: &Answer, json: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Waited<'a> {
        wait: &'static str,
        #[serde(flatten)]
        answer: &'a Answer,
    }
    let wait = match answer.state {
        State::There => "ready",
        State::NeverThere => "pending",
        _ => "gone",
    };
    if json {
        return print_json_line(&Waited { wait, answer });
    }
    match wait {
        "gone" => print(&format!("gone {}\n", line(answer))),
        _ => print(&format!("{wait} {}\n", answer.reference)),
    }
}

fn show_bucket(bucket: &object::BucketAnswer, json: bool) -> Result<()> {
    if json {
        return print_json_line(bucket);
    }
    let mut line = format!("{} {} bytes", bucket.bucket, bucket.bytes);
    if let Some(bag) = &bucket.bag {
        line.push_str(&format!(", of bag {bag}"));
    }
    if let Some(ttl) = bucket.ttl_s {
        line.push_str(&format!(", nothing stays longer than {ttl} s"));
    }
    print(&format!("{line}\n"))
}

/// An answer for a person.
fn line(answer: &Answer) -> String {
    let word =
        if answer.ok || answer.state != State::There { answer.state.as_str() } else { "refused" };
    let mut line = format!("{word} {}", answer.reference);
    if let Some(why) = answer.why.as_ref().filter(|_| !answer.ok) {
        return format!("{line}: {why}");
    }
    if let Some(bytes) = answer.bytes {
        line.push_str(&format!(" {bytes} bytes"));
    }
    if let Some(digest) = &answer.digest {
        line.push_str(&format!(" {digest}"));
    }
    if let Some(expires) = &answer.expires {
        line.push_str(&format!(", expires {expires}"));
    }
    if !answer.pins.is_empty() {
        let pins: Vec<_> = answer.pins.iter().map(|pin| pin.name.as_str()).collect();
        line.push_str(&format!(", {} pins: {}", pins.len(), pins.join(", ")));
    }
    if !answer.holders.is_empty() {
        let keepers = answer.keepers().count();
        let bags = answer.holders.iter().map(|held| format!("{} ({})", held.bag, held.is));
        let bags: Vec<_> = bags.collect();
        line.push_str(&format!(", {keepers} holders; bags: {}", bags.join(", ")));
    }
    if let Some(file) = &answer.file {
        line.push_str(&format!(", {}", name(file)));
    }
    line
}
