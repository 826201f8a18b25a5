//! Running tasks anew: a new round begins in the ledger before anything of the old one is touched.

use anyhow::{Context, Result};
use bagpress_broker::subjects;
use bagpress_objstore::object_ref::Lookup;
use bagpress_objstore::staging::{Plan as _, hash_file};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::gather::Gathering;
use crate::rebuild;

impl Gathering {
    /// Begins new rounds for what shall run again, before anything of the old ones is touched.
    pub(crate) async fn rerun(&mut self) -> Result<()> {
        if self.options.repair {
            let (plan, parts) = (self.plan.clone(), self.parts.clone());
            let rebuilding = spawn_blocking(move || {
                parts.map_or(Ok(0), |parts| rebuild::from_outputs(&plan, parts.root()))
            });
            let tasks = rebuilding.await.context("rebuild the ledger")??;
            if tasks > 0 {
                info!(tasks, "ledger lines rebuilt from outputs that give their inputs again");
                crate::message(&format!("note: {tasks} ledger lines rebuilt from their outputs"));
            }
        }
        let mut again = Vec::new();
        if self.options.retry_failed {
            let tasks = 0..self.plan.specification.tasks;
            again.extend(tasks.filter(|index| self.plan.ledger.is_failed(*index)));
        }
        if self.options.repair {
            again.extend(self.broken().await?);
        }
        if !again.is_empty() {
            info!(tasks = again.len(), "running again");
            self.run_again(&again).await?;
        }
        Ok(())
    }

    /// Tasks that are done by the ledger, and whose output does not read back.
    async fn broken(&self) -> Result<Vec<u32>> {
        let (mut broken, mut done) = (Vec::new(), Vec::new());
        let reading = self.plan.ledger.outcomes(|result| done.push(result));
        reading.with_context(|| format!("read {}", self.plan.ledger.path().display()))?;
        for result in done {
            let Some(expected) = result.done() else { continue };
            let sound = match (&self.parts, &self.acceptor.bucket) {
                (Some(parts), _) => {
                    let target = parts.root().join(self.plan.target(result.index)?.path);
                    hash_file(&target).is_ok_and(|(digest, _)| digest == expected.output_digest)
                }
                (None, Some(bucket)) => {
                    let name = subjects::output_name(result.index);
                    let read = bucket.get(&name, u64::MAX).await;
                    read.is_ok_and(|(info, _)| info.digest == expected.output_digest)
                }
                (None, None) => true,
            };
            if !sound {
                broken.push(result.index);
            }
        }
        Ok(broken)
    }

    pub(crate) async fn run_again(&self, indices: &[u32]) -> Result<()> {
        let begun = self.plan.ledger.begin(indices).context("begin new rounds")?;
        for (index, round) in begun {
            self.remove_object(index, Sound::Goes).await;
            // Where we keep the tasks ourselves, all that is not decided is offered anyway.
            if self.outcomes.is_committed() {
                self.publisher.publish_round(index, round).await?;
            }
        }
        Ok(())
    }

    /// Removes a task's object, by the sequence that was read.
    pub(crate) async fn remove_object(&self, index: u32, sound: Sound) {
        let Some(bucket) = &self.acceptor.bucket else { return };
        let name = subjects::output_name(index);
        let Ok(Lookup::Found(info)) = bucket.info_from_leader(&name).await else { return };
        if sound == Sound::Stays {
            match bucket.read_back(&info).await {
                Err(error) if error.is_broken_object() => {}
                // A worker adopts it.
                _ => return,
            }
        }
        if let Err(error) = bucket.remove_exactly(&info).await {
            warn!(%error, index, "old object not removed");
        }
    }
}

/// What becomes of an old object that reads back with its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sound {
    /// It is removed: it is another than was committed, or was found bad before.
    Goes,
    /// It is left: it may be that of a worker that has not committed yet.
    Stays,
}
