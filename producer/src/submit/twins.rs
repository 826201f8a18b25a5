//! Finds files that seem to have the content of an earlier one: of equal size, and equal in samples.

use std::collections::HashMap;

use anyhow::{Context, Result};
use bagpress_broker::result::Failed;
use bagpress_codec::{Digest, Hasher};
use bagpress_objstore::staging::OpenInput;

use crate::run_folder::inputs::InputEntry;
use crate::run_folder::inputs::lists::Finished;
use crate::run_folder::twins::Twin;

/// Smaller files are compressed as fast as they are compared, in bytes.
const BYTES_MIN: u64 = 16 * 1024;
/// Bytes of a sample: of the beginning, the middle and the end of a file.
const SAMPLE_BYTES: usize = 16 * 1024;

/// Finds them in a list of inputs, and lists them, if there are any. Blocks: reads 48 KiB at most of each file
/// that has the size of another one.
///
/// # Errors
///
/// What the system said of the lists; a file that cannot be read is nobody's twin.
pub(crate) fn find(lists: &mut Finished) -> Result<()> {
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
        if file.can_be_packed() && file.bytes >= BYTES_MIN {
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
