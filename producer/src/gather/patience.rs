//! Waiting for a disk: how, for how long, and for what not at all.

use anyhow::Result;
use bagpress_broker::{BagState, Followed, limits, quote};
use bagpress_objstore::{Trouble, trouble};

use crate::error::Stalled;
use crate::error::Unwritable;
use crate::gather::Gathering;
use crate::gather::accept::Accepted;

impl Gathering {
    /// Waits for what may take as long as the disk does. Meanwhile the lease is renewed, and why it takes so
    /// long is said.
    ///
    /// # Errors
    ///
    /// [`Stalled`], when it has taken too long.
    pub(crate) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let waiting = tokio::time::timeout(limits::GATHERER_RENEWAL, &mut work).await;
            if let Ok(done) = waiting {
                return Ok(done);
            }
            let (workers, running) = self.show().await;
            self.expect_patience(workers, running).await?;
            self.lease.renew(self.line(BagState::Running));
        }
    }

    /// Accepts outcomes, however long that takes.
    pub(crate) async fn accept(&mut self, batch: Vec<Followed>) -> Result<Accepted> {
        loop {
            let acceptor = self.acceptor.clone();
            match self.beside(acceptor.accept(batch.clone())).await? {
                Ok(accepted) => {
                    self.blocked = None;
                    for aside in &accepted.aside {
                        self.progress.tell(&format!(
                            "an output of this bag was not as the bag wrote it, and is {} now",
                            quote::name(aside)
                        ));
                    }
                    return Ok(accepted);
                }
                Err(error) => self.wait_for_disk(error).await?,
            }
        }
    }

    /// Full is not failed: says so, and comes back when it is time to try again.
    ///
    /// # Errors
    ///
    /// What does not pass, and [`Stalled`].
    pub(crate) async fn wait_for_disk(&mut self, error: anyhow::Error) -> Result<()> {
        if let Some(ends) = self.does_not_pass(&error) {
            return Err(ends);
        }
        let why = format!("{error:#}");
        self.progress.say(&format!("waiting: {why}"));
        self.waits = Some(why.clone());
        self.blocked = Some(why);
        self.lease.renew(self.line(BagState::Running));
        self.expect_patience(0, 0).await?;
        tokio::time::sleep(limits::RETRY_WAIT).await;
        Ok(())
    }

    /// What an error ends the run with that is neither a task's own nor passes.
    fn does_not_pass(&self, error: &anyhow::Error) -> Option<anyhow::Error> {
        let panicked = error.chain().any(<dyn std::error::Error>::is::<tokio::task::JoinError>);
        let met = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
        let means =
            |error| self.parts.as_ref().map_or_else(|| trouble(error), |p| p.trouble(error));
        let ends = panicked || met.is_some_and(|error| means(error) != Trouble::Passes);
        let gone = || self.parts.as_ref().and_then(|parts| parts.gone());
        ends.then(|| Unwritable(gone().unwrap_or_else(|| format!("{error:#}"))).into())
    }

    /// Fails when nothing has happened for longer than anybody wants to wait.
    pub(crate) async fn expect_patience(&self, workers: usize, running: usize) -> Result<()> {
        let most = self.options.stall_timeout;
        if running > 0 || self.last_outcome.elapsed() < most {
            return Ok(());
        }
        let why = self.reason(workers, running).await;
        Err(Stalled(format!("no outcome for {most:?}: {why}")).into())
    }
}
