//! What becomes of a committed result's bytes: `Placing::place` of `producer/src/gather/naming.rs`, `objstore/src/staging/parts/place.rs`
//! and `producer/src/gather/fetch.rs`.

use crate::broken::Broken;
use crate::config::Clause;
use crate::process::{Gathers, Worker};
use crate::property;
use crate::state::State;
use crate::trace::{Steps, Who};
use crate::values::{Bytes, EXECUTIONS, Kind, NONE, Named, Outcome, same_bytes};

impl Steps<'_> {
    /// `Parts::place`: renames without replacing, or hashes what has the name.
    pub(crate) fn place(&mut self, who: Who) {
        let taken = self.from.gatherer.taken;
        let e = taken.by as usize;
        let folder = *self.from.folder();
        let part = folder.parts[e];
        if folder.last == Named::Nothing {
            if part == Bytes::Nothing {
                return self.bytes_gone(who);
            }
            return self.rename(who);
        }
        let unhashed = self.config.lacks(Clause::TakenNameHashed);
        let equal = matches!(folder.last, Named::Of(t) if same_bytes(self.config, t, taken.bytes));
        if equal || unhashed {
            return self.add(who, "finds the bytes under their final name", |s| {
                s.folder_mut().parts[e] = Bytes::Nothing;
                s.gatherer.at = Gathers::Count;
            });
        }
        if part == Bytes::Nothing {
            return self.bytes_gone(who);
        }
        // The ledger says which file got the name: `Own::File`.
        let own = folder.named && folder.last != Named::Strangers;
        if !own && !self.config.lacks(Clause::OnlyNamedMovesAside) {
            return self.taken(who);
        }
        self.add(who, "moves the file that is there aside", |s| {
            s.folder_mut().last = Named::Nothing;
            s.gatherer.at = Gathers::PlaceAgain;
        });
    }

    /// `Parts::place_over`: renames once more; who was faster keeps the name.
    pub(crate) fn place_again(&mut self, who: Who) {
        if self.from.folder().last == Named::Nothing {
            self.rename(who);
        } else {
            self.taken(who);
        }
    }

    fn rename(&mut self, who: Who) {
        let taken = self.from.gatherer.taken;
        let again = |worker: &Worker| worker.execution == taken.by && worker.spent > 1;
        let early =
            self.config.lacks(Clause::SweepAfterLine) && self.from.workers.iter().any(again);
        self.add(who, "renames the part file", |s| {
            let part = std::mem::take(&mut s.folder_mut().parts[taken.by as usize]);
            if early {
                sweep_parts(s);
            }
            let folder = s.folder_mut();
            folder.last = if part == Bytes::Whole { Named::Of(taken.by) } else { Named::Junk };
            s.gatherer.at = Gathers::Count;
        });
    }

    /// `Placed::Taken`: `naming::fails` makes a failure of what was committed.
    fn taken(&mut self, who: Who) {
        let own = self.from.folder().last != Named::Strangers;
        let early = self.config.lacks(Clause::SweepAfterLine);
        let may = property::may_find_its_own_taken(self.config, &self.from);
        let what = if own { "takes its own output for another's" } else { "finds its name taken" };
        self.add(who, what, |s| {
            let Outcome { by, .. } = s.gatherer.taken;
            s.gatherer.taken = Outcome { kind: Kind::Taken, by, bytes: NONE };
            s.gatherer.at = Gathers::Count;
            if early {
                sweep_parts(s);
            }
            if own && !may {
                s.broken = Some(Broken::OwnTaken);
            }
        });
    }

    /// `fetch::fetch`: metadata by direct get, and the number of chunks.
    pub(crate) fn check_object(&mut self, who: Who) {
        let taken = self.from.gatherer.taken;
        let there = |named: Named| match named {
            Named::Of(t) => {
                let chunks = self.from.chunks[t as usize];
                matches!(chunks, Bytes::Whole | Bytes::Spoilt)
                    && same_bytes(self.config, t, taken.bytes)
            }
            _ => false,
        };
        let (now, before) = (there(self.from.metadata), there(self.from.metadata_before));
        let beside = Named::Of(taken.bytes);
        if !now && self.from.beside[taken.bytes as usize] && there(beside) {
            // `Bucket::rename`: whatever has the name was never counted.
            return self.add(who, "gives the object with the second name the final name", |s| {
                s.set_metadata(beside);
                s.beside[taken.bytes as usize] = false;
            });
        }
        if now || self.config.lacks(Clause::ObjectChecked) {
            self.add(who, "finds the object there", |s| s.gatherer.at = Gathers::Count);
        } else {
            self.bytes_gone(who);
        }
        if self.from.left.lags > 0 && before != now {
            if before {
                self.add(who, "finds the object of a moment ago there", |s| {
                    s.left.lags -= 1;
                    s.gatherer.at = Gathers::Count;
                });
            } else {
                self.bytes_gone(who);
                if let Some((_, to)) = self.out.last_mut() {
                    to.left.lags -= 1;
                }
            }
        }
    }

    /// Committed, and not there: a new round. The queue group offers the same one again.
    fn bytes_gone(&mut self, who: Who) {
        let queue_group = self.config.queue_group();
        self.add(who, "does not find the bytes", |s| {
            s.gatherer.taken = Outcome::NOTHING;
            // What was lost afterwards is no attempt of the task.
            s.gatherer.spent = s.gatherer.spent.saturating_sub(1);
            s.gatherer.at = if queue_group { Gathers::Loop } else { Gathers::Begin };
        });
    }
}

/// `Parts::sweep`: part files of the round and of earlier ones.
pub(crate) fn sweep_parts(s: &mut State) {
    let round = s.folder().round as usize;
    let later: Vec<u8> = s.results[round + 1..].iter().map(|result| result.by).collect();
    let later = |e: u8, s: &State| {
        let works = |w: &Worker| w.execution == e && w.round as usize > round;
        later.contains(&e) || s.workers.iter().any(works)
    };
    for e in 0..EXECUTIONS {
        if !later(u8::try_from(e).unwrap_or(NONE), s) {
            s.folder_mut().parts[e] = Bytes::Nothing;
        }
    }
}
