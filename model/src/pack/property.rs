//! What must be true in every state.

use crate::broken::Broken;
use crate::config::Config;
use crate::property::may_fail;

use super::state::{FILES, Key, Last, Says, State};

/// The first property that a state breaks.
pub(crate) fn broken(config: &Config, state: &State) -> Option<Broken> {
    for f in 0..FILES {
        let file = &state.files[f];
        if file.lines.iter().any(|lines| *lines > 1) {
            return Some(Broken::CountedTwice);
        }
        if file.says == Says::Done && file.last != Last::Whole && !file.tainted {
            return Some(Broken::BytesMissing);
        }
        // A pack fails no file: what it leaves open has its attempts alone.
        if file.says == Says::Spent && (file.round == 0 || !may_fail(config)) {
            return Some(Broken::FailedWithoutCause);
        }
        let key = if file.round == 0 { Key::PACK } else { Key::alone(f, file.round) };
        let committed = state.results[key.subject()];
        let same = committed.by == file.by && committed.says[f] == file.says;
        if file.says != Says::Nothing && committed.is() && !same && !state.forgot {
            return Some(Broken::OtherThanCommitted);
        }
    }
    None
}
