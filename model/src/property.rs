//! What must be true in every state.

use crate::broken::Broken;
use crate::config::Config;
use crate::state::{Folder, State};
use crate::values::{Bytes, Kind, Named, Outcome, same_bytes};

/// The first property that a state breaks.
pub(crate) fn broken(config: &Config, state: &State) -> Option<Broken> {
    let highest = state.folders.iter().map(|folder| folder.round).max().unwrap_or(0);
    for folder in &state.folders {
        if folder.lines.iter().any(|lines| *lines > 1) {
            return Some(Broken::CountedTwice);
        }
        // An object of an older round belongs to whoever began the newer one, in whatever folder.
        let current = config.staged() || folder.round == highest;
        let sound = !folder.outcome.is_done() || sound(config, state, folder);
        if current && !folder.tainted && !sound {
            return Some(Broken::BytesMissing);
        }
        if folder.outcome.kind == Kind::Failed && !may_fail(config) {
            return Some(Broken::FailedWithoutCause);
        }
    }
    let other = |folder: &Folder| {
        let committed = state.results[folder.round as usize];
        folder.outcome.is() && committed.is() && !counts(folder.outcome, committed)
    };
    if !state.forgot && state.folders.iter().any(other) {
        return Some(Broken::OtherThanCommitted);
    }
    None
}

/// Whether what is counted is what was committed, or that its output's name was taken.
fn counts(counted: Outcome, committed: Outcome) -> bool {
    let taken = counted.kind == Kind::Taken && committed.is_done() && counted.by == committed.by;
    taken || counted == committed
}

/// Whether a step of ours did something to somebody else's file.
pub(crate) fn touched(from: &State, to: &State) -> Option<Broken> {
    let mut folders = from.folders.iter().zip(&to.folders);
    let touched =
        folders.any(|(from, to)| from.last == Named::Strangers && to.last != Named::Strangers);
    touched.then_some(Broken::StrangerTouched)
}

/// Whether a gatherer may take its bag's own output for somebody else's: one that was killed between the rename and the
/// line gave it its name, and another execution with other bytes came first after that, as nothing is committed by queue
/// group, or as the broker forgot it.
pub(crate) fn may_find_its_own_taken(config: &Config, state: &State) -> bool {
    let killed = state.left.gatherer_crashes < config.faults.gatherer_crashes;
    config.unequal && killed && (config.queue_group() || state.forgot)
}

/// Whether the counted bytes are where they belong.
pub(crate) fn sound(config: &Config, state: &State, folder: &Folder) -> bool {
    let Outcome { bytes, .. } = folder.outcome;
    if config.staged() {
        return matches!(folder.last, Named::Of(e) if same_bytes(config, e, bytes));
    }
    match state.metadata {
        Named::Of(e) => state.chunks[e as usize] == Bytes::Whole && same_bytes(config, e, bytes),
        _ => false,
    }
}

/// Whether the faults of a configuration can spend all attempts of a task. A crash and a lease that
/// runs out spend one, and so does a failed attempt; whatever is planned does not.
pub(crate) fn may_fail(config: &Config) -> bool {
    let faults = &config.faults;
    // A broker may forget that a task was acked, or why it was given back.
    let spent = faults.worker_crashes
        + faults.early
        + faults.transient
        + faults.forgets
        + faults.other_folder * 2;
    config.poison || spent >= config.attempts
}
