//! One line per bag in the KV bucket `bags`: which bags exist, their progress, and their gatherers.
//!
//! The line is also the lease of the bag's one gatherer. Every write names the revision that its writer
//! has read, so of two writers one learns that there is another.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL, NATS_ROLLUP};
use bagpress_codec::Digest;
use serde::{Deserialize, Serialize};

use crate::descriptor::{ResultPath, decode_json};
use crate::ids::{BagId, Pool};
use crate::queue::publish::Refused;
use crate::{Broker, Error, bounded, machine, subjects};

/// How far a bag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BagState {
    /// Descriptors are being published.
    Submitting,
    /// All descriptors are published.
    Running,
    /// Every task has an outcome.
    Finished,
    /// Somebody cancelled it.
    Cancelled,
}

impl std::fmt::Display for BagState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// The process that gathers a bag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gatherer {
    /// Random, one a gathering.
    #[serde(deserialize_with = "bounded::text")]
    pub id: String,
    /// Its host.
    #[serde(deserialize_with = "bounded::text")]
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Since when, µs since 1970 by its clock.
    #[serde(deserialize_with = "bounded::time_us")]
    pub since_us: u64,
    /// Which lock file it holds: kernel, device and inode. A process that holds the same one knows that this
    /// gatherer is dead.
    pub lock: String,
    /// Whose process ids `pid` is one of: [`machine::processes`]. Empty if that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub processes: String,
}

impl Gatherer {
    /// Whether its process has certainly ended: ids are ours, and nobody has this one. Elsewhere, only
    /// its lease tells.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        !self.processes.is_empty()
            && self.processes == machine::processes()
            && !machine::lives(self.pid)
    }
}

impl std::fmt::Display for Gatherer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on host {}", self.pid, self.host)
    }
}

/// What the bucket says of one bag. Its gatherer writes it, at most once a second; `cancel` changes the
/// state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BagLine {
    /// [`crate::limits::WIRE_VERSION`].
    pub v: u32,
    /// The bag.
    pub bag: BagId,
    /// How far it is.
    pub state: BagState,
    /// Its workers' pool.
    pub pool: Pool,
    /// How its outputs come back.
    pub results: ResultPath,
    /// Codec and level.
    pub codec: String,
    /// The codec's library.
    pub library: String,
    /// How many tasks it has.
    pub tasks: u32,
    /// How many were done.
    pub done: u32,
    /// How many failed.
    pub failed: u32,
    /// How many took more than one attempt.
    pub retried: u64,
    /// Workers that died while it was gathered.
    pub workers_lost: u64,
    /// Input bytes of the tasks done.
    pub input_bytes: u64,
    /// Output bytes of the tasks done.
    pub output_bytes: u64,
    /// Input bytes of the blocks done of files that have no outcome yet.
    #[serde(default, skip_serializing_if = "no_bytes")]
    pub block_bytes: u64,
    /// Input bytes of all tasks, as they were when the bag was made; 0 if its gatherer does not say.
    #[serde(default, skip_serializing_if = "no_bytes")]
    pub total_bytes: u64,
    /// Input bytes that were read so far: of tasks and blocks done, and of those that workers report. It does not shrink while
    /// one process gathers the bag; 0 if that does not say.
    #[serde(default, skip_serializing_if = "no_bytes")]
    pub progress_bytes: u64,
    /// Input bytes a second, since it is gathered.
    pub bytes_per_s: u64,
    /// How long it will take, in s, as far as that can be told.
    pub eta_s: Option<u64>,
    /// Why it does not move, if its gatherer knows.
    pub waits: Option<String>,
    /// Its gatherer.
    pub gatherer: Option<Gatherer>,
    /// The highest round that any gatherer began of any of its tasks: there is no result of a later one.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "bounded::round")]
    pub rounds: u32,
    /// How long each object of its output bucket stays, in s, if that is bounded and its gatherer says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// Digest of the list of its files in its output bucket, once it is finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Digest>,
    /// When this was written, µs since 1970 by the writer's clock.
    #[serde(deserialize_with = "bounded::time_us")]
    pub updated_us: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
pub(super) fn no_bytes(bytes: &u64) -> bool {
    *bytes == 0
}

/// What there is where a bag has its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLine {
    /// The line, if there is one that can be read.
    pub line: Option<BagLine>,
    /// Why there is something that cannot be read: junk, or the line of a later version. Whose it is nobody knows, hence
    /// it is never taken for none.
    pub unreadable: Option<String>,
    /// Its revision, which the next write must name; 0 if there is none.
    pub revision: u64,
    /// Whether the bag was removed, not long ago.
    pub removed: bool,
}

impl FoundLine {
    /// Whether nothing of the bag is to be worked on any more.
    #[must_use]
    pub fn is_called_off(&self) -> bool {
        self.removed || self.line.as_ref().is_some_and(|line| line.state == BagState::Cancelled)
    }
}

