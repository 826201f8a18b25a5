//! The outputs of a pack as one tar: `objstore/src/pack/objects.rs`, `object_ref/commit.rs` and `producer/src/gather/fetch.rs`.
//!
//! The tar of an execution has a file if the file's part of that execution is whole.

use crate::config::{Clause, Path};
use crate::trace::Who;
use crate::values::{Bytes, NONE};

use super::state::{At, FILES, Key, Last, Says, State, Worker};
use super::steps::Steps;

impl Steps<'_> {
    /// Whether the outputs of what is delivered by this name are a tar.
    pub(crate) fn is_tar(&self, key: Key) -> bool {
        self.config.path == Path::Objects && key.is_pack()
    }

    /// `TarOutputs::open`: nobody is asked. The files that were decided when the input was put are not in it; a slow worker may
    /// have one that was put before.
    pub(crate) fn open_tar(&mut self, w: usize, who: Who) {
        let decided = [0, 1].map(|f| !self.from.is_open(f, 0));
        self.add(who, "fetches the tar of the files that are open", |s| {
            (s.workers[w].over, s.workers[w].at) = (decided, At::Execute);
        });
        if decided.contains(&true) {
            self.add(who, "fetches a tar of both files", |s| {
                (s.workers[w].over, s.workers[w].at) = ([false; FILES], At::Execute);
            });
        }
    }

    /// `TarOutputs::close`: a tar that has the name stays, and the own one gets another.
    pub(crate) fn close_tar(&mut self, w: usize, worker: Worker, who: Who) {
        let named = self.from.named == NONE;
        let what = if named { "writes its tar" } else { "writes its tar under a second name" };
        self.transient(w, worker, who);
        self.add(who, what, |s| {
            let e = worker.execution as usize;
            for f in worker.key.files().filter(|f| worker.says[*f] == Says::Done) {
                s.files[f].parts[e] = Bytes::Whole;
            }
            if named {
                s.named = worker.execution;
            }
            s.workers[w].at = At::Commit;
        });
    }

    /// `Tar::find`: gives a tar the name, whatever has it, unless a file of the pack counts (`BagPlan::has_counted`). Whether it
    /// did.
    pub(crate) fn name_tar(&mut self, who: Who, e: u8) -> bool {
        let counts = self.from.files.iter().any(|file| file.says == Says::Done && file.round == 0);
        let kept = counts && !self.config.lacks(Clause::TarNamedBeforeAnyCounts);
        let there = self.from.files.iter().any(|file| file.parts[e as usize] == Bytes::Whole);
        if self.from.named == e || kept || !there {
            return false;
        }
        self.add(who, "gives the tar its name", |s| {
            let before = std::mem::replace(&mut s.named, e);
            for file in &mut s.files {
                if let Some(part) = file.parts.get_mut(before as usize) {
                    *part = Bytes::Nothing;
                }
                if file.says == Says::Done && file.round == 0 && file.by == before {
                    file.last = Last::Junk;
                }
            }
        });
        true
    }

    /// `Tar::part`: whether the tar has the file.
    pub(crate) fn find_in_tar(&mut self, who: Who, f: usize, e: u8) {
        let there = self.from.files[f].parts[e as usize] == Bytes::Whole;
        let what =
            if there { "finds a file in the tar" } else { "does not find a file in the tar" };
        self.add(who, what, |s| found(s, f, there));
    }
}

fn found(s: &mut State, f: usize, there: bool) {
    if there {
        s.files[f].last = Last::Whole;
        s.gatherer.placed[f] = true;
    } else {
        s.gatherer.taken.says[f] = Says::Nothing;
        s.gatherer.due[f] = Some(s.gatherer.from.round);
    }
}
