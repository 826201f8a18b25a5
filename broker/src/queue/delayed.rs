//! Tasks that wait out a delay, and how they are woken when its reason is gone.
//!
//! A delayed nak sits in the server, and nothing but its end or another answer to the same delivery
//! moves it. A nak without a delay makes the task available at once, whichever process sends it; one that comes
//! when the task is with somebody again makes it available too, and is executed twice. So a
//! process that wakes one looks how long the delay still lasts, by the server's clock.

use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;

use crate::ids::BagId;
use crate::{Broker, Error, subjects};

use super::attempts::AttemptRecord;

/// The last word of a task that was given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGiveBack {
    /// What was said.
    pub record: AttemptRecord,
    /// How long ago.
    pub age: Duration,
}

impl LastGiveBack {
    /// For how long its task is not handed out to anybody, from the reading on.
    #[must_use]
    pub fn left(&self) -> Duration {
        let AttemptRecord { cause, planned, delivered, .. } = self.record;
        if self.record.reply.is_none() {
            return Duration::ZERO;
        }
        let times = if cause.is_planned() { planned } else { delivered.saturating_sub(planned) };
        cause.give_back_delay(times.saturating_sub(1)).saturating_sub(self.age)
    }
}

impl Broker {
    /// Reads what was said of the tasks of `bag` when they were given back, from message `from` of the
    /// stream on: the last word of each task if that is 0, every word otherwise. Where to read on.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: read again from the same message.
    pub async fn last_give_backs(
        &self,
        bag: &BagId,
        from: u64,
        mut see: impl FnMut(u64, LastGiveBack),
    ) -> Result<u64, Error> {
        let policy = match from {
            0 => DeliverPolicy::LastPerSubject,
            start_sequence => DeliverPolicy::ByStartSequence { start_sequence },
        };
        let mut next = from;
        self.read_from(subjects::ATTEMPTS, &subjects::attempts_of(bag), policy, |message, at| {
            next = next.max(at.sequence + 1);
            if let Ok(record) = serde_json::from_slice(&message.payload) {
                see(at.sequence, LastGiveBack { record, age: at.age });
            }
        })
        .await?;
        Ok(next)
    }
}
