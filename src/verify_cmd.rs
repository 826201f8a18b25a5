//! `bagpress verify`.

use std::process::ExitCode;

use anyhow::Result;
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::Pool;
use bagpress_broker::quote::{name, words};
use bagpress_broker::server::{Durability, find_program};
use bagpress_objstore::staging::Allowed;
use bagpress_producer::local::{self, Cluster};
use bagpress_producer::{RunFolder, Specification, message};

use crate::broker_at::address;
use crate::cli::VerifyArgs;
use crate::exit::SOME_FAILED;
use crate::flags::idle_flag;
use crate::logging;
use crate::terminal::print;

pub(crate) async fn verify(args: VerifyArgs) -> Result<ExitCode> {
    logging::start(None)?;
    let folder = RunFolder::existing(&args.folder, args.trust.trust())?;
    let specification = Specification::read(&folder)?;
    let only_objects = specification.results == ResultPath::Objects && !specification.has_files();
    if args.nats_server.is_some() && !only_objects {
        let beside = "where the outputs are files";
        return Err(idle_flag("--nats-server", beside, "it is for objects in the run's own store"));
    }
    // Files are read where they are.
    let named = if only_objects { address(&args.broker)? } else { None };
    let mut at = named.map(|(address, _)| address);
    let mut cluster = None;
    if at.is_none() && only_objects && folder.store()?.is_dir() {
        let options = local::Options {
            program: find_program(args.nats_server.as_deref())?,
            workers: 0,
            durability: Durability::Default,
            pool: Pool::default(),
            allowed: Allowed::default(),
        };
        let (started, _) = Box::pin(Cluster::start(&folder, &options)).await?;
        at = Some(started.address());
        cluster = Some(started);
    }
    let verified = bagpress_producer::verify(&folder, at.as_ref(), &args.patience.begin()).await;
    if let Some(cluster) = cluster {
        cluster.stop(true).await;
    }
    let verified = verified?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&verified)?))?;
    } else {
        for (output, why) in &verified.bad {
            print(&format!("bad: {}: {}\n", name(output), words(why)))?;
        }
        print(&format!(
            "{} good, {} bad, {} missing, {} failed\n",
            verified.good,
            verified.bad.len(),
            verified.missing,
            verified.failed
        ))?;
    }
    if verified.bad_lines > 0 {
        message(&format!("note: {} lines of the ledger cannot be used", verified.bad_lines));
    }
    if verified.is_good() {
        return Ok(ExitCode::SUCCESS);
    }
    let again = if verified.bad.is_empty() && verified.missing == 0 {
        // What failed is not bad: there is nothing to repair.
        "--retry-failed"
    } else {
        "--repair"
    };
    message(&format!("hint: bagpress gather {} {again}", name(folder.path())));
    Ok(ExitCode::from(SOME_FAILED))
}
