//! `bagpress verify`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use bagpress_broker::Address;
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::{BagId, Pool};
use bagpress_broker::quote::{name, words};
use bagpress_broker::server::{Durability, find_program};
use bagpress_objstore::staging::Allowed;
use bagpress_producer::local::{self, Cluster, Needed};
use bagpress_producer::{RunFolder, Specification, Verified, message};

use super::conclude::tell_what_helps;
use crate::broker_at::{address, flags_again};
use crate::cli::existing::VerifyArgs;
use crate::exit::SOME_FAILED;
use crate::idle::idle_flag;
use crate::logging;
use crate::terminal::tell;

/// Bags that are named as those whose outputs are in the place of others.
const MAKERS_NAMED: usize = 3;

pub(crate) async fn verify(args: VerifyArgs) -> Result<ExitCode> {
    logging::start(None)?;
    let folder = RunFolder::existing(&args.folder, args.common.trust.trust())?;
    let specification = Specification::read(&folder)?;
    let only_objects = specification.results == ResultPath::Objects && !specification.has_files();
    if args.nats_server.is_some() && !only_objects {
        let when = "where the outputs are files";
        return Err(idle_flag("--nats-server", when, "it is for objects in the run's own store"));
    }
    // Files are read where they are.
    let (at, own) = if only_objects { server(&args, &folder).await? } else { (None, None) };
    let patience = args.common.reach.begin();
    let verifying = bagpress_producer::verify(&folder, at.as_ref(), &patience, args.inputs);
    let verified = Box::pin(verifying).await;
    if let Some(cluster) = own {
        cluster.stop(Needed::Store).await;
    }
    let verified = verified?;
    tell(args.common.json, &verified, &text(&verified, args.inputs))?;
    Ok(conclude(
        &verified,
        &specification.bag,
        &folder,
        &flags_again(&args.common.reach.broker, &folder),
    ))
}

/// The server that has the objects: the one that was named, or one that is started on the run's own store.
async fn server(
    args: &VerifyArgs,
    folder: &RunFolder,
) -> Result<(Option<Address>, Option<Cluster>)> {
    if let Some((address, _)) = address(&args.common.reach.broker)? {
        return Ok((Some(address), None));
    }
    if !folder.store()?.is_dir() {
        return Ok((None, None));
    }
    let options = local::Options {
        program: find_program(args.nats_server.as_deref())?,
        workers: 0,
        durability: Durability::Default,
        pool: Pool::default(),
        allowed: Allowed::default(),
    };
    let (cluster, _) = Box::pin(Cluster::start(folder, &options)).await?;
    Ok((Some(cluster.address()), Some(cluster)))
}

/// Says what to do about what was found, and gives the exit code.
fn conclude(verified: &Verified, bag: &BagId, folder: &RunFolder, again: &str) -> ExitCode {
    if verified.bad_lines > 0 {
        message(&format!("note: {} lines of the ledger cannot be used", verified.bad_lines));
    }
    let run = name(folder.path());
    if verified.has_no_tree {
        message(&format!(
            "note: names, modes and times of the files are not kept with the outputs: bagpress gather {run} --repair{again} puts them there"
        ));
    }
    if verified.is_good() {
        return ExitCode::SUCCESS;
    }
    if verified.tree.is_some() {
        message(&format!(
            "note: without it, `bagpress restore {bag}` brings files back without modes and times, and under names that their outputs tell; --repair puts it there again"
        ));
    }
    if !verified.not_compared.is_empty() {
        message("note: outputs whose inputs have changed cannot be compared");
    }
    tell_of_replaced(verified, folder);
    let no_repair =
        verified.bad.is_empty() && verified.not_of_input.is_empty() && verified.tree.is_none();
    if no_repair && verified.missing == 0 {
        // What failed is not bad: there is nothing to repair.
        if verified.failed > 0 {
            tell_what_helps(verified.helps, folder, again);
        }
        return ExitCode::from(SOME_FAILED);
    }
    if !verified.not_of_input.is_empty() {
        message("hint: to have an output made again from its input, remove it");
    }
    message(&format!("hint: bagpress gather {run} --repair{again}"));
    ExitCode::from(SOME_FAILED)
}

/// What to do about outputs in whose place other files are: nothing is to be repaired.
fn tell_of_replaced(verified: &Verified, folder: &RunFolder) {
    if verified.replaced.is_empty() {
        return;
    }
    message(
        "note: nothing is wrong with what is replaced: another file has the output's name, and is left alone",
    );
    let makers = &verified.replaced_by;
    for maker in makers.iter().take(MAKERS_NAMED) {
        message(&format!("hint: bagpress verify {}", name(&maker.folder)));
    }
    if makers.len() > MAKERS_NAMED {
        message(&format!("note: and {} more bags", makers.len() - MAKERS_NAMED));
    }
    let folder = name(folder.path());
    message(&format!(
        "hint: an output is made again once that file was moved away: bagpress gather {folder} --repair"
    ));
}

/// What was found, a line for each output that is not good.
fn text(verified: &Verified, inputs: bool) -> String {
    let Verified { bad, not_of_input, not_compared, replaced, good, missing, failed, .. } =
        verified;
    let kinds = [
        ("bad", bad),
        ("not of its input", not_of_input),
        ("not compared", not_compared),
        ("replaced", replaced),
    ];
    let mut text = String::new();
    for (kind, (output, why)) in
        kinds.iter().flat_map(|(kind, found)| found.iter().map(move |found| (kind, found)))
    {
        writeln!(text, "{kind}: {}: {}", name(output), words(why)).ok();
    }
    if let Some((tree, why)) = &verified.tree {
        writeln!(text, "bad tree: {}: {}", name(tree), words(why)).ok();
    }
    let objects = verified.inputs_are_objects;
    if objects > 0 {
        let why = "their inputs are objects, which are not read again";
        writeln!(text, "not compared: {objects} outputs: {why}").ok();
    }
    let bad = bad.len();
    write!(text, "{good} good, {bad} bad, {missing} not done, {failed} failed").ok();
    if inputs {
        let (other, unknown) = (not_of_input.len(), not_compared.len() as u64 + objects);
        write!(text, ", {other} not of their input, {unknown} not compared").ok();
    }
    if verified.inputs_removed > 0 {
        let removed = verified.inputs_removed;
        write!(text, ", {removed} without input: --remove-source of the run removed it").ok();
    }
    if !replaced.is_empty() {
        write!(text, ", {} replaced", replaced.len()).ok();
    }
    text.push('\n');
    text
}
