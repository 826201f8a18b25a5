//! What helps failed tasks: to run them again, to clear the way first, or only another bag.

use std::io;

use bagpress_broker::result::Cause;
use bagpress_broker::subjects;
use bagpress_objstore::object_ref::Reference;
use rustix::io::Errno;

use super::inputs::existing::ITSELF;
use super::ledger::failure::Failure;

/// What helps failed tasks, as far as the first ones tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a hint of its own")]
pub struct Helps {
    /// To run them again.
    pub retry: bool,
    /// To move away, before that, what has the names of outputs.
    pub clear_way: bool,
    /// Only another bag: what they are of is not in this one, or cannot be made under the name that it has in it.
    pub new_run: bool,
    /// Only to ask for something else: another codec for such an array, or the digest that the object has.
    pub other_request: bool,
}

impl Helps {
    /// What helps, of so many `failed` tasks, of which these are the first. Looks where the inputs are: a folder that could not
    /// be read is one task, which no repetition makes files of.
    pub(crate) fn of(first: &[Failure], failed: u64) -> Self {
        let new_run = first.iter().filter(|failure| needs_new_run(failure)).count() as u64;
        let stays_so = |failure: &&Failure| !needs_new_run(failure) && fails_again(failure);
        let other_request = first.iter().filter(stays_so).count() as u64;
        let in_the_way = |failure: &Failure| {
            failure.cause == Cause::OutputExists.to_string() && !needs_new_run(failure)
        };
        Self {
            retry: new_run + other_request < failed,
            clear_way: first.iter().any(in_the_way),
            new_run: new_run > 0,
            other_request: other_request > 0,
        }
    }
}

/// What is said of a file that is to be restored, and of which its run has no output: the restoring bag cannot get one.
pub(crate) const NOT_MADE: &str = "the run has no out";

/// What is said of an object that could not be restored when its bag was made: nothing was noted of it that could be looked for again.
pub(crate) const RESTORE_AGAIN: &str = "once that is mended, restore it in another run";

fn needs_new_run(failure: &Failure) -> bool {
    let Some(path) = &failure.path else { return false };
    let too_long = io::Error::from(Errno::NAMETOOLONG).to_string();
    failure.message.contains(&too_long)
        || failure.cause == Cause::InputMissing.to_string() && failure.message.contains(NOT_MADE)
        || failure.message.ends_with(ITSELF)
        || failure.message.ends_with(RESTORE_AGAIN)
        || failure.cause == Cause::InputUnreadable.to_string() && path.is_dir()
}

fn fails_again(failure: &Failure) -> bool {
    let cause = serde_json::from_value::<Cause>(failure.cause.clone().into());
    let path = failure.path.as_ref().and_then(|path| path.to_str());
    let reference = path.and_then(|path| path.parse::<Reference>().ok());
    // Outputs of a bag come back as they were, when they are made again.
    let is_reference = reference.is_some_and(|of| subjects::bag_of_bucket(of.bucket()).is_none());
    // Of a cause that only a later version knows, nobody knows whether it stays.
    cause.is_ok_and(|cause| !may_succeed(cause, is_reference))
}

