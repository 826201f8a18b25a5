//! How a worker names an output that is an object: `objstore/src/object_ref/`.

use crate::config::Clause;
use crate::process::{At, Worker};
use crate::property::broken;
use crate::trace::{Steps, Who};
use crate::values::{Bytes, Named, same_bytes};
use crate::worker::made;

impl Steps<'_> {
    /// The way out of a full bucket: `objstore::store::Output::carry`.
    pub(crate) fn look_when_full(&mut self, w: usize, worker: Worker, who: Who) {
        let named = self.from.metadata;
        if let Named::Of(t) = named
            && self.from.chunks[t as usize] == Bytes::Whole
            && same_bytes(self.config, t, worker.execution)
            && t != worker.execution
        {
            return self.add(who, "adopts the object that is there", |s| made(s, w, t));
        }
        self.planned(w, who, "finds no object to adopt, gives back");
    }

    /// `Sealed::place`, `Bucket::publish_metadata`: create-only, or over exactly what was read.
    pub(crate) fn metadata(&mut self, w: usize, worker: Worker, who: Who) {
        let now = self.from.metadata;
        let free = worker.saw.is_free() && now.is_free();
        let e = worker.execution;
        let over = self.config.lacks(Clause::MetadataCreateOnly);
        if !(free || now == worker.saw || over) {
            return self.add(who, "metadata refused: another is there", |s| {
                s.workers[w].at = At::ReadMetadata;
            });
        }
        self.add(who, "metadata stored", |s| {
            s.set_metadata(Named::Of(e));
            made(s, w, e);
        });
        if self.from.left.transient > 0 {
            self.add(who, "metadata stored, the answer is lost", |s| {
                s.left.transient -= 1;
                s.set_metadata(Named::Of(e));
                s.workers[w].at = At::MetadataUnanswered;
            });
        }
    }

    /// Sends the metadata once more; its own first try refuses it.
    pub(crate) fn metadata_again(&mut self, w: usize, worker: Worker, who: Who) {
        self.add(who, "metadata sent again: refused", |s| s.workers[w].at = At::ReadMetadata);
        if self.config.room > 0 {
            if self.config.lacks(Clause::LeaderBeforeDelete) {
                return self.add(who, "metadata sent again: bucket full", |s| {
                    s.workers[w].at = At::PurgeRefused;
                });
            }
            // `Error::Full` with an unknown try before it becomes `Error::Unanswered`: nothing is purged.
            self.fails(w, worker, who, "metadata sent again: bucket full, fails");
        }
    }

    /// `Bucket::info_from_leader`.
    pub(crate) fn read_metadata(&mut self, w: usize, worker: Worker, who: Who) {
        match self.from.metadata {
            Named::Of(t) if t == worker.execution => {
                self.add(who, "reads its own metadata from the leader", |s| made(s, w, t));
            }
            Named::Of(t) => self.add(who, "reads another's metadata from the leader", |s| {
                s.workers[w].saw = Named::Of(t);
                s.workers[w].at = At::ReadBack;
            }),
            free => self.add(who, "reads from the leader that there is no metadata", |s| {
                s.workers[w].saw = free;
                s.workers[w].at = At::Metadata;
            }),
        }
    }

    /// `Sealed::commit`: adopt the very bytes, replace what does not read back, leave other bytes.
    pub(crate) fn read_back(&mut self, w: usize, worker: Worker, who: Who) {
        let Named::Of(t) = worker.saw else { return };
        let unchecked = self.config.lacks(Clause::AdoptionChecked);
        let e = worker.execution;
        let whole = self.from.chunks[t as usize] == Bytes::Whole;
        if !unchecked && whole && !same_bytes(self.config, t, e) {
            if self.config.lacks(Clause::OthersStay) {
                return self.add(who, "finds other bytes, will replace them", |s| {
                    s.workers[w].at = At::Metadata;
                });
            }
            return self.add(who, "finds other bytes, and gives its own a second name", |s| {
                s.beside[e as usize] = true;
                made(s, w, e);
            });
        }
        if unchecked || whole {
            return self.add(who, "adopts the object that is there", |s| {
                s.workers[w].bytes = t;
                s.workers[w].at = At::PurgeOwn;
            });
        }
        self.add(who, "finds the object broken, will replace it", |s| {
            s.workers[w].at = At::Metadata;
        });
    }

    /// The loser's chunks go: `Bucket::purge_chunks`; without its clause also after a stale read.
    pub(crate) fn purge_own(&mut self, w: usize, worker: Worker, who: Who) {
        let e = worker.execution as usize;
        if worker.at == At::PurgeOwn {
            return self.add(who, "purges its own chunks", |s| {
                s.chunks[e] = Bytes::Nothing;
                let bytes = s.workers[w].bytes;
                made(s, w, bytes);
            });
        }
        if self.from.left.lags > 0 && !self.from.metadata_before.names(worker.execution) {
            self.planned(w, who, "reads from a replica that nothing names its chunks, purges them");
            if let Some((_, to)) = self.out.last_mut() {
                to.left.lags -= 1;
                to.chunks[e] = Bytes::Nothing;
                to.broken = to.broken.or_else(|| broken(self.config, to));
            }
        }
        self.planned(w, who, "finds its metadata stored, gives back");
    }
}
