//! A bucket: made, looked into and removed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_nats::Client;
use async_nats::jetstream::stream::{Compression, Config, DiscardPolicy, RetentionPolicy};
use async_nats::jetstream::{Context, ErrorCode, account::Account, context::CreateStreamErrorKind};
use bagpress_broker::ids::BagId;
use bagpress_broker::{limits, subjects};
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{Error, Info, Lookup, Reader, Stored, Writer, meta};

/// Label of a bucket that says whose it is.
const BAG: &str = "bag.id";
/// Consumers that a bucket allows: other clients' readers make one for each object.
const CONSUMERS_MAX: i32 = 100_000;
/// Unit in which bytes of reads under way are counted.
pub(super) const READ_UNIT: usize = 1024;

/// An object bucket in the format of ADR-20: the stream `OBJ_<name>`. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    pub(super) client: Client,
    pub(super) context: Context,
    pub(super) name: String,
    /// How many chunks a writer may have under way; falls when the server says *too many*.
    pub(super) window: Arc<AtomicUsize>,
    /// Bytes that readers may have under way: the server cuts off who has 64 MiB waiting.
    pub(super) reads: Arc<Semaphore>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Bucket {
    /// Names a bucket, without asking whether it is there.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], permanent.
    pub fn new(client: Client, context: Context, name: &str) -> Result<Self, Error> {
        meta::check_token("a bucket", name)?;
        Ok(Self {
            client,
            context,
            name: name.to_owned(),
            window: Arc::new(AtomicUsize::new(limits::WINDOW_MAX)),
            reads: Arc::new(Semaphore::new(limits::WINDOWS_BYTES / READ_UNIT)),
        })
    }

    /// Makes a bucket of a bag with `max_bytes` reserved; one that is there already must be alike.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if the server cannot reserve that much, with both numbers; [`Error::Unfit`]
    /// if the bucket is there with other settings or of another bag; [`Error::Unanswered`].
    pub async fn create(
        client: Client,
        context: Context,
        name: &str,
        description: &str,
        max_bytes: u64,
        bag: &BagId,
    ) -> Result<Self, Error> {
        let bucket = Self::new(client, context, name)?;
        let replicas = bucket.replicas_of_the_streams().await;
        let wanted =
            Config { num_replicas: replicas, ..bucket.config(description, max_bytes, bag) };
        let what = "make a bucket";
        let found = match bucket.context.create_stream(wanted.clone()).await {
            Ok(stream) => stream.cached_info().config.clone(),
            Err(error) => match error.kind() {
                CreateStreamErrorKind::JetStream(error) => match error.error_code() {
                    ErrorCode::STREAM_NAME_EXIST => bucket.stored_config().await?,
                    ErrorCode::STORAGE_RESOURCES_EXCEEDED => {
                        return Err(bucket.no_room(max_bytes, &error).await);
                    }
                    _ => return Err(Error::answered(what, name, &error)),
                },
                _ => return Err(Error::unanswered(what, &error)),
            },
        };
        bucket.check(&wanted, &found)?;
        Ok(bucket)
    }

    fn config(&self, description: &str, max_bytes: u64, bag: &BagId) -> Config {
        Config {
            name: meta::stream(&self.name),
            description: Some(description.to_owned()),
            subjects: vec![meta::all_chunks(&self.name), meta::all_metadata(&self.name)],
            retention: RetentionPolicy::Limits,
            num_replicas: 1,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            allow_direct: true,
            allow_message_ttl: true,
            max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: CONSUMERS_MAX,
            compression: Some(Compression::None),
            metadata: [(BAG.to_owned(), bag.to_string())].into(),
            ..Config::default()
        }
    }

    /// As many copies as the streams have: an operator chooses once.
    async fn replicas_of_the_streams(&self) -> usize {
        match self.context.get_stream(subjects::RESULTS).await {
            Ok(stream) => stream.cached_info().config.num_replicas.max(1),
            Err(_) => 1,
        }
    }

    async fn stored_config(&self) -> Result<Config, Error> {
        let stream = self.context.get_stream(meta::stream(&self.name)).await;
        let stream = stream.map_err(|error| Error::unanswered("read a bucket's settings", &error));
        Ok(stream?.cached_info().config.clone())
    }

    /// An old server leaves out settings that it does not know, without a word.
    fn check(&self, wanted: &Config, found: &Config) -> Result<(), Error> {
        let of = |config: &Config| config.metadata.get(BAG).cloned().unwrap_or_default();
        let fields = [
            ("bag.id", of(found), of(wanted)),
            ("subjects", found.subjects.join(" "), wanted.subjects.join(" ")),
            ("retention", text(&found.retention), text(&wanted.retention)),
            ("discard", text(&found.discard), text(&wanted.discard)),
            ("max_bytes", text(&found.max_bytes), text(&wanted.max_bytes)),
            ("max_age", text(&found.max_age), text(&wanted.max_age)),
            ("allow_rollup_hdrs", text(&found.allow_rollup), text(&true)),
            ("allow_direct", text(&found.allow_direct), text(&true)),
            ("allow_msg_ttl", text(&found.allow_message_ttl), text(&true)),
            ("max_consumers", text(&found.max_consumers), text(&wanted.max_consumers)),
        ];
        for (field, found, wanted) in fields {
            if found != wanted {
                return Err(Error::Unfit { bucket: self.name.clone(), field, found, wanted });
            }
        }
        Ok(())
    }

    async fn no_room(&self, max_bytes: u64, error: &async_nats::jetstream::Error) -> Error {
        let account: Result<Account, _> = self.context.query_account().await;
        let beside = match account {
            Ok(account) if account.limits.max_storage.is_some_and(|max| max > 0) => format!(
                "{} of {} are reserved",
                account.reserved_storage,
                account.limits.max_storage.unwrap_or_default()
            ),
            Ok(account) => format!("{} are reserved already", account.reserved_storage),
            Err(_) => error.to_string(),
        };
        let why = format!("it needs {max_bytes} bytes and {beside}: {error}");
        Error::Full { bucket: self.name.clone(), why }
    }

    /// Lets a bucket that is there take `max_bytes`, if it takes less: an input may have grown since it was made.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], also if the server cannot reserve that much.
    pub async fn grow_to(&self, max_bytes: u64) -> Result<(), Error> {
        let what = "let a bucket take more";
        match self.usage().await {
            Ok(_) => {}
            Err(Error::NoBucket { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        let found = self.stored_config().await?;
        let max_bytes = i64::try_from(max_bytes).unwrap_or(i64::MAX);
        if found.max_bytes >= max_bytes {
            return Ok(());
        }
        let grown = self.context.update_stream(Config { max_bytes, ..found }).await;
        grown.map(drop).map_err(|error| Error::unanswered(what, &error))
    }

    /// The bucket's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes the bucket and all that is in it; one that is not there is fine.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::Refused`].
    pub async fn delete(&self) -> Result<(), Error> {
        #[derive(serde::Deserialize)]
        struct Removed {}
        let what = "remove a bucket";
        let removed: Result<Removed, _> =
            self.request(what, "STREAM.DELETE", &serde_json::json!({})).await?;
        match removed {
            Ok(Removed {}) => Ok(()),
            Err(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(()),
            Err(error) => Err(Error::answered(what, &self.name, &error)),
        }
    }

    /// Starts to write object `name`, its chunks under `token`: `<index>-<execution>`.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], permanent.
    pub fn writer(&self, name: &str, token: &str) -> Result<Writer, Error> {
        meta::check_name(name)?;
        meta::check_token("a chunk token", token)?;
        Ok(Writer::new(self.clone(), name, token))
    }

    /// Writes a whole object, or adopts the one that is there: [`Writer::commit_or_adopt`].
    ///
    /// # Errors
    ///
    /// As [`Writer::write`] and [`Writer::commit_or_adopt`].
    pub async fn put(&self, name: &str, token: &str, bytes: Bytes) -> Result<Stored, Error> {
        let mut writer = self.writer(name, token)?;
        writer.write(bytes).await?;
        writer.commit_or_adopt().await
    }

    /// What the bucket knows of a name, by direct get: with replicas it may lag.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::NoBucket`], [`Error::BadName`].
    pub async fn info(&self, name: &str) -> Result<Lookup, Error> {
        meta::check_name(name)?;
        let subject = meta::metadata_subject(&self.name, name);
        let message = self.message_direct(None, &subject).await?;
        Ok(message.map_or(Lookup::Missing, |message| self.lookup(message)))
    }

    /// What the bucket knows of a name, from the stream's leader: never older than any answer
    /// that was given before.
    ///
    /// # Errors
    ///
    /// As [`Self::info`].
    pub async fn info_from_leader(&self, name: &str) -> Result<Lookup, Error> {
        meta::check_name(name)?;
        let subject = meta::metadata_subject(&self.name, name);
        let message = self.message_from_leader(None, &subject).await?;
        Ok(message.map_or(Lookup::Missing, |message| self.lookup(message)))
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads best at the end of a chain")]
    fn lookup(&self, message: super::api::Message) -> Lookup {
        Lookup::read(&self.name, message.sequence, &message.payload)
    }

    /// The object of a name, if its metadata and all of its chunks are there. Reads no chunk.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if chunks are missing, or the errors of [`Lookup::found`] and
    /// [`Self::info`].
    pub async fn check_present(&self, name: &str) -> Result<Info, Error> {
        let info = self.info(name).await?.found(&self.name, name)?;
        self.with_chunks(info).await
    }

    /// [`Self::check_present`] with metadata from the stream's leader.
    ///
    /// # Errors
    ///
    /// Those of [`Self::check_present`].
    pub async fn check_present_from_leader(&self, name: &str) -> Result<Info, Error> {
        let info = self.info_from_leader(name).await?.found(&self.name, name)?;
        self.with_chunks(info).await
    }

    async fn with_chunks(&self, info: Info) -> Result<Info, Error> {
        let found = self.count_chunks(&info.token).await?;
        if found == info.chunks { Ok(info) } else { Err(self.lost(&info, found)) }
    }

    /// Bytes that the bucket holds, and that it may hold.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::NoBucket`].
    pub async fn usage(&self) -> Result<(u64, u64), Error> {
        let info = self.stream_info("none", 0).await?;
        Ok((info.state.bytes, u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX)))
    }

    pub(super) fn lost(&self, info: &Info, found: u64) -> Error {
        let (bucket, object) = (self.name.clone(), info.name.clone());
        Error::Lost { bucket, object, found, wanted: info.chunks }
    }

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
        let info = self.info(name).await?.found(&self.name, name)?;
        let read = self.read_whole(&info, max_bytes).await;
        let Err(error @ (Error::Lost { .. } | Error::Digest { .. })) = read else {
            return Ok((info, read?));
        };
        // It may have been deleted or replaced meanwhile, or a replica lagged.
        let now = self.info_from_leader(name).await?.found(&self.name, name)?;
        if now.token == info.token && matches!(error, Error::Lost { .. }) {
            return Err(error);
        }
        let bytes = self.read_whole(&now, max_bytes).await?;
        Ok((now, bytes))
    }

    async fn read_whole(&self, info: &Info, max_bytes: u64) -> Result<Vec<u8>, Error> {
        if info.bytes > max_bytes {
            let (bucket, object) = (self.name.clone(), info.name.clone());
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

    /// How many chunks there are under a token, by the stream's leader.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::NoBucket`], [`Error::BadName`].
    pub async fn count_chunks(&self, token: &str) -> Result<u64, Error> {
        meta::check_token("a chunk token", token)?;
        let subject = meta::chunks_subject(&self.name, token);
        let info = self.stream_info(&subject, 0).await?;
        Ok(info.state.subjects.get(&subject).copied().unwrap_or(0))
    }

    /// Removes all chunks under a token.
    ///
    /// # Errors
    ///
    /// As [`Self::count_chunks`].
    pub async fn purge_chunks(&self, token: &str) -> Result<(), Error> {
        meta::check_token("a chunk token", token)?;
        self.purge(&meta::chunks_subject(&self.name, token)).await
    }

    pub(super) fn window(&self) -> usize {
        self.window.load(Ordering::Relaxed)
    }

    /// Sends one chunk at a time from now on.
    pub(super) fn slow_down(&self) {
        self.window.store(1, Ordering::Relaxed);
    }

    /// Allows one more, after an object that went well.
    pub(super) fn speed_up(&self) {
        let window = self.window();
        if window < limits::WINDOW_MAX {
            // Whoever changed it meanwhile wins, slowing down above all.
            let order = Ordering::Relaxed;
            self.window.compare_exchange(window, window + 1, order, order).ok();
        }
    }
}

fn text(value: &impl fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}
