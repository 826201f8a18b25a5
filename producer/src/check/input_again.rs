//! A task's input, generated or read again instead of taken from what a worker said; and restored again, where that is the task.

use bagpress_broker::result::{Cause, Failed};
use bagpress_codec::{Codec, Decoded, Digest, Generator, Hasher, SEGMENT_BYTES};
use bagpress_objstore::staging::{OpenInput, Plan as _};

use crate::run_folder::inputs::Generate;
use crate::run_folder::plan::BagPlan;
use crate::run_folder::specification::Data;

/// Digest and size, in bytes, of a task's uncompressed bytes: of its input, or of what that gives where it is restored.
///
/// # Errors
///
/// [`Cause::InputChanged`] if its file is not what it was when the bag was made, or when its round began: it is no witness.
/// [`Cause::InputCorrupt`] if what is to be restored is no whole stream. What else a file can have. [`Cause::InputUnreadable`] if the list of inputs cannot be read.
pub(crate) fn digest_of(plan: &BagPlan, index: u32) -> Result<(Digest, u64), Failed> {
    if let Data::Generated { data, seed, bytes } = plan.specification.data {
        return Ok(digest_of_generated(index, Generate { data, seed, bytes }));
    }
    let unread = |error: std::io::Error| Failed::new(Cause::InputUnreadable, error.to_string());
    let entry = plan.entry(index).map_err(unread)?;
    if let Some(generate) = entry.generate {
        return Ok(digest_of_generated(index, generate));
    }
    if entry.reference.is_some() {
        let text = "its input is an object, which is not read again";
        return Err(Failed::new(Cause::InputUnreadable, text));
    }
    let stream = entry.stream;
    let file = OpenInput::open(plan.input(index).map_err(unread)?)?;
    stream.map_or_else(|| digest_of_file(&file), |stream| digest_of_stream(&file, &stream.codec))
}

/// The same of what is generated.
fn digest_of_generated(index: u32, Generate { data, seed, bytes }: Generate) -> (Digest, u64) {
    let (mut hasher, mut piece) = (Hasher::new(), vec![0; SEGMENT_BYTES]);
    let mut generator = Generator::new(data, seed, index, bytes);
    loop {
        match generator.fill(&mut piece) {
            0 => return (hasher.finish(), bytes),
            filled => hasher.update(&piece[..filled]),
        }
    }
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

/// Digest and size, in bytes, of what a file gives that is a stream of `codec`.
fn digest_of_stream(file: &OpenInput, codec: &Codec) -> Result<(Digest, u64), Failed> {
    let corrupt = |error: bagpress_codec::Error| {
        let cause = if error.is_of_stream() { Cause::InputCorrupt } else { Cause::CodecError };
        Failed::new(cause, error.to_string())
    };
    let (mut decoder, mut hasher, mut restored) = (codec.decoder(), Hasher::new(), 0);
    let (mut piece, mut part) = (Vec::new(), vec![0; SEGMENT_BYTES]);
    let (mut offset, mut ended) = (0, false);
    while !ended {
        ended = file.read_at(offset, SEGMENT_BYTES, &mut piece)?;
        offset += piece.len() as u64;
        let mut parts = Decoded::new(&mut *decoder, &piece, &mut part);
        while let Some(made) = parts.next().map_err(corrupt)? {
            hasher.update(made);
            restored += made.len() as u64;
        }
    }
    decoder.finish().map_err(corrupt)?;
    Ok((hasher.finish(), restored))
}
