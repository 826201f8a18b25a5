//! A bag whose inputs are objects: its list.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bagpress_broker::quote;
use bagpress_broker::result::Failed;
use bagpress_codec::Codec;
use bagpress_objstore::beneath::inside;

use crate::error::Usage;
use crate::run_folder::helps::RESTORE_AGAIN;
use crate::run_folder::inputs::existing::{Comparison, Outputs};
use crate::run_folder::inputs::finder::Found;
use crate::run_folder::inputs::lists::Sink;
use crate::run_folder::inputs::stream::{Stream, by_name, endings};
use crate::run_folder::inputs::{InputEntry, Referenced};
use crate::submit::planned::Planned;
use crate::submit::request::Request;

/// Lists the objects of a request as tasks, whose outputs become the files of `outputs`, if they do.
///
/// # Errors
///
/// [`Usage`] if two have one target, a target leads out of the folder, or its name is taken and nothing was said about that; if nobody knows what made one that is to be restored.
pub(super) fn list(
    request: &Request,
    outputs: Option<&Outputs>,
    sink: &mut dyn Sink,
) -> Result<Found> {
    let (mut found, mut targets) = (Found::default(), HashMap::new());
    let first = request.references.first().map(|planned| planned.reference.bucket());
    let one_bucket = request.references.iter().all(|of| Some(of.reference.bucket()) == first);
    for planned in &request.references {
        let (reference, bytes) = (&planned.reference, planned.bytes.unwrap_or(0));
        let mut target = PathBuf::from(reference.object());
        if !one_bucket {
            target = Path::new(reference.bucket()).join(target);
        }
        target = planned.target.clone().unwrap_or(target);
        if inside(&target).is_err() || target.file_name().is_none() {
            return Err(Usage::error(
                format!("the name of {reference} leads out of the outputs' folder"),
                "fetch it with `bagpress object get`, and run the file",
            ));
        }
        let mut stream = None;
        if request.restore && planned.refused.is_none() {
            let (codec, restored) = restored(planned, target)?;
            let Planned { original, attributes, .. } = *planned;
            (stream, target) = (Some(Stream { codec, original, attributes }), restored);
        }
        if let Some(other) = targets.insert(target.clone(), reference) {
            return Err(Usage::error(
                format!("{other} and {reference} would both become {}", quote::name(&target)),
                "give them to two runs",
            ));
        }
        let mut refused = planned.refused.clone();
        if let Some(failed) = refused.as_mut().filter(|_| request.restore) {
            *failed = Failed::new(failed.cause, format!("{}; {RESTORE_AGAIN}", failed.message));
        }
        let (object, digest, part) = (reference.clone(), planned.digest, planned.part);
        let path = path_of(planned, &target);
        let referenced = Referenced { object, digest, part };
        let mut entry = InputEntry {
            bytes,
            stream,
            refused,
            reference: Some(referenced),
            ..InputEntry::named(path, target)
        };
        if let (Some(outputs), None) = (outputs, &entry.refused) {
            judge(outputs, &mut entry, &mut found)?;
        }
        found.files += 1;
        if let Some(failed) = planned.refused.as_ref().or(entry.refused.as_ref()) {
            found.refused += 1;
            found.first_refused.get_or_insert_with(|| failed.message.clone());
        }
        found.bytes = found.bytes.saturating_add(bytes);
        found.largest = found.largest.max(bytes);
        sink.file(&entry.path, &entry)?;
    }
    for entry in &request.folders {
        sink.folder(entry)?;
    }
    Ok(found)
}

/// Looks at what has the name of an output already.
fn judge(outputs: &Outputs, entry: &mut InputEntry, found: &mut Found) -> Result<()> {
    match outputs.judge_made(&entry.target)? {
        Comparison::New | Comparison::UpToDate => found.selected.new += 1,
        Comparison::Changed(before) => {
            found.selected.changed += 1;
            entry.replaces = Some(before);
        }
        Comparison::Refused(failed) => entry.refused = Some(failed),
    }
    Ok(())
}

/// What an input is called: of several in one object, each by what it becomes.
fn path_of(planned: &Planned, target: &Path) -> PathBuf {
    let object = PathBuf::from(planned.reference.to_string());
    // Of what is not there, the file is what its user misses.
    let is_named = planned.refused.is_some() && planned.target.is_some();
    if planned.part.is_some() || is_named { object.join(target) } else { object }
}

/// Which codec reads an object, and what it is called when it was read.
fn restored(planned: &Planned, target: PathBuf) -> Result<(Codec, PathBuf)> {
    let by_name = by_name(&target);
    let named = by_name.as_ref().map(|(codec, _)| *codec);
    // Of an object that is no output, its name decides.
    let codec = planned.codec.filter(|codec| !codec.stores_nothing()).or(named);
    let codec = codec.ok_or_else(|| {
        Usage::error(
            format!("nobody knows which codec made {}", planned.reference),
            format!(
                "an output of a bag says so when it is there; the name of another object has to end in one of {}",
                endings()
            ),
        )
    })?;
    let restored = match by_name {
        // What it was made of had that ending.
        Some(_) if planned.target.is_some() => target,
        Some((_, restored)) => restored,
        None => target,
    };
    Ok((codec, restored))
}
