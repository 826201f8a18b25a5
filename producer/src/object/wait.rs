//! Waiting until objects are there.

use std::time::Duration;

use anyhow::Result;
use bagpress_broker::Broker;
use bagpress_objstore::object_ref::Reference;
use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep_until};

use super::acting::LOOKS;
use super::answer::{Answer, State, Tally};
use super::look::look;

/// Between two looks at what is not there yet.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// How many objects are enough.
    pub num: u64,
    /// For how long; none: without an end.
    pub timeout: Option<Duration>,
}

/// Waits until so many of the objects are there, or cannot be any more, or the time is over. Each that is there, or gone, is
/// told as it becomes known, and at the end each that is not there yet.
///
/// # Errors
///
/// If the broker does not answer, or `tell` fails.
pub async fn wait(
    broker: &Broker,
    references: &[Reference],
    wait: Wait,
    mut tell: impl FnMut(&Answer) -> Result<()>,
) -> Result<Tally> {
    let until = wait.timeout.map(|timeout| Instant::now() + timeout);
    let (mut pending, mut tally) = (references.to_vec(), Tally::default());
    loop {
        let round = Instant::now() + LOOK_AGAIN;
        let looks = stream::iter(&pending).map(|reference| look(broker, reference));
        let (mut looks, mut left) = (Box::pin(looks.buffered(LOOKS)), Vec::new());
        while let Some(looked) = looks.next().await {
            let (answer, _) = looked?;
            if answer.state == State::NeverThere {
                left.push(answer);
            } else {
                tally.count(&answer);
                tell(&answer)?;
            }
        }
        let decided = tally.done >= wait.num || left.len() as u64 + tally.done < wait.num;
        tally.timed_out = !decided && until.is_some_and(|until| Instant::now() >= until);
        if decided || tally.timed_out || left.is_empty() {
            tally.pending = left.len() as u64;
            left.iter().try_for_each(&mut tell)?;
            return Ok(tally);
        }
        drop(looks);
        pending = left.into_iter().map(|answer| answer.reference).collect();
        sleep_until(until.map_or(round, |until| round.min(until))).await;
    }
}
