//! Reading an object, chunk by chunk.

use bagpress_codec::Hasher;
use bytes::{Bytes, BytesMut};

use super::bucket::Bucket;
use super::error::Error;
use super::fetch::Fetch;
use super::meta::Info;
use super::names;

/// Reads one object in order. Makes no consumer; dropping it ends everything it began.
#[derive(Debug)]
pub struct Reader {
    bucket: Bucket,
    info: Info,
    progress: Progress,
    /// Whether size and digest must be those of the metadata.
    checks: bool,
    hasher: Hasher,
    bytes: u64,
    chunks: u64,
}

#[derive(Debug)]
enum Progress {
    /// Nothing was asked for.
    New,
    Fetching(Fetch),
    /// All was read and checked.
    Done,
}

impl Reader {
    fn new(bucket: Bucket, info: Info) -> Self {
        let progress = Progress::New;
        Self { bucket, info, progress, checks: true, hasher: Hasher::new(), bytes: 0, chunks: 0 }
    }

    /// The next bytes of the object, never empty; `None` after the last, once size and digest
    /// were found to be right. A caller that hands bytes out before that must be able to take them back.
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
            if self.checks {
                self.hasher.update(&chunk);
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if let Progress::New = self.progress {
            if self.info.chunks == 1 {
                // Most objects: one request without an inbox of its own.
                let subject = names::chunks_subject(self.bucket.name(), &self.info.token);
                if let Some(only) = self.bucket.message_direct(Some(1), &subject).await? {
                    self.progress = Progress::Done;
                    self.check(&only.payload)?;
                    return Ok(Some(only.payload));
                }
            }
            if self.info.chunks > 0 {
                self.progress = Progress::Fetching(Fetch::chunks(&self.bucket, &self.info));
            }
        }
        match &mut self.progress {
            Progress::Done => return Ok(None),
            Progress::New => {}
            Progress::Fetching(fetch) => {
                if let Some(message) = fetch.next().await? {
                    return Ok(Some(message.payload));
                }
                if self.chunks < self.info.chunks {
                    return Err(self.info.lost(self.chunks));
                }
            }
        }
        self.progress = Progress::Done;
        self.check(&[])?;
        Ok(None)
    }

    /// Checks what was read, and `last` after it, against the metadata.
    fn check(&self, last: &[u8]) -> Result<(), Error> {
        if !self.checks {
            return Ok(());
        }
        let mut hasher = self.hasher.clone();
        hasher.update(last);
        let found = hasher.finish();
        let (bucket, object) = (self.info.bucket.clone(), self.info.name.clone());
        if found != self.info.digest {
            return Err(Error::Digest { bucket, object, found, wanted: self.info.digest });
        }
        let bytes = self.bytes + last.len() as u64;
        if bytes != self.info.bytes {
            let why = format!("its metadata says {} bytes, but there are {bytes}", self.info.bytes);
            return Err(Error::Malformed { bucket, object, why });
        }
        Ok(())
    }
}

impl Bucket {
    /// Starts to read an object.
    #[must_use]
    pub fn reader(&self, info: &Info) -> Reader {
        Reader::new(self.clone(), info.clone())
    }

    /// Reads a whole object, its digest checked before anything is handed out.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond `max_bytes`; [`Error::NotFound`], [`Error::Deleted`],
    /// [`Error::Lost`], [`Error::Digest`] and [`Error::Malformed`] by what became of it;
    /// [`Error::Unanswered`], transient.
    pub async fn get(&self, name: &str, max_bytes: u64) -> Result<(Info, Vec<u8>), Error> {
        let info = self.info(name).await?.found(self.name(), name)?;
        let read = self.read_whole(&info, max_bytes).await;
        let Err(error @ (Error::Lost { .. } | Error::Digest { .. })) = read else {
            return Ok((info, read?));
        };
        // It may have been deleted or replaced meanwhile, or a replica lagged.
        let now = self.info_from_leader(name).await?.found(self.name(), name)?;
        if now.token == info.token && matches!(error, Error::Lost { .. }) {
            return Err(error);
        }
        let bytes = self.read_whole(&now, max_bytes).await?;
        Ok((now, bytes))
    }

    async fn read_whole(&self, info: &Info, max_bytes: u64) -> Result<Vec<u8>, Error> {
        if info.bytes > max_bytes {
            let (bucket, object) = (self.name().to_owned(), info.name.clone());
            return Err(Error::TooLarge { bucket, object, bytes: info.bytes, max: max_bytes });
        }
        let mut reader = self.reader(info);
        let mut whole = Vec::new();
        while let Some(bytes) = reader.next().await? {
            if whole.is_empty() {
                // Only now, and if there is so much: metadata that lies about its size must neither
                // cost memory nor end the process.
                whole.try_reserve_exact(usize::try_from(info.bytes).unwrap_or(0)).ok();
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    /// The bytes of an object of at most `max_bytes` as they are, whatever their digest: for who knows the digests of its
    /// parts.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`]; [`Error::Lost`] if chunks are missing; [`Error::Unanswered`], transient.
    pub async fn read_parts(&self, info: &Info, max_bytes: u64) -> Result<Bytes, Error> {
        let mut reader = Reader { checks: false, ..self.reader(info) };
        let mut whole = BytesMut::new();
        while let Some(bytes) = reader.next().await? {
            whole.extend_from_slice(&bytes);
            if whole.len() as u64 > max_bytes {
                let (bucket, object) = (self.name().to_owned(), info.name.clone());
                let bytes = whole.len() as u64;
                return Err(Error::TooLarge { bucket, object, bytes, max: max_bytes });
            }
        }
        Ok(whole.freeze())
    }

    /// Reads an object through, to know that it is whole. Keeps nothing of it.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::next`](Reader::next).
    pub async fn read_back(&self, info: &Info) -> Result<(), Error> {
        let mut reader = self.reader(info);
        while reader.next().await?.is_some() {}
        Ok(())
    }
}
