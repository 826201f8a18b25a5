//! An input that is an object, or an output of a pack, which is a part of one: fetched as it was when its task was published.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_broker::descriptor::Part;
use bagpress_broker::limits;
use bagpress_codec::Digest;
use bytes::Bytes;

use crate::object_ref::{Bucket, Error, Info};
use crate::source::Fetched;
use crate::staging::InputSink;
use crate::tarred::slice;

/// Tars that a worker keeps: the parts of one are the inputs of tasks that follow each other. At most 3 MiB.
const TARS_KEPT: usize = 4;

/// An object that is an input, or has it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    bucket: Bucket,
    object: String,
    /// Whatever has another one is not the input.
    digest: Option<Digest>,
}

impl Wanted {
    pub(crate) fn new(bucket: Bucket, object: &str, digest: Option<Digest>) -> Self {
        Self { bucket, object: object.to_owned(), digest }
    }

    /// Fetches all of it.
    ///
    /// # Errors
    ///
    /// What became of it.
    pub(crate) async fn fetch(&self, sink: &InputSink) -> Result<(), Error> {
        let mut reader = self.bucket.reader(&self.info().await?);
        while let Some(chunk) = reader.next().await? {
            if sink.send(Ok(Fetched::Bytes(chunk))).await.is_err() {
                return Ok(());
            }
        }
        // Closed means that nobody waits for the input any more.
        sink.send(Ok(Fetched::End)).await.ok();
        Ok(())
    }

    async fn info(&self) -> Result<Info, Error> {
        let info = self.bucket.check_present(&self.object).await?;
        if self.digest.is_some_and(|expected| expected != info.digest) {
            let (bucket, object) = (info.bucket.clone(), info.name.clone());
            return Err(Error::Exists { bucket, object, digest: info.digest });
        }
        Ok(info)
    }

    fn key(&self) -> Option<Key> {
        Some((self.bucket.name().to_owned(), self.object.clone(), self.digest?))
    }

    fn differs(&self, found: Digest, wanted: Digest) -> Error {
        let (bucket, object) = (self.bucket.name().to_owned(), self.object.clone());
        Error::Digest { bucket, object, found, wanted }
    }
}

/// Which bytes a tar has: bucket, name and digest.
type Key = (String, String, Digest);

/// The tars of which parts were inputs last. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tars {
    kept: Arc<Mutex<VecDeque<(Key, Bytes)>>>,
    /// One is fetched at a time, so that slots that need the same one fetch it once.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

impl Tars {
    /// Fetches a part of so many bytes. A bit that is flipped elsewhere in its tar does no harm to it.
    ///
    /// # Errors
    ///
    /// What became of the tar; [`Error::Digest`] if the part has other bytes than it is to have.
    pub(crate) async fn fetch(
        &self,
        wanted: &Wanted,
        (part, bytes): (Part, u64),
        sink: &InputSink,
    ) -> Result<(), Error> {
        let part_of = |tar: &Bytes| {
            let found = slice(tar, part.at, bytes).unwrap_or_default();
            let digest = Digest::of(&found);
            let is_right = digest == part.digest && found.len() as u64 == bytes;
            if is_right { Ok(found) } else { Err(wanted.differs(digest, part.digest)) }
        };
        let alone = self.fetching.lock().await;
        let kept = wanted.key().and_then(|key| self.kept(&key));
        // What was read before may have been damaged on its way.
        let found = if let Some(Ok(found)) = kept.as_ref().map(part_of) {
            found
        } else {
            let info = wanted.info().await?;
            let tar = wanted.bucket.read_parts(&info, limits::TAR_BYTES_MAX).await?;
            let found = part_of(&tar)?;
            if let Some(key) = wanted.key() {
                self.keep(key, tar);
            }
            found
        };
        drop(alone);
        // Closed means that nobody waits for the input any more.
        if sink.send(Ok(Fetched::Bytes(found))).await.is_ok() {
            sink.send(Ok(Fetched::End)).await.ok();
        }
        Ok(())
    }

    fn kept(&self, key: &Key) -> Option<Bytes> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(of, _)| of == key).map(|(_, tar)| tar.clone())
    }

    fn keep(&self, key: Key, tar: Bytes) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(of, _)| *of != key);
        kept.push_back((key, tar));
        if kept.len() > TARS_KEPT {
            kept.pop_front();
        }
    }
}