impl Broker {
    /// Reads a bag's line, from the leader.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn find_bag(&self, bag: &BagId) -> Result<FoundLine, Error> {
        let found = self.last_with_sequence(&subjects::lines(), &subjects::line(bag)).await?;
        let (revision, payload) = found.unwrap_or_default();
        let mut found = FoundLine { line: None, unreadable: None, revision, removed: false };
        if payload.is_empty() {
            found.removed = revision > 0;
            return Ok(found);
        }
        match decode_json::<BagLine>(&payload) {
            Ok(line) if line.bag == *bag => found.line = Some(line),
            Ok(line) => found.unreadable = Some(format!("it is the line of bag {}", line.bag)),
            Err(error) => found.unreadable = Some(error.to_string()),
        }
        Ok(found)
    }

    /// Writes a bag's line if its revision is still `revision`, and returns the new one; none if
    /// somebody else wrote meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] or [`Error::Full`]; it may have been written.
    pub async fn write_bag(&self, line: &BagLine, revision: u64) -> Result<Option<u64>, Error> {
        let during = Error::during("write the bag's line");
        let payload = serde_json::to_vec(line).map_err(|e| during.lost(e))?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string().as_str());
        match self.publish_expecting(subjects::line(&line.bag), headers, payload.into()).await {
            Ok(ack) => Ok(Some(ack.sequence)),
            Err(Refused::Taken) => Ok(None),
            Err(Refused::Full(why)) => {
                Err(Error::Full { what: format!("KV bucket {}", subjects::BAGS), why })
            }
            Err(Refused::Unknown(cause)) => Err(during.lost(cause)),
        }
    }

    /// The lines of all bags, those that were not written for longest first.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn bags(&self) -> Result<Vec<BagLine>, Error> {
        // One that was written again meanwhile comes twice.
        let mut bags: BTreeMap<BagId, BagLine> = BTreeMap::new();
        self.read_all(&subjects::lines(), &subjects::line_all(), |payload| {
            if let Ok(line) = decode_json::<BagLine>(payload) {
                bags.insert(line.bag.clone(), line);
            }
        })
        .await?;
        let mut bags: Vec<_> = bags.into_values().collect();
        bags.sort_by_key(|line| line.updated_us);
        Ok(bags)
    }

    /// Sets the state of a bag to *cancelled*, says so, and takes its tasks out of the queue. Returns
    /// the line as it was before; none if the bag has no line.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: cancel again.
    pub async fn cancel_bag(&self, bag: &BagId) -> Result<Option<BagLine>, Error> {
        let mut before = None;
        for _ in 0..crate::limits::COMMIT_TRIES {
            let FoundLine { line, revision, .. } = self.find_bag(bag).await?;
            let Some(line) = line else { break };
            before.get_or_insert_with(|| line.clone());
            let cancelled =
                BagLine { state: BagState::Cancelled, eta_s: None, waits: None, ..line };
            if self.write_bag(&cancelled, revision).await?.is_some() {
                // The line first: who misses the event finds it there.
                self.announce_cancelled(bag).await?;
                self.purge_tasks(bag).await?;
                return Ok(before);
            }
        }
        match before {
            Some(_) => Err(Error::during("cancel the bag").lost("its line keeps changing")),
            None => Ok(None),
        }
    }

    /// Removes every message that the streams hold of a bag: tasks, results, attempts, and last its line.
    ///
    /// In place of the line stands, for [`limits::REMOVED_FOR`](crate::limits::REMOVED_FOR), what KV
    /// buckets call a purge marker: every client takes it for no line, and a server that is killed keeps
    /// it. Of a line that was only purged such a server brings an older revision back (ADR 0015).
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] or [`Error::Missing`]: remove again.
    pub async fn remove_bag(&self, bag: &BagId) -> Result<u64, Error> {
        let mut removed = self.purge(subjects::TASKS, &subjects::tasks_of(bag)).await?;
        removed += self.purge(subjects::RESULTS, &subjects::results_of(bag)).await?;
        removed += self.purge(subjects::ATTEMPTS, &subjects::attempts_of(bag)).await?;
        removed += self.purge(subjects::ATTEMPTS, &subjects::duplicates_of(bag)).await?;
        let FoundLine { line, revision, .. } = self.find_bag(bag).await?;
        if revision > 0 {
            self.mark_removed(bag).await?;
        }
        Ok(removed + u64::from(line.is_some()))
    }

    async fn mark_removed(&self, bag: &BagId) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "PURGE");
        headers.insert(NATS_ROLLUP, "sub");
        let ttl = crate::limits::REMOVED_FOR.as_secs();
        headers.insert(NATS_MESSAGE_TTL, format!("{ttl}s").as_str());
        let during = Error::during("remove the bag's line");
        let subject = subjects::line(bag);
        let sent = self.jetstream().publish_with_headers(subject, headers, "".into()).await;
        sent.map_err(|e| during.lost(e))?.await.map_err(|e| during.lost(e))?;
        Ok(())
    }

    /// For how long a bag's line was not written, by the server's clock.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] or [`Error::Lost`].
    pub async fn line_age(&self, bag: &BagId) -> Result<Duration, Error> {
        let stream = self.stream(&subjects::lines()).await?;
        let last = stream.get_last_raw_message_by_subject(&subjects::line(bag)).await;
        let last = last.map_err(|e| Error::during("date the bag's line").lost(e))?;
        Ok(SystemTime::from(last.time).elapsed().unwrap_or_default())
    }
}
