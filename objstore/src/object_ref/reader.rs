//! Reading an object, chunk by chunk.

use bagpress_codec::Hasher;
use bytes::Bytes;

use super::fetch::Fetch;
use super::{Bucket, Error, Info, meta};

/// Reads one object in order. Makes no consumer; dropping it ends everything it began.
#[derive(Debug)]
pub struct Reader {
    bucket: Bucket,
    info: Info,
    state: State,
    hasher: Hasher,
    bytes: u64,
    chunks: u64,
}

#[derive(Debug)]
enum State {
    /// Nothing was asked for.
    New,
    Fetching(Fetch),
    /// All was read and checked.
    Done,
}

impl Reader {
    pub(super) fn new(bucket: Bucket, info: Info) -> Self {
        Self { bucket, info, state: State::New, hasher: Hasher::new(), bytes: 0, chunks: 0 }
    }

    /// The object.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The next bytes of the object, never empty; `None` after the last, once size and digest
    /// were found to be right. Whoever hands bytes out before that must be able to take them back.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if chunks are missing, [`Error::Digest`] if the bytes are others than were
    /// written, [`Error::Malformed`] if the metadata names another size; [`Error::Unanswered`],
    /// transient. After an error the reader is of no more use.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(chunk) = self.chunk().await? {
            self.chunks += 1;
            self.bytes += chunk.len() as u64;
            self.hasher.update(&chunk);
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if let State::New = self.state {
            if self.info.chunks == 1 {
                // Most objects: one request without an inbox of its own.
                let subject = meta::chunks_subject(&self.bucket.name, &self.info.token);
                if let Some(only) = self.bucket.message_direct(Some(1), &subject).await? {
                    self.state = State::Done;
                    self.check(&only.payload)?;
                    return Ok(Some(only.payload));
                }
            }
            if self.info.chunks > 0 {
                self.state = State::Fetching(Fetch::chunks(&self.bucket, &self.info));
            }
        }
        match &mut self.state {
            State::Done => return Ok(None),
            State::New => {}
            State::Fetching(fetch) => {
                if let Some(message) = fetch.next().await? {
                    return Ok(Some(message.payload));
                }
                if self.chunks < self.info.chunks {
                    return Err(self.bucket.lost(&self.info, self.chunks));
                }
            }
        }
        self.state = State::Done;
        self.check(&[])?;
        Ok(None)
    }

    /// Checks what was read, and `last` after it, against the metadata.
    fn check(&self, last: &[u8]) -> Result<(), Error> {
        let mut hasher = self.hasher.clone();
        hasher.update(last);
        let found = hasher.finish();
        let (bucket, object) = (self.bucket.name.clone(), self.info.name.clone());
        if found != self.info.digest {
            return Err(Error::Digest { bucket, object, found, wanted: self.info.digest });
        }
        let bytes = self.bytes + last.len() as u64;
        if bytes != self.info.bytes {
            let why = format!("it says {} bytes, and there are {bytes}", self.info.bytes);
            return Err(Error::Malformed { bucket, object, why });
        }
        Ok(())
    }
}
