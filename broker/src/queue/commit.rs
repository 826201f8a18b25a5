//! Exactly one outcome: results are committed by compare-and-set, and followed by the gatherer.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use bytes::Bytes;

use crate::ids::{BagId, Execution, TaskId};
use crate::result::TaskResult;
use crate::retry::Retry;
use crate::{Broker, Error, limits, subjects};

use super::publish::Refused;

/// Whose outcome a task now has.
#[derive(Debug)]
pub enum Committed {
    /// This execution's.
    Mine,
    /// Another's, which came first: this execution is a duplicate.
    Other(Box<TaskResult>),
    /// One that cannot be read, which came first, and why: junk, or of a later version. No other outcome of the round can be committed.
    Unreadable(String),
}

impl Committed {
    /// The other execution, whose outcome came first, if that is known.
    #[must_use]
    pub fn execution(&self) -> Option<&Execution> {
        match self {
            Self::Other(result) => Some(&result.execution),
            Self::Mine | Self::Unreadable(_) => None,
        }
    }
}

/// What is committed for a task's round.
#[derive(Debug)]
pub enum Standing {
    /// Nothing.
    Open,
    /// An outcome.
    Decided(Box<TaskResult>),
    /// Something that cannot be read, and why: no other outcome of this round can be committed any more.
    Unreadable(String),
}

impl Standing {
    /// The execution whose outcome it is.
    #[must_use]
    pub fn execution(&self) -> Option<&Execution> {
        match self {
            Self::Decided(result) => Some(&result.execution),
            Self::Open | Self::Unreadable(_) => None,
        }
    }
}

impl Broker {
    /// Commits an outcome: the first one for a task's round wins.
    ///
    /// Tries again while the broker is out of reach, at most `limits::COMMIT_TRIES` times; a lost
    /// answer is resolved by reading the committed result and comparing executions. Cancelling leaves
    /// the outcome unknown.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if the stream of results is, [`Error::Lost`]: both transient.
    pub async fn commit(&self, result: &TaskResult) -> Result<Committed, Error> {
        let payload: Bytes = result.encode().into();
        let once = || self.commit_once(result, payload.clone());
        let is_unknown = |error: &Error| !matches!(error, Error::Full { .. });
        Retry::times(limits::COMMIT_TRIES).run(once, is_unknown).await
    }

    /// The same, tried twice and no more: for who does without, where there is no stream of results.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit), and [`Error::Missing`].
    pub async fn commit_if_possible(&self, result: &TaskResult) -> Result<Committed, Error> {
        let payload: Bytes = result.encode().into();
        let once = || self.commit_once(result, payload.clone());
        let is_unknown = |error: &Error| matches!(error, Error::Lost { .. });
        Retry::times(2).run(once, is_unknown).await
    }

    async fn commit_once(&self, result: &TaskResult, payload: Bytes) -> Result<Committed, Error> {
        let during = Error::during("commit a result");
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        let subject = subjects::result(&result.id());
        let sent = self.publish_expecting(subject, headers, payload).await;
        let cause = match sent {
            Ok(_) => return Ok(Committed::Mine),
            Err(Refused::Full(why)) => {
                return Err(Error::Full { what: format!("stream {}", subjects::RESULTS), why });
            }
            Err(Refused::Taken) => None,
            Err(Refused::Unknown(cause)) => Some(cause),
        };
        match self.standing(&result.id()).await {
            Ok(Standing::Decided(found)) if found.execution == result.execution => {
                Ok(Committed::Mine)
            }
            Ok(Standing::Decided(found)) => Ok(Committed::Other(found)),
            Ok(Standing::Unreadable(why)) => Ok(Committed::Unreadable(why)),
            Ok(Standing::Open) => Err(during.lost(cause.unwrap_or_else(|| "not stored".into()))),
            Err(error) => Err(error),
        }
    }

