//! What is in a bucket: objects, and chunks that no object names.

use std::collections::{HashMap, HashSet};

use futures::StreamExt;

use super::bucket::Bucket;
use super::error::Error;
use super::fetch::Fetch;
use super::meta::{Info, Lookup};
use super::names;

/// The objects of a bucket, oldest metadata first; see [`Bucket::list`].
#[derive(Debug)]
pub struct Listing {
    bucket: String,
    fetch: Fetch,
}

/// Chunks that no metadata names: of a writer that failed, lost, or has not finished yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Their token: `<index>-<execution>` if they are ours.
    pub token: String,
    /// How many there are.
    pub chunks: u64,
}

impl Listing {
    /// The next object, or `None` when there are no more. An object that is replaced meanwhile may
    /// come twice, the newer one later. Deleted objects and metadata that cannot be read are left
    /// out.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::NoBucket`].
    pub async fn next(&mut self) -> Result<Option<Info>, Error> {
        while let Some(message) = self.fetch.next().await? {
            let lookup = Lookup::read(&self.bucket, message.sequence, &message.payload);
            if let Lookup::Found(info) = lookup {
                return Ok(Some(info));
            }
        }
        Ok(None)
    }
}

impl Bucket {
    /// Lists the objects of the bucket. Makes no consumer.
    #[must_use]
    pub fn list(&self) -> Listing {
        Listing { bucket: self.name().to_owned(), fetch: Fetch::metadata(self) }
    }

    /// Chunks that no metadata names. Among them are those of writers that still write: a caller
    /// purges only tokens of executions that no worker holds.
    ///
    /// # Errors
    ///
    /// As [`Listing::next`].
    pub async fn orphans(&self) -> Result<Vec<Orphan>, Error> {
        // Chunks first: an object that is finished between the two must not look like an orphan.
        let (mut chunks, replicas) = self.all_chunks().await?;
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        let named = self.named_tokens(replicas).await?;
        chunks.retain(|token, _| !named.contains(token));
        let mut orphans: Vec<_> =
            chunks.into_iter().map(|(token, chunks)| Orphan { token, chunks }).collect();
        orphans.sort_by(|a, b| a.token.cmp(&b.token));
        Ok(orphans)
    }

    /// How many chunks each token has, and how many replicas the bucket.
    async fn all_chunks(&self) -> Result<(HashMap<String, u64>, usize), Error> {
        let all = names::all_chunks(self.name());
        let prefix = all.trim_end_matches('>');
        let mut chunks = HashMap::new();
        let mut state = self.state(&all).await?;
        while let Some(found) = state.next().await {
            let (subject, count) = found.map_err(|error| self.no_state(&error))?;
            if let Some(token) = subject.strip_prefix(prefix) {
                chunks.insert(token.to_owned(), count as u64);
            }
        }
        Ok((chunks, state.info.config.num_replicas))
    }

    /// Whether an object that is there has the chunks under `token`.
    pub(super) async fn is_named(&self, token: &str) -> Result<bool, Error> {
        let replicas = self.state("").await?.info.config.num_replicas;
        Ok(self.named_tokens(replicas).await?.contains(token))
    }

    /// Tokens of objects that are there; what a tombstone names should be gone.
    async fn named_tokens(&self, replicas: usize) -> Result<HashSet<String>, Error> {
        let mut named = HashSet::new();
        let mut add = |sequence, payload: &[u8]| {
            if let Lookup::Found(info) = Lookup::read(self.name(), sequence, payload) {
                named.insert(info.token);
            }
        };
        if replicas <= 1 {
            let mut fetch = Fetch::metadata(self);
            while let Some(message) = fetch.next().await? {
                add(message.sequence, &message.payload);
            }
            return Ok(named);
        }
        // A replica may lag, and what it does not know yet would be purged.
        let (all, mut next) = (names::all_metadata(self.name()), 1);
        while let Some(message) = self.message_from_leader(Some(next), &all).await? {
            add(message.sequence, &message.payload);
            next = message.sequence + 1;
        }
        Ok(named)
    }
}
