//! When the output bucket is nearly full, purges chunks without metadata whose task no worker reports.
//!
//! The drill and users need it: a worker that is killed while it writes leaves chunks, and a bucket has space for the outputs of
//! its bag and little more.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bagpress_objstore::object_ref::{Bucket, Error};
use tracing::{debug, info};

use crate::deliver::watch::Watch;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Below this share of the bucket, in percent, nothing is looked for: listing costs the server work.
const FULL_PERCENT: u64 = 90;

/// Looks after the output bucket of a bag.
#[derive(Debug)]
pub(crate) struct Room {
    looked: Instant,
    /// Tokens without metadata and without a holder, when they were last looked at.
    orphans: HashSet<String>,
    full: Option<String>,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { looked: Instant::now(), orphans: HashSet::new(), full: None }
    }

    /// Why workers find no room, if the bucket is as good as full.
    pub(crate) fn full(&self) -> Option<&str> {
        self.full.as_deref()
    }

    /// Once a second: if the bucket is as good as full, purges the chunks that no metadata names and of
    /// whose task no worker speaks, twice in a row.
    ///
    /// A writer that was alive after all finds its object incomplete, or the gatherer does: its task
    /// is run again, a few times at most.
    pub(crate) async fn look(&mut self, bucket: &Bucket, watch: &Watch) {
        if self.looked.elapsed() < EVERY {
            return;
        }
        if let Err(error) = self.purge(bucket, watch).await {
            debug!(%error, "bucket not checked now");
        }
        self.looked = Instant::now();
    }

    async fn purge(&mut self, bucket: &Bucket, watch: &Watch) -> Result<(), Error> {
        let (bytes, most) = bucket.usage().await?;
        if bytes < most / 100 * FULL_PERCENT {
            self.full = None;
            self.orphans.clear();
            return Ok(());
        }
        self.full = Some(format!("bucket {} holds {bytes} of {most} bytes", bucket.name()));
        let unheld = |token: &str| {
            let index = token.split_once('-').and_then(|(index, _)| index.parse().ok());
            index.is_some_and(|index: u32| !watch.is_held(index))
        };
        let orphans = bucket.orphans().await?.into_iter().map(|orphan| orphan.token);
        let orphans: HashSet<String> = orphans.filter(|token| unheld(token)).collect();
        for token in orphans.intersection(&self.orphans) {
            bucket.purge_chunks(token).await?;
            info!(token, "unreferenced chunks purged, the bucket is full");
        }
        self.orphans = orphans;
        Ok(())
    }
}
