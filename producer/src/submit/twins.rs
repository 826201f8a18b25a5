//! Finds tasks that seem to have the input of an earlier one: files of equal size and equal samples, objects of equal digest, and what is
//! generated alike.

use std::collections::HashMap;

use anyhow::{Context, Result};
use bagpress_broker::result::Failed;
use bagpress_codec::{Digest, Hasher};
use bagpress_objstore::staging::OpenInput;

use crate::run_folder::folder::RunFolder;
use crate::run_folder::inputs::InputEntry;
use crate::run_folder::inputs::lists::{Finished, list_alone};
use crate::run_folder::twins::{BYTES_MIN, Twin};
use crate::submit::request::Generated;

/// Bytes of a sample: of the beginning, the middle and the end of a file.
const SAMPLE_BYTES: usize = 16 * 1024;

/// Finds them in a list of inputs, which are `files` or objects, and lists them, if there are any. Blocks: reads 48 KiB at most of
/// each file that has the size of another one.
///
/// # Errors
///
/// What the system said of the lists; a file that cannot be read is nobody's twin.
pub(crate) fn find(lists: &mut Finished, files: bool) -> Result<()> {
    if files { find_files(lists) } else { find_objects(lists) }
}

/// Lists the tasks of a generated bag that all have one input.
///
/// # Errors
///
/// What the system said of the list.
pub(crate) fn list_generated(folder: &RunFolder, generated: Generated) -> Result<()> {
    if !generated.data.is_the_same_for_all() {
        return Ok(());
    }
    list_alone(folder, (1..generated.tasks).map(|index| Twin { index, first: 0 }))
}

/// Objects whose bytes nobody knows yet are nobody's twins.
fn find_objects(lists: &mut Finished) -> Result<()> {
    let mut firsts = HashMap::new();
    for (index, entry) in (0..).zip(lists.inputs()?.entries()) {
        let entry = entry.context("read the list of inputs")?;
        let Some(digest) = entry.reference.and_then(|reference| reference.input_digest()) else {
            continue;
        };
        let first: u32 = *firsts.entry((entry.bytes, digest)).or_insert(index);
        if first < index {
            lists.twin(Twin { index, first })?;
        }
    }
    lists.end_twins()
}

fn find_files(lists: &mut Finished) -> Result<()> {
    let candidates = candidates(lists)?;
    if candidates.is_empty() {
        return Ok(());
    }
    let (mut firsts, mut next) = (HashMap::new(), candidates.into_iter().peekable());
    for (index, entry) in (0..).zip(lists.inputs()?.entries()) {
        if next.next_if_eq(&index).is_none() {
            continue;
        }
        let entry = entry.context("read the list of inputs")?;
        let (bytes, codec) = (entry.bytes, entry.codec);
        // What cannot be read is nobody's twin, and fails as it would anyway.
        if let Ok(sample) = sample(entry) {
            let first: u32 = *firsts.entry((bytes, sample, codec)).or_insert(index);
            if first < index {
                lists.twin(Twin { index, first })?;
            }
        }
    }
    lists.end_twins()
}

/// The indices of files that have the size of another one, in order.
fn candidates(lists: &Finished) -> Result<Vec<u32>> {
    let mut sizes = Vec::new();
    for (index, file) in (0..).zip(lists.inputs()?.packable()) {
        let file = file.context("read the list of inputs")?;
        if file.has_file() && file.bytes >= BYTES_MIN {
            sizes.push((file.bytes, index));
        }
    }
    sizes.sort_unstable();
    let equal = sizes.chunk_by(|one, other| one.0 == other.0).filter(|same| same.len() > 1);
    let mut indices: Vec<_> = equal.flatten().map(|(_, index)| *index).collect();
    indices.sort_unstable();
    Ok(indices)
}

/// The digest of a file's samples. Equal ones say that it is worth a look.
fn sample(entry: InputEntry) -> Result<Digest, Failed> {
    let bytes = entry.bytes;
    let file = OpenInput::open(entry.into())?;
    let (mut hasher, mut piece) = (Hasher::new(), Vec::new());
    let end = bytes.saturating_sub(SAMPLE_BYTES as u64);
    for at in [0, end / 2, end] {
        file.read_at(at, SAMPLE_BYTES, &mut piece)?;
        hasher.update(&piece);
    }
    Ok(hasher.finish())
}