/// Whether a task that failed for this may succeed when it is run again, with the file as it is by then. What is wrong between the
/// content and what was asked for stays wrong; what a reference stands for that is no output of a bag never changes.
fn may_succeed(cause: Cause, is_reference: bool) -> bool {
    match cause {
        Cause::ArrayUnsupported
        | Cause::ShapeMismatch
        | Cause::NonFinite
        | Cause::ModeDtype
        | Cause::IntRange
        | Cause::RateTooLow
        // It was the same at each attempt.
        | Cause::BoundViolated => false,
        Cause::InputChanged => !is_reference,
        Cause::InputMissing
        | Cause::InputUnreadable
        | Cause::InputDigest
        | Cause::CodecError
        | Cause::VerifyFailed
        | Cause::InputCorrupt
        | Cause::OriginalDiffers
        | Cause::TransferError
        | Cause::OutputDigest
        | Cause::OutputExists
        | Cause::OutputUnwritable
        | Cause::Timeout
        | Cause::WorkerLost
        | Cause::CrashLimit
        | Cause::BadDescriptor
        | Cause::ProtocolVersion
        | Cause::CodecVersion
        | Cause::Drain
        | Cause::Full
        | Cause::GathererAbsent
        | Cause::BytesLost
        | Cause::Cancelled
        | Cause::Duplicate => true,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn failed(cause: Cause, path: PathBuf, message: &str) -> Failure {
        let message = message.to_owned();
        Failure { index: 0, cause: cause.to_string(), path: Some(path), message }
    }

    #[test]
    fn to_run_them_again_helps_no_closed_folder_and_no_name_that_is_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("a");
        let closed = failed(Cause::InputUnreadable, folder.path().to_owned(), "Permission denied");
        let long =
            failed(Cause::OutputUnwritable, inside.clone(), "a: File name too long (os error 36)");
        let missing = failed(Cause::InputMissing, inside, "No such file or directory");
        let helps = |first: &[&Failure]| {
            let failed = first.len() as u64;
            let first: Vec<_> = first.iter().map(|&f| f.clone()).collect();
            let Helps { retry, new_run, .. } = Helps::of(&first, failed);
            (retry, new_run)
        };
        assert_eq!(helps(&[&closed]), (false, true));
        assert_eq!(helps(&[&long, &closed]), (false, true));
        assert_eq!(helps(&[&missing]), (true, false));
        assert_eq!(helps(&[&closed, &missing]), (true, true));
        assert!(Helps::of(&[closed], 2).retry, "what is not listed may be helped");
    }

    #[test]
    fn what_has_an_outputs_name_is_moved_away_first_unless_it_is_the_input() {
        let path = PathBuf::from("a");
        let taken =
            failed(Cause::OutputExists, path.clone(), "a.gz exists, and was not made by this bag");
        let itself = failed(Cause::OutputExists, path, &format!("a: {ITSELF}"));
        let helps = |failure: &Failure| Helps::of(std::slice::from_ref(failure), 1);
        assert_eq!(helps(&taken), Helps { retry: true, clear_way: true, ..Helps::default() });
        assert_eq!(helps(&itself), Helps { new_run: true, ..Helps::default() });
    }

    #[test]
    fn to_run_it_again_does_not_help_what_its_run_has_no_output_of() {
        let failed = [failed(
            Cause::InputMissing,
            "out/a.gz".into(),
            "a.gz: the run has no output of it: codec-error",
        )];
        let helps = Helps::of(&failed, 1);
        assert_eq!((helps.retry, helps.new_run), (false, true));
    }

    /// Every cause: of a file, then of a reference.
    #[test]
    fn to_run_it_again_is_no_hint_for_what_fails_by_what_was_asked_for() {
        let arrays = [
            Cause::ArrayUnsupported,
            Cause::ShapeMismatch,
            Cause::NonFinite,
            Cause::ModeDtype,
            Cause::IntRange,
            Cause::RateTooLow,
            Cause::BoundViolated,
        ];
        for (path, stays) in [("in/a.npy", &[][..]), ("obj://b/a", &[Cause::InputChanged][..])] {
            for cause in Cause::ALL {
                let of = [failed(cause, path.into(), "why")];
                let stays = arrays.contains(&cause) || stays.contains(&cause);
                let helps = Helps::of(&of, 1);
                assert_eq!((helps.retry, helps.other_request), (!stays, stays), "{path} {cause}");
                assert!(Helps::of(&of, 2).retry, "what is not listed may be helped");
            }
        }
        let later =
            Failure { cause: "of-tomorrow".to_owned(), ..failed(Cause::Full, "a".into(), "") };
        assert!(Helps::of(&[later], 1).retry);
    }
}
