//! Finds outputs of earlier runs that files of an update may have: a file that was moved or copied is a new one, and its content is not.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::Verify;
use bagpress_broker::result::{Done, Place};
use bagpress_objstore::staging::Plan as _;
use tracing::debug;

use crate::run_folder::earlier::{EarlierOutput, OUTPUTS_MAX};
use crate::run_folder::folder::RunFolder;
use crate::run_folder::inputs::lists::Finished;
use crate::run_folder::inputs::selection::Existing;
use crate::run_folder::plan::read_plan;
use crate::run_folder::runs::run_folders;
use crate::run_folder::specification::Specification;
use crate::run_folder::twins::BYTES_MIN;
use crate::submit::request::Request;

/// Runs whose ledgers are read, the newest.
const RUNS_MAX: usize = 16;

/// Lists the outputs of earlier runs in `out` whose inputs had the size of a file that is to be compressed: of those in the folder of
/// all runs that wrote there with the same codec. Blocks: reads their ledgers, if there is a file of 16 KiB and more.
///
/// # Errors
///
/// What the system said of the lists; a run that cannot be read or is not believed has no outputs.
pub(crate) fn find(
    request: &Request,
    own: &RunFolder,
    out: Option<&Path>,
    lists: &mut Finished,
) -> Result<()> {
    let updates = matches!(request.selection.existing, Existing::Update { .. });
    let Some(out) = out.filter(|_| updates) else { return Ok(()) };
    let mut wanted =
        Wanted { out, sizes: HashSet::new(), seen: HashSet::new(), verify: request.verify };
    for file in lists.inputs()?.packable() {
        let file = file.context("read the list of inputs")?;
        if file.is_file && !file.refused && file.codec.is_none() && file.bytes >= BYTES_MIN {
            wanted.sizes.insert(file.bytes);
        }
    }
    if wanted.sizes.is_empty() {
        return Ok(());
    }
    for (folder, specification) in runs(request, own, out)? {
        if let Err(error) = wanted.of_run(&folder, specification, lists)? {
            debug!(error = format!("{error:#}"), folder = ?folder.path(), "its outputs are nobody's");
        }
    }
    lists.end_earlier()
}

/// The runs that wrote to `out` with the codec of the request, the newest first.
fn runs(request: &Request, own: &RunFolder, out: &Path) -> Result<Vec<(RunFolder, Specification)>> {
    let codec = request.codec()?;
    let mut runs = Vec::new();
    for (path, folder) in run_folders(&request.runs, request.trust).unwrap_or_default() {
        let Some(folder) = folder.ok().filter(|_| path != own.path()) else { continue };
        let Ok(specification) = Specification::read(&folder) else { continue };
        let wrote_there = specification.out.as_deref() == Some(out);
        if wrote_there && specification.codec == codec && !specification.restores() {
            runs.push((folder, specification));
        }
    }
    runs.sort_by_key(|(_, specification)| std::cmp::Reverse(specification.created_us));
    runs.truncate(RUNS_MAX);
    Ok(runs)
}

/// What outputs are looked for.
struct Wanted<'a> {
    out: &'a Path,
    sizes: HashSet<u64>,
    /// Size and digest of the inputs whose outputs are listed.
    seen: HashSet<(u64, bagpress_codec::Digest)>,
    verify: Verify,
}

impl Wanted<'_> {
    /// Lists the outputs of one run. The inner error is that of the run.
    fn of_run(
        &mut self,
        folder: &RunFolder,
        specification: Specification,
        lists: &mut Finished,
    ) -> Result<Result<()>> {
        let plan = match read_plan(folder, specification) {
            Ok(plan) => plan,
            Err(error) => return Ok(Err(error)),
        };
        let mut listed = Ok(());
        let reading = plan.ledger.outcomes(|result| {
            let Some(done) = result.done().filter(|done| self.wants(done)) else { return };
            if plan.section(result.index).is_some() || listed.is_err() {
                return;
            }
            if !plan.codec(result.index).is_ok_and(|codec| codec == plan.specification.codec) {
                return; // of a list whose tasks have codecs of their own
            }
            let Ok(target) = plan.target(result.index) else { return };
            let there = self.out.join(&target.path).symlink_metadata();
            if there.is_ok_and(|there| there.is_file() && there.len() == done.output_bytes) {
                self.seen.insert((done.input_bytes, done.input_digest));
                let done = Done { place: Place::Staged, choice: None, ..done.clone() };
                let output = EarlierOutput { path: target.path, file: result.file, done };
                listed = lists.earlier(&output);
            }
        });
        listed?;
        Ok(reading.context("read the ledger"))
    }

    fn wants(&self, done: &Done) -> bool {
        let verified = done.verified || self.verify == Verify::None;
        verified
            && self.seen.len() < OUTPUTS_MAX
            && self.sizes.contains(&done.input_bytes)
            && !self.seen.contains(&(done.input_bytes, done.input_digest))
    }
}
