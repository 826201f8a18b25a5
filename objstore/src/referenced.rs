//! An input that is an object, or an output of a pack, which is a part of one: fetched as it was when its task was published.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_broker::descriptor::{FilePart, Part};
use bagpress_broker::limits;
use bagpress_broker::result::{Cause, Failed};
use bagpress_codec::Digest;
use bytes::Bytes;

use crate::error::input_failed;
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

    /// What a part of a tar is.
    ///
    /// # Errors
    ///
    /// [`Error::Digest`] if it has other bytes than it is to have.
    fn part_of(&self, tar: &Bytes, part: &FilePart) -> Result<Bytes, Error> {
        let found = slice(tar, part.at, part.bytes).unwrap_or_default();
        let digest = Digest::of(&found);
        let is_right = digest == part.digest && found.len() as u64 == part.bytes;
        if is_right { Ok(found) } else { Err(self.differs(digest, part.digest)) }
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
        let Part { at, digest } = part;
        let found = self.parts(wanted, &[FilePart { at, bytes, digest }]).await?;
        for found in found {
            hand_over(found?, sink).await;
        }
        Ok(())
    }

    /// Fetches the parts for which there is a sink: one tar for all of them. One that is damaged keeps no other from being handed over.
    ///
    /// # Errors
    ///
    /// Each sink gets what became of its part. If there is no such tar, that is a transient error of each.
    pub(crate) async fn fetch_pack(
        &self,
        wanted: &Wanted,
        parts: &[FilePart],
        sinks: Vec<Option<InputSink>>,
    ) {
        let each = parts.iter().zip(sinks).filter_map(|(part, sink)| Some((*part, sink?)));
        let (parts, sinks): (Vec<_>, Vec<_>) = each.unzip();
        let found = match self.parts(wanted, &parts).await {
            Ok(found) => {
                found.into_iter().map(|found| found.map_err(|e| input_failed(&e))).collect()
            }
            Err(error) => {
                // Whatever became of the tar is said of each file when that is run alone.
                let failed = Failed { cause: Cause::TransferError, ..input_failed(&error) };
                vec![Err(failed); sinks.len()]
            }
        };
        for (found, sink) in found.into_iter().zip(sinks) {
            match found {
                Ok(found) => hand_over(found, &sink).await,
                // Closed means that nobody waits for that input any more.
                Err(failed) => drop(sink.send(Err(failed)).await),
            }
        }
    }

    /// The bytes of these parts of a tar, or of which of them it has others.
    ///
    /// # Errors
    ///
    /// What became of the tar.
    async fn parts(
        &self,
        wanted: &Wanted,
        parts: &[FilePart],
    ) -> Result<Vec<Result<Bytes, Error>>, Error> {
        let parts_of = |tar: &Bytes| parts.iter().map(|part| wanted.part_of(tar, part)).collect();
        let is_right = |found: &Vec<Result<Bytes, Error>>| found.iter().all(Result::is_ok);
        let _alone = self.fetching.lock().await;
        let kept = wanted.key().and_then(|key| self.kept(&key));
        // What was read before may have been damaged on its way.
        if let Some(found) = kept.as_ref().map(parts_of).filter(is_right) {
            return Ok(found);
        }
        let info = wanted.info().await?;
        let tar = wanted.bucket.read_parts(&info, limits::TAR_BYTES_MAX).await?;
        let found = parts_of(&tar);
        if let Some(key) = wanted.key().filter(|_| is_right(&found)) {
            self.keep(key, tar);
        }
        Ok(found)
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

/// Hands all of an input over. Closed means that nobody waits for it any more.
async fn hand_over(input: Bytes, sink: &InputSink) {
    if sink.send(Ok(Fetched::Bytes(input))).await.is_ok() {
        sink.send(Ok(Fetched::End)).await.ok();
    }
}
