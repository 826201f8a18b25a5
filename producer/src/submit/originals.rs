//! What the outputs of bags were made of, by the results that workers committed of them.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use bagpress_broker::descriptor::{Input, Original};
use bagpress_broker::ids::BagId;
use bagpress_broker::result::{Done, Outcome, Place, TaskResult};
use bagpress_broker::{Broker, subjects};
use bagpress_codec::{Codec, Digest};

use crate::object::look::answered;

/// Outputs of one bag whose results are read one by one; of more, all results of the bag are.
const ONE_BY_ONE: usize = 16;

/// What is known of the outputs of one bag.
#[derive(Debug, Default)]
pub(super) struct Originals {
    of: HashMap<(u32, Digest), Original>,
    failed: HashMap<u32, String>,
    /// The codec that made each, and what it was made of, by name.
    made: HashMap<u32, (Codec, Option<String>)>,
    /// Those in tars, and which of them has an output with a digest.
    packed: HashMap<u32, Packed>,
    by_digest: HashMap<Digest, u32>,
    /// What outputs that are objects of their own were made of, by their digests.
    alike: HashMap<Digest, Original>,
    /// Tasks of packs that have run again alone since.
    alone: HashSet<u32>,
    tars: Vec<Tar>,
    /// Files that were compressed in blocks, by name.
    cut: HashMap<u32, Option<String>>,
}

/// A tar of the outputs of a pack, as its result names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tar {
    /// The first file of its pack.
    pub(super) first: u32,
    /// Its name, or second name.
    pub(super) object: String,
    pub(super) digest: Digest,
}

/// An output in a tar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    /// Which of [`Originals::tars`].
    pub(super) tar: usize,
    /// At which byte of it the output begins.
    pub(super) at: u64,
    pub(super) bytes: u64,
    pub(super) digest: Digest,
    input_bytes: u64,
    input_digest: Digest,
    /// What it decodes to, if its worker looked and that is something else.
    decoded: Option<Digest>,
}

impl Packed {
    /// What it was made of by `codec`, if that is known.
    pub(super) fn original(&self, codec: &Codec) -> Option<Original> {
        let digest = if codec.is_lossy() { self.decoded } else { Some(self.input_digest) };
        Some(Original { bytes: self.input_bytes, digest: digest? })
    }
}

