//! What must be true in every state.

use crate::broken::Broken;
use crate::config::Config;

use super::state::{BLOCKS, FILE, Key, Last, Says, State};

/// The first property that a state breaks.
pub(crate) fn broken(config: &Config, state: &State) -> Option<Broken> {
    for (task, entry) in state.ledger.iter().enumerate() {
        if entry.lines.iter().any(|lines| *lines > 1) {
            return Some(Broken::CountedTwice);
        }
        if entry.outcome.says == Says::Failed && config.faults.transient == 0 {
            return Some(Broken::FailedWithoutCause);
        }
        let committed = state.results[Key::of(task, entry.round).subject()];
        let counted = entry.outcome;
        if counted.says != Says::Nothing && committed.says != Says::Nothing && committed != counted
        {
            return Some(Broken::OtherThanCommitted);
        }
    }
    let file = &state.ledger[FILE];
    if file.outcome.says == Says::Done && state.last != Last::Whole {
        return Some(Broken::BytesMissing);
    }
    let lost = |block: usize| is_counted(state, block) && !is_kept(state, block);
    BLOCKS.into_iter().any(lost).then_some(Broken::BlockMissing)
}

/// Whether a block is done, and its file waits for it.
fn is_counted(state: &State, block: usize) -> bool {
    let entry = &state.ledger[block];
    state.is_joined() && entry.outcome.says == Says::Done && !entry.tainted
}

/// Whether a block's bytes outlive a power cut, where whoever starts then finds them.
fn is_kept(state: &State, block: usize) -> bool {
    let number = u8::try_from(block - BLOCKS.start).unwrap_or(u8::MAX);
    let joined = state.note.blocks > number && !state.note.stale && state.part.there;
    let own = state.parts[block].get(state.ledger[block].outcome.by as usize);
    own == Some(&true) || joined && state.part.synced > number || state.last == Last::Whole
}
