//! What a broker holds of each bag: to remove a bag completely, and to find what no bag owns.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;

use crate::ids::BagId;
use crate::{Broker, Error, subjects};

/// Key of a bucket's metadata that names its bag.
const BAG: &str = "bag.id";

/// Everything that a broker holds of one bag, its line apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// Messages: tasks, results, attempts.
    pub messages: u64,
    /// Buckets, each by its name.
    pub buckets: Vec<String>,
    /// When the last of it was written, by the server's clock; none if nothing tells.
    pub last: Option<SystemTime>,
}

impl Traces {
    fn written(&mut self, at: SystemTime) {
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    /// For how long nothing was written.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.last.and_then(|last| last.elapsed().ok()).unwrap_or_default()
    }
}

impl Broker {
    /// What the broker holds, by bag. Only buckets that say whose they are count.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] or [`Error::Missing`].
    pub async fn traces(&self) -> Result<BTreeMap<BagId, Traces>, Error> {
        let during = Error::during("list what the broker holds");
        let mut traces: BTreeMap<BagId, Traces> = BTreeMap::new();
        let streams = [
            (subjects::TASKS, subjects::TASK_ALL),
            (subjects::RESULTS, subjects::RESULT_ALL),
            (subjects::ATTEMPTS, subjects::ATTEMPT_ALL),
            (subjects::ATTEMPTS, subjects::DUPLICATE_ALL),
        ];
        for (stream, all) in streams {
            self.count_subjects(stream, all, |subject, count| {
                if let Some(bag) = subjects::bag_of(subject) {
                    traces.entry(bag).or_default().messages += count;
                }
            })
            .await?;
        }
        let context = self.jetstream();
        let mut found = context.streams();
        while let Some(info) = found.try_next().await.map_err(|e| during.lost(e))? {
            let Some(name) = info.config.name.strip_prefix("OBJ_") else { continue };
            let bag = info.config.metadata.get(BAG).and_then(|bag| bag.parse::<BagId>().ok());
            let Some(bag) = bag else { continue };
            let ours = [subjects::bucket(&bag), subjects::input_bucket(&bag)];
            if ours.iter().any(|bucket| bucket == name) {
                let of = traces.entry(bag).or_default();
                of.buckets.push(name.to_owned());
                of.written(info.created.into());
                if info.state.messages > 0 {
                    of.written(info.state.last_timestamp.into());
                }
            }
        }
        Ok(traces)
    }

    /// When the last message of a bag was written: adds it to `traces`, for a bag that somebody means to
    /// remove.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`].
    pub async fn date(&self, bag: &BagId, traces: &mut Traces) -> Result<(), Error> {
        let filters = [
            (subjects::TASKS, subjects::tasks_of(bag)),
            (subjects::RESULTS, subjects::results_of(bag)),
            (subjects::ATTEMPTS, subjects::attempts_of(bag)),
            (subjects::ATTEMPTS, subjects::duplicates_of(bag)),
        ];
        for (stream, filter) in filters {
            let last = self.stream(stream).await?.get_last_raw_message_by_subject(&filter).await;
            if let Ok(last) = last {
                traces.written(last.time.into());
            }
        }
        Ok(())
    }

    /// The buckets of one bag that are there.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn buckets(&self, bag: &BagId) -> Result<Vec<String>, Error> {
        let mut buckets = Vec::new();
        for name in [subjects::bucket(bag), subjects::input_bucket(bag)] {
            match self.stream(&format!("OBJ_{name}")).await {
                Ok(_) => buckets.push(name),
                Err(Error::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(buckets)
    }
}