impl Originals {
    /// Reads what workers committed of these tasks of a bag, or of all; nothing of a bag whose results are not on the broker, as those of one
    /// that was offered to earlier workers. `rounds` is the highest round that a gatherer began: which of several outcomes of a file of a pack
    /// counts depends on it.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub(super) async fn read(
        broker: &Broker,
        bag: &BagId,
        tasks: &[u32],
        rounds: u32,
    ) -> Result<Self> {
        let mut read = Self::default();
        let one_by_one = (1..=ONE_BY_ONE).contains(&tasks.len());
        let each: Vec<_> =
            if one_by_one { tasks.iter().copied().map(Some).collect() } else { vec![None] };
        for index in each {
            answered(broker.results(bag, index, |result| read.take(&result, rounds)).await)?;
        }
        Ok(read)
    }

    /// Reads what workers committed of the pack that `first` begins.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub(super) async fn of_pack(broker: &Broker, bag: &BagId, first: u32) -> Result<Self> {
        let mut read = Self::default();
        // Of a file that ran again alone since, the tar has what it was made of all the same.
        answered(broker.results_of_pack(bag, first, |result| read.take(&result, 0)).await)?;
        Ok(read)
    }

    fn take(&mut self, result: &TaskResult, rounds: u32) {
        match &result.outcome {
            Outcome::Done(done) => {
                if let Place::Tar { object, at, digest, .. } = &done.place {
                    if result.round > 0 {
                        return; // what was run again for a lost tar decides nothing about it
                    }
                    let first = subjects::first_of_tar(object).unwrap_or(result.index);
                    let tar = Tar { first, object: object.clone(), digest: *digest };
                    return self.take_packed(result.index, tar, *at, done);
                }
                if (1..=rounds).contains(&result.round) {
                    self.alone.insert(result.index);
                }
                let Some(task) = &result.descriptor else { return };
                if let Some(block) = task.block {
                    self.cut.insert(block.file, named(&task.input));
                }
                self.made.insert(result.index, (task.codec, named(&task.input)));
                if let Some(digest) = done.decoded_digest(&task.codec) {
                    let original = Original { bytes: done.input_bytes, digest };
                    self.of.insert((result.index, done.output_digest), original);
                    self.alike.insert(done.output_digest, original);
                }
            }
            Outcome::Failed(failed) => {
                self.failed.insert(result.index, failed.cause.to_string());
            }
        }
    }

    /// Takes an output that begins at this byte of a tar.
    fn take_packed(&mut self, index: u32, tar: Tar, at: u64, done: &Done) {
        // Those of one tar follow each other.
        if self.tars.last() != Some(&tar) {
            self.tars.push(tar);
        }
        let packed = Packed {
            tar: self.tars.len() - 1,
            at,
            bytes: done.output_bytes,
            digest: done.output_digest,
            input_bytes: done.input_bytes,
            input_digest: done.input_digest,
            decoded: done.fidelity.map(|fidelity| fidelity.decoded_digest),
        };
        self.by_digest.insert(done.output_digest, index);
        self.packed.insert(index, packed);
    }

    /// The output of a task, if it is in a tar.
    pub(super) fn packed(&self, index: u32) -> Option<&Packed> {
        self.packed.get(&index).filter(|_| !self.alone.contains(&index))
    }

    /// The tars that have outputs.
    pub(super) fn tars(&self) -> &[Tar] {
        &self.tars
    }

    /// What an output of `codec` was made of that another task has made, too: of those that have the content of a file in a pack, the
    /// broker has no result.
    pub(super) fn of_twin(&self, output: Digest, codec: &Codec) -> Option<Original> {
        let packed = self.by_digest.get(&output).and_then(|index| self.packed.get(index));
        let packed = packed.and_then(|packed| packed.original(codec));
        packed.or_else(|| self.alike.get(&output).copied())
    }

    /// The name of a file, as far as it is known, if that was compressed in blocks.
    pub(super) fn cut(&self, file: u32) -> Option<&Option<String>> {
        self.cut.get(&file)
    }

    /// What the output of a task was made of, if that output has this digest.
    pub(super) fn of(&self, index: u32, output: Digest) -> Option<Original> {
        self.of.get(&(index, output)).copied()
    }

    /// The codec that made the output of a task, and the name of what it was made of.
    pub(super) fn made(&self, index: u32) -> Option<&(Codec, Option<String>)> {
        self.made.get(&index)
    }

    /// Why a task has no output, if a worker said so.
    pub(super) fn why_failed(&self, index: u32) -> Option<&str> {
        self.failed.get(&index).map(String::as_str)
    }
}

fn named(input: &Input) -> Option<String> {
    match input {
        Input::Generate { .. } => None,
        Input::File { name, .. } | Input::Object { name, .. } => Some(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use bagpress_broker::ids::{Execution, TaskId};
    use bagpress_broker::samples;

    use super::*;

    #[test]
    fn what_was_run_again_for_a_lost_tar_takes_the_place_of_nothing() {
        let of = |round, tar: &[u8]| {
            let (bag, digest) = (samples::bag(), Digest::of(tar));
            let (bucket, object) = (subjects::bucket(&bag), subjects::tar_name(3));
            let place = Place::Tar { bucket, object, chunks: 1, at: 512, digest };
            samples::done(&TaskId { bag, index: 3, round }, &Execution::random(), tar, place)
        };
        let mut originals = Originals::default();
        for result in [of(0, b"tar"), of(1, b"other bytes"), of(2, b"tar")] {
            originals.take(&result, 2);
        }
        assert_eq!(originals.packed(3).unwrap().digest, Digest::of(b"tar"));
        let digests: Vec<_> = originals.tars().iter().map(|tar| tar.digest).collect();
        assert_eq!(digests, [Digest::of(b"tar")]);
    }
}
