//! A task's input, generated or read again instead of taken from what a worker said.

use bagpress_broker::result::{Cause, Failed};
use bagpress_codec::{Digest, Generator, Hasher, SEGMENT_BYTES};
use bagpress_objstore::staging::{OpenInput, Plan as _};

use crate::run_folder::plan::BagPlan;
use crate::run_folder::specification::Data;

/// Digest and size, in bytes, of a task's input.
///
/// # Errors
///
/// [`Cause::InputChanged`] if its file is not what it was when the bag was made, or when its round began: it is no witness.
/// What else a file can have. [`Cause::InputUnreadable`] if the list of inputs cannot be read.
pub(crate) fn digest_of(plan: &BagPlan, index: u32) -> Result<(Digest, u64), Failed> {
    if let Data::Generated { data, seed, bytes } = plan.specification.data {
        let (mut hasher, mut piece) = (Hasher::new(), vec![0; SEGMENT_BYTES]);
        let mut generator = Generator::new(data, seed, index, bytes);
        loop {
            match generator.fill(&mut piece) {
                0 => return Ok((hasher.finish(), bytes)),
                filled => hasher.update(&piece[..filled]),
            }
        }
    }
    let listed = plan.input(index);
    let listed = listed.map_err(|e| Failed::new(Cause::InputUnreadable, e.to_string()))?;
    digest_of_file(&OpenInput::open(listed)?)
}

/// The same of a file that is open.
///
/// # Errors
///
/// As [`digest_of`].
pub(crate) fn digest_of_file(file: &OpenInput) -> Result<(Digest, u64), Failed> {
    let (mut hasher, mut piece) = (Hasher::new(), Vec::new());
    let (mut bytes, mut ended) = (0, false);
    while !ended {
        ended = file.read_at(bytes, SEGMENT_BYTES, &mut piece)?;
        hasher.update(&piece);
        bytes += piece.len() as u64;
    }
    Ok((hasher.finish(), bytes))
}
