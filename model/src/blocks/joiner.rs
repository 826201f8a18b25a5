//! The joiner's steps: `producer/src/gather/join.rs`, over `objstore/src/staging/parts/joining.rs`.

use crate::config::Clause;
use crate::trace::Who;

use super::Steps;
use super::state::{BLOCKS, Gathers, Holds, Joiner, Last, Note, Part, Says, Settles, State, WHOLE};

const WHO: Who = Who::Gatherer(0);

impl Steps<'_> {
    /// Every step of the joiner, which works while outcomes are accepted.
    pub(super) fn joiner(&mut self) {
        let joiner = self.from.gatherer.joiner;
        let works = !matches!(
            self.from.gatherer.at,
            Gathers::Off | Gathers::Finished | Gathers::Start | Gathers::ReadWaiting
        );
        if !works {
            return;
        }
        if joiner.settles != Settles::No {
            return self.settle(joiner);
        }
        if joiner.holds != Holds::Nothing && joiner.settled < joiner.blocks {
            // `OpenJoins::settle_all`, or a full window: at any time.
            self.settle(joiner);
        }
        if !joiner.look {
            return;
        }
        if !self.from.is_joined() {
            return self.forget();
        }
        if joiner.given && !self.lacks(Clause::GivenLeftAlone) {
            return self.add(WHO, "joiner: has given the outcome", look_no_more);
        }
        let failed = |block: usize| self.from.ledger[block].outcome.says == Says::Failed;
        if BLOCKS.into_iter().any(failed) {
            return self.fails();
        }
        match joiner.holds {
            Holds::Nothing => self.open_join(),
            Holds::Part | Holds::Unnamed => self.join(joiner),
        }
    }

    /// `OpenJoins::fails`.
    fn fails(&mut self) {
        if self.lacks(Clause::FailedBlockFails) {
            return self.add(WHO, "joiner: lets a failed block be", look_no_more);
        }
        self.add(WHO, "joiner: the file fails, as a block has", |s| {
            look_no_more(s);
            s.gatherer.joiner.given = true;
            s.gatherer.joiner.says = Says::Failed;
        });
    }

    /// `join_note::forget_join` and `Parts::sweep`, when the file has its outcome or is run whole.
    fn forget(&mut self) {
        self.add(WHO, "joiner: removes the note and the blocks of a file that is over", |s| {
            s.note = Note::NONE;
            BLOCKS.for_each(|block| s.parts[block].fill(false));
            s.gatherer.joiner = Joiner { look: false, ..Joiner::START };
        });
    }

    /// `Joining::open`: where the note says, or from the first block on.
    fn open_join(&mut self) {
        let State { note, part, .. } = self.from;
        if note.blocks == 0 || note.stale || !part.there || part.written < note.blocks {
            return self.add(WHO, "joiner: begins the file", |s| {
                s.note.stale = s.note.blocks > 0;
                s.part = Part { there: true, ..Part::NONE };
                s.gatherer.joiner.holds = Holds::Part;
                s.gatherer.joiner.blocks = 0;
                s.gatherer.joiner.settled = 0;
            });
        }
        let cut = !self.lacks(Clause::CutToNote);
        self.add(WHO, "joiner: goes on with the file where the note says", |s| {
            if cut {
                s.part.written = note.blocks;
                s.part.synced = s.part.synced.min(note.blocks);
            }
            s.gatherer.joiner.holds = Holds::Part;
            s.gatherer.joiner.blocks = note.blocks;
            s.gatherer.joiner.settled = note.blocks;
        });
    }

    /// `OpenJoins::join`: `Joining::add` of the next block that is done, or the end.
    fn join(&mut self, joiner: Joiner) {
        let next = BLOCKS.start + joiner.blocks as usize;
        if next == BLOCKS.end {
            return self.finish();
        }
        if self.from.ledger[next].outcome.says != Says::Done {
            return self.add(WHO, "joiner: waits for the next block", look_no_more);
        }
        let mut state = self.from;
        if state.part_of(next).is_some() {
            return self.add(WHO, "joiner: writes a block to the file", |s| {
                write(s);
                s.gatherer.joiner.blocks += 1;
            });
        }
        let again = !self.lacks(Clause::LostBlockRunsAgain);
        self.add(WHO, "joiner: does not find a block that is done", |s| {
            look_no_more(s);
            if again {
                s.gatherer.due[next] = Some(s.ledger[next].round);
            }
        });
    }

    /// `Joining::settle`: synced, noted, and only then the blocks are removed.
    fn settle(&mut self, joiner: Joiner) {
        let sync: fn(&mut State) = |s| {
            if s.gatherer.joiner.holds == Holds::Part {
                s.part.synced = s.part.written;
            }
        };
        let note: fn(&mut State) = |s| {
            let Joiner { blocks, holds, .. } = s.gatherer.joiner;
            s.note = Note { blocks, stale: holds == Holds::Unnamed };
        };
        let remove: fn(&mut State) = |s| {
            let Joiner { blocks, settled, holds, .. } = s.gatherer.joiner;
            for block in BLOCKS.skip(settled as usize).take((blocks - settled) as usize) {
                if let Some(part) = s.part_of(block) {
                    *part = false;
                    // What it was joined into has been lost.
                    s.ledger[block].tainted |= holds == Holds::Unnamed;
                }
            }
            s.gatherer.joiner.settled = blocks;
        };
        let syncs = ("joiner: syncs the file", sync);
        let notes = ("joiner: notes how far it is", note);
        let removes = ("joiner: removes the blocks that are joined", remove);
        let steps = if self.lacks(Clause::SyncedBeforeRemoved) {
            [notes, removes, syncs]
        } else if self.lacks(Clause::NotedBeforeRemoved) {
            [syncs, removes, notes]
        } else {
            [syncs, notes, removes]
        };
        let (now, next) = match joiner.settles {
            Settles::No => (0, Settles::Half),
            Settles::Half => (1, Settles::Noted),
            Settles::Noted => (2, Settles::No),
        };
        let (what, change) = steps[now];
        self.add(WHO, what, |s| {
            change(s);
            s.gatherer.joiner.settles = next;
        });
    }

    /// `Joining::finish`: its end is written and synced; its blocks stay.
    fn finish(&mut self) {
        self.add(WHO, "joiner: the file is whole", |s| {
            write(s);
            if s.gatherer.joiner.holds == Holds::Part {
                s.part.synced = s.part.written;
            }
            look_no_more(s);
            s.gatherer.joiner.holds = Holds::Nothing;
            s.gatherer.joiner.given = true;
            s.gatherer.joiner.says = Says::Done;
        });
    }
}

fn look_no_more(s: &mut State) {
    s.gatherer.joiner.look = false;
}

/// One block more, or the end, behind what is in the part file.
fn write(s: &mut State) {
    if s.gatherer.joiner.holds == Holds::Unnamed {
        return;
    }
    let part = &mut s.part;
    part.wrong |= part.written != s.gatherer.joiner.blocks;
    part.written = (part.written + 1).min(WHOLE);
}

/// The part file gets the final name, whoever has it open.
pub(super) fn rename(s: &mut State) {
    let whole = s.part.written == WHOLE && !s.part.wrong;
    s.last = if whole { Last::Whole } else { Last::Junk };
    s.part = Part::NONE;
    s.gatherer.joiner.holds.lose_name();
}