    /// What is committed for a task's round, from the leader: a direct get may lag.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn standing(&self, id: &TaskId) -> Result<Standing, Error> {
        let Some(payload) = self.last_from_leader(subjects::RESULTS, &subjects::result(id)).await?
        else {
            return Ok(Standing::Open);
        };
        Ok(match TaskResult::decode(&payload) {
            Ok(result) if result.id() == *id => Standing::Decided(Box::new(result)),
            Ok(result) => Standing::Unreadable(format!("it is that of task {}", result.id())),
            Err(error) => Standing::Unreadable(error.to_string()),
        })
    }

    /// The committed result of a task, if there is one that can be read.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], or [`Error::Unexpected`] if what is there is not readable.
    pub async fn committed(&self, id: &TaskId) -> Result<Option<TaskResult>, Error> {
        match self.standing(id).await? {
            Standing::Open => Ok(None),
            Standing::Decided(result) => Ok(Some(*result)),
            Standing::Unreadable(cause) => {
                Err(Error::Unexpected { what: "read a committed result", cause })
            }
        }
    }

    /// The committed results of one task, or of all tasks of a bag, by any round, oldest first; those that
    /// cannot be read are passed over. Of a pack come the results of its files that have one; of one file only if the pack begins
    /// with it.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: what was seen so far may be incomplete.
    pub async fn results(
        &self,
        bag: &BagId,
        index: Option<u32>,
        mut see: impl FnMut(TaskResult),
    ) -> Result<(), Error> {
        let is_wanted = |of: &TaskResult| index.is_none_or(|index| of.index == index);
        let see_wanted = |of: TaskResult| {
            if is_wanted(&of) {
                see(of);
            }
        };
        self.results_of(bag, index, see_wanted).await
    }

    /// The same of one task, with those of all files of the pack that begins with it.
    ///
    /// # Errors
    ///
    /// As [`results`](Self::results).
    pub async fn results_of_pack(
        &self,
        bag: &BagId,
        first: u32,
        see: impl FnMut(TaskResult),
    ) -> Result<(), Error> {
        self.results_of(bag, Some(first), see).await
    }

    /// What is committed of the task, or pack, that this file begins, by any round and as it is, oldest first.
    ///
    /// # Errors
    ///
    /// As [`results`](Self::results).
    pub async fn results_as_committed(
        &self,
        bag: &BagId,
        first: u32,
        mut see: impl FnMut(TaskResult),
    ) -> Result<(), Error> {
        let filter = subjects::results_of_task(bag, first);
        let see = |payload: &[u8]| TaskResult::decode(payload).map(&mut see).unwrap_or_default();
        self.read_all(subjects::RESULTS, &filter, see).await
    }

    async fn results_of(
        &self,
        bag: &BagId,
        index: Option<u32>,
        mut see: impl FnMut(TaskResult),
    ) -> Result<(), Error> {
        let filter = index.map_or_else(
            || subjects::results_of(bag),
            |index| subjects::results_of_task(bag, index),
        );
        self.read_all(subjects::RESULTS, &filter, |payload| {
            let Ok(result) = TaskResult::decode(payload) else { return };
            if result.members.is_empty() {
                return see(result);
            }
            let members = (0..limits::PACK_FILES_MAX).filter_map(|place| result.member(place));
            members.for_each(&mut see);
        })
        .await
    }

    /// What the committed result of a pack says of one of its files, which does not begin it. The pack is that of the nearest file
    /// before it that has a result of round 0: one request a file until then.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub async fn result_in_pack(
        &self,
        bag: &BagId,
        index: u32,
    ) -> Result<Option<TaskResult>, Error> {
        for first in (index.saturating_sub(limits::PACK_FILES_MAX - 1)..index).rev() {
            let id = TaskId { bag: bag.clone(), index: first, round: 0 };
            let mut found = None;
            let see = |payload: &[u8]| found = Some(TaskResult::decode(payload).ok());
            self.read_all(subjects::RESULTS, &subjects::result(&id), see).await?;
            if let Some(result) = found {
                return Ok(result.and_then(|result| result.member(index - first)));
            }
        }
        Ok(None)
    }
}
