//! What happens to all of them: crashes, leases, a broker that forgets, bytes that change.

use crate::process::{At, Gathers};
use crate::state::State;
use crate::trace::{Steps, Who};
use crate::values::{Bytes, Kind, NONE, Named, Outcome, Waits};
use crate::{gatherer, worker};

impl Steps<'_> {
    /// Leases that run out with their worker dead: no fault, only time.
    pub(crate) fn leases(&mut self) {
        for round in 0..self.from.tasks.len() {
            if self.from.tasks[round].waits != Waits::Out {
                continue;
            }
            let holds = |w: &crate::process::Worker| w.at != At::Idle && w.round as usize == round;
            if !self.from.workers.iter().any(holds) {
                self.add(Who::Broker, "a dead worker's task waits again", |s| {
                    s.tasks[round].waits = Waits::Waiting;
                });
            } else if self.from.left.early > 0 {
                self.add(Who::Fault, "a lease runs out under a worker that lives", |s| {
                    s.left.early -= 1;
                    s.tasks[round].waits = Waits::Waiting;
                });
            }
        }
        if self.config.queue_group() && self.from.left.early > 0 {
            for w in 0..self.from.workers.len() {
                if self.from.workers[w].leased {
                    self.add(Who::Fault, "a lease runs out under a worker that lives", |s| {
                        s.left.early -= 1;
                        s.workers[w].leased = false;
                    });
                }
            }
        }
    }

    /// A crash of each process at each of its steps.
    pub(crate) fn crashes(&mut self) {
        if self.from.left.worker_crashes > 0 {
            for w in 0..self.from.workers.len() {
                let execution = self.from.workers[w].execution;
                if self.from.workers[w].at != At::Idle {
                    self.add(Who::Worker(execution), "IS KILLED", |s| {
                        s.left.worker_crashes -= 1;
                        worker::end(s, w);
                    });
                }
            }
        }
        let lives = self.from.serving().is_some();
        if lives && self.from.left.gatherer_crashes > 0 {
            self.add(Who::Gatherer(self.from.gatherer.folder), "IS KILLED", |s| {
                s.left.gatherer_crashes -= 1;
                gatherer::stop(s, Gathers::Off);
            });
        }
    }

    /// A broker that forgets what it had acknowledged.
    pub(crate) fn forgets(&mut self) {
        if self.from.left.forgets == 0 {
            return;
        }
        for round in 0..self.from.tasks.len() {
            let task = self.from.tasks[round];
            match task.waits {
                Waits::Absent if task.known => {
                    self.forget("an acknowledged task is there again", |s| {
                        s.tasks[round].waits = Waits::Waiting;
                    });
                }
                Waits::Absent => {}
                Waits::Waiting | Waits::Out => self.forget("a task is forgotten", |s| {
                    s.tasks[round].waits = Waits::Absent;
                }),
            }
        }
        if let Some(last) = self.from.committed().checked_sub(1) {
            self.forget("the last result is forgotten", |s| {
                s.results[s.log[last] as usize] = Outcome::NOTHING;
                s.log[last] = NONE;
            });
        }
        if self.config.staged() {
            return;
        }
        for e in 0..self.from.chunks.len() {
            if matches!(self.from.chunks[e], Bytes::Whole | Bytes::Spoilt) {
                self.forget("a chunk is forgotten", |s| {
                    taint(s, e);
                    s.chunks[e] = Bytes::Partial;
                });
            }
        }
        if let Named::Of(e) = self.from.metadata {
            self.forget("an object's metadata is forgotten", |s| {
                taint(s, e as usize);
                // By all replicas.
                (s.metadata, s.metadata_before) = (Named::Nothing, Named::Nothing);
            });
        }
    }

    fn forget(&mut self, what: &'static str, change: impl FnOnce(&mut State)) {
        self.add(Who::Fault, what, |s| {
            s.left.forgets -= 1;
            s.forgot = true;
            change(s);
        });
    }

    /// Stored bytes that change. A flip in what a committed result names and nobody looks at again is
    /// found by `verify` and `--repair`, so here it may only come before the commit or after the count.
    pub(crate) fn flips(&mut self) {
        if self.from.left.flips == 0 {
            return;
        }
        for f in 0..self.from.folders.len() {
            let folder = self.from.folders[f];
            if folder.outcome.kind == Kind::Done && matches!(folder.last, Named::Of(_)) {
                self.add(Who::Fault, "bytes of a counted output change", |s| {
                    s.left.flips -= 1;
                    s.folders[f].last = Named::Junk;
                    s.folders[f].tainted = true;
                });
            }
        }
        for e in 0..self.from.chunks.len() {
            let execution = u8::try_from(e).unwrap_or(NONE);
            let named = |o: &Outcome| o.is_done() && o.bytes == execution;
            let counted = self.from.folders.iter().any(|folder| named(&folder.outcome));
            let uses = |w: &crate::process::Worker| [w.execution, w.bytes].contains(&execution);
            let under_way = self.from.workers.iter().any(uses)
                || named(&self.from.gatherer.taken)
                || self.from.results.iter().any(named);
            // Where there is no room for another, nothing but a repair can replace a broken object.
            let may = counted || (!under_way && self.config.room == 0);
            if self.from.chunks[e] == Bytes::Whole && may {
                self.add(Who::Fault, "bytes of a stored chunk change", |s| {
                    s.left.flips -= 1;
                    taint(s, e);
                    s.chunks[e] = Bytes::Spoilt;
                });
            }
        }
    }

    /// Somebody's file gets the final name while that is free, and goes away again.
    pub(crate) fn strangers(&mut self) {
        for f in 0..self.from.folders.len() {
            let used = f == self.from.gatherer.folder as usize;
            let last = self.from.folders[f].last;
            if last == Named::Strangers {
                self.add(Who::Somebody, "takes his file away again", |s| {
                    s.folders[f].last = Named::Nothing;
                });
            } else if last.is_free() && self.from.left.strangers > 0 && used {
                self.add(Who::Somebody, "puts a file under the output's name", |s| {
                    s.left.strangers -= 1;
                    s.folders[f].last = Named::Strangers;
                });
            }
        }
    }
}

/// What is counted, or was looked at to be counted, and destroyed by a fault is no step's doing.
fn taint(s: &mut State, e: usize) {
    let gone = s.metadata.names(u8::try_from(e).unwrap_or(NONE));
    let looked_at = s.gatherer.at == Gathers::Count && s.gatherer.taken.is_done();
    let folder = s.gatherer.folder as usize;
    for (f, folder_of) in s.folders.iter_mut().enumerate() {
        let counted = folder_of.outcome.is_done() || (looked_at && f == folder);
        folder_of.tainted |= gone && counted;
    }
}
