//! What the outputs of bags were made of, by the results that workers committed of them.

use std::collections::HashMap;

use anyhow::Result;
use bagpress_broker::descriptor::{Input, Original};
use bagpress_broker::ids::BagId;
use bagpress_broker::result::Outcome;
use bagpress_broker::{Broker, Error};
use bagpress_codec::{Codec, Digest};

/// Outputs of one bag whose results are read one by one; of more, all results of the bag are.
const ONE_BY_ONE: usize = 16;

/// What is known of the outputs of one bag.
#[derive(Debug, Default)]
pub(super) struct Originals {
    of: HashMap<(u32, Digest), Original>,
    failed: HashMap<u32, String>,
    /// The codec that made each, and what it was made of, by name.
    made: HashMap<u32, (Codec, Option<String>)>,
}

impl Originals {
    /// Reads what workers committed of these tasks of a bag, or of all; nothing of a bag whose results are not on the broker, as those of one
    /// that was offered to earlier workers.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub(super) async fn read(broker: &Broker, bag: &BagId, tasks: &[u32]) -> Result<Self> {
        let mut read = Self::default();
        let one_by_one = (1..=ONE_BY_ONE).contains(&tasks.len());
        let each: Vec<_> =
            if one_by_one { tasks.iter().copied().map(Some).collect() } else { vec![None] };
        for index in each {
            let reading = broker.results(bag, index, |result| match &result.outcome {
                Outcome::Done(done) => {
                    let codec = result.descriptor.as_ref().map(|task| task.codec);
                    if let Some(task) = &result.descriptor {
                        read.made.insert(result.index, (task.codec, named(&task.input)));
                    }
                    let decoded = codec.and_then(|codec| done.decoded_digest(&codec));
                    if let Some(digest) = decoded {
                        let original = Original { bytes: done.input_bytes, digest };
                        read.of.insert((result.index, done.output_digest), original);
                    }
                }
                Outcome::Failed(failed) => {
                    read.failed.insert(result.index, failed.cause.to_string());
                }
            });
            match reading.await {
                Ok(()) | Err(Error::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(read)
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
