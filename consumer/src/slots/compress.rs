//! One execution that compresses: verified while it is. Blocks.

use std::time::Instant;

use bagpress_broker::descriptor::{TaskDescriptor, Verify};
use bagpress_broker::result::{Cause, Failed, Fidelity};
use bagpress_codec::{ArrayFault, EntryPoint, Error, Hasher, Verifier};
use bagpress_objstore::{Sink, Source};

use super::handle::Handle;
use super::made::{Clock, Made, Scratch};

/// Compresses the whole of `source` into `sink`; ends early when it is told to.
///
/// # Errors
///
/// Why there is no output.
pub(super) fn compress(
    task: &TaskDescriptor,
    mut source: Source,
    mut sink: Sink,
    scratch: &mut Scratch,
    handle: &Handle,
) -> Result<Made, Failed> {
    let (began, mut clock) = (Instant::now(), Clock::default());
    let verify = task.verify == Verify::Worker;
    let (mut input, mut output) = (Hasher::new(), Hasher::new());
    let (mut input_bytes, mut output_bytes) = (0, 0);
    let Scratch { segment, part, reuse } = scratch;
    // They are here, and come back at the end: an error or a panic drops them.
    let mut encoder = reuse.encoder(&task.codec);
    let mut verifier = verify.then(|| reuse.verifier(&task.codec));
    if task.codec.has_length_in_front() {
        let length = clock.lap(|c| &mut c.input, || source.length())?;
        encoder.announce(length.ok_or_else(|| without_length(task))?);
    }
    loop {
        if handle.is_stopped() {
            return Err(Failed::new(Cause::Timeout, "it was stopped"));
        }
        clock.lap(|c| &mut c.input, || source.next(segment))?;
        if segment.is_empty() {
            break;
        }
        part.clear();
        clock.lap(|c| &mut c.compress, || encoder.write(segment, part)).map_err(not_compressed)?;
        clock
            .lap(
                |c| &mut c.verify,
                || {
                    input.update(segment);
                    output.update(part);
                    verifier.as_mut().map_or(Ok(()), |verifier| verifier.check(segment, part))
                },
            )
            .map_err(not_verified)?;
        input_bytes += segment.len() as u64;
        output_bytes += part.len() as u64;
        sink.write(part)?;
        handle.add_read(segment.len());
    }
    part.clear();
    encoder.finish(part).map_err(not_compressed)?;
    if let Some(verifier) = &mut verifier {
        verifier.finish(part).map_err(not_verified)?;
    }
    let choice = encoder.choice();
    let (fidelity, entry_points) = verifier.as_ref().map(seen).unwrap_or_default();
    reuse.keep(&task.codec, encoder, verifier);
    output.update(part);
    output_bytes += part.len() as u64;
    check_bound(task, input_bytes, output_bytes)?;
    sink.write(part)?;
    sink.finish()?;
    Ok(Made {
        input_bytes,
        input_digest: input.finish(),
        output_bytes,
        output_digest: output.finish(),
        verified: verify,
        choice,
        fidelity,
        entry_points,
        times: clock.times(began.elapsed()),
    })
}

/// What a verifier has to say of a stream that came back.
fn seen(verifier: &Verifier) -> (Option<Fidelity>, Vec<EntryPoint>) {
    (verifier.fidelity().map(Into::into), verifier.entry_points().to_vec())
}

fn check_bound(task: &TaskDescriptor, input_bytes: u64, output_bytes: u64) -> Result<(), Failed> {
    let most = task.codec.output_bytes_max(input_bytes);
    if output_bytes <= most {
        return Ok(());
    }
    let text = format!("{output_bytes} bytes from {input_bytes}; at most {most}");
    Err(Failed::new(Cause::BoundViolated, text))
}

/// Trying again does not help: its size is made up when it is read.
fn without_length(task: &TaskDescriptor) -> Failed {
    let text = format!(
        "{} needs the size of an input before it is read, and this one has none; gzip needs none",
        task.codec.name()
    );
    Failed::new(Cause::InputUnreadable, text)
}

fn not_compressed(error: Error) -> Failed {
    let cause = match error {
        Error::OtherLength { .. } => Cause::InputChanged,
        Error::Array { fault, .. } => cause_of(fault),
        _ => Cause::CodecError,
    };
    because(cause)(error)
}

fn not_verified(error: Error) -> Failed {
    let cause = match error {
        Error::Array { fault, .. } => cause_of(fault),
        _ => Cause::VerifyFailed,
    };
    because(cause)(error)
}

/// What of an array keeps it from being compressed as was asked.
fn cause_of(fault: ArrayFault) -> Cause {
    match fault {
        ArrayFault::ShapeMismatch => Cause::ShapeMismatch,
        ArrayFault::NonFinite => Cause::NonFinite,
        ArrayFault::ModeDtype => Cause::ModeDtype,
        ArrayFault::IntRange => Cause::IntRange,
        ArrayFault::RateTooLow => Cause::RateTooLow,
        ArrayFault::BoundViolated => Cause::BoundViolated,
        _ => Cause::ArrayUnsupported,
    }
}

fn because<E: std::fmt::Display>(cause: Cause) -> impl Fn(E) -> Failed {
    move |error| Failed::new(cause, error.to_string())
}
