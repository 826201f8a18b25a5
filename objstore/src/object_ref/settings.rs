//! The settings of a bucket: it is made with them, checked, enlarged and removed.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::account::Account;
use async_nats::jetstream::context::{CreateStreamErrorKind, DeleteStreamErrorKind};
use async_nats::jetstream::stream::{Compression, Config, DiscardPolicy, RetentionPolicy};
use async_nats::jetstream::{Context, ErrorCode};
use bagpress_broker::ids::BagId;
use bagpress_broker::subjects;
use futures::StreamExt;

use super::bucket::Bucket;
use super::error::Error;
use super::names;

/// Label of a bucket that says whose it is.
const BAG: &str = "bag.id";
/// Label of a bucket that `put` made.
const MADE_BY: &str = "bagpress.made-by";
/// Consumers that a bucket allows: other clients' readers make one for each object.
const CONSUMERS_MAX: i32 = 100_000;

/// How long the server knows a chunk that is sent again, unless everything expires sooner.
const REPEATED_WITHIN: Duration = Duration::from_mins(2);

/// What a bucket is to be.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// For people.
    pub description: &'a str,
    /// Bytes to reserve.
    pub max_bytes: u64,
    /// The bag whose bucket it is; none: anybody's, who puts objects there.
    pub bag: Option<&'a BagId>,
    /// How long anything stays in it.
    pub ttl: Option<Duration>,
}

/// What a bucket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The bag whose bucket it is, if it is one's.
    pub bag: Option<String>,
    /// How long anything stays in it, if that is bounded.
    pub ttl: Option<Duration>,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Bytes that it may hold; none: as many as the server takes.
    pub max_bytes: Option<u64>,
}

impl Bucket {
    /// Makes a bucket of a bag with `max_bytes` reserved; one that is there already must be alike, or larger.
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
        let settings = Settings { description, max_bytes, bag: Some(bag), ttl: None };
        Self::create_with(client, context, name, &settings).await
    }

    /// The same with other settings.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub async fn create_with(
        client: Client,
        context: Context,
        name: &str,
        settings: &Settings<'_>,
    ) -> Result<Self, Error> {
        let (bucket, max_bytes) = (Self::new(client, context, name)?, settings.max_bytes);
        let replicas = bucket.replicas_of_the_streams().await;
        let wanted = Config { num_replicas: replicas, ..bucket.config(settings) };
        let what = "make a bucket";
        let found = match bucket.context().create_stream(wanted.clone()).await {
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

    fn config(&self, settings: &Settings<'_>) -> Config {
        let Settings { description, max_bytes, bag, ttl } = *settings;
        let owner = bag.map(|bag| (BAG.to_owned(), bag.to_string()));
        let owner = owner.unwrap_or_else(|| (MADE_BY.to_owned(), "object put".to_owned()));
        let repeated_within = ttl.map_or(REPEATED_WITHIN, |ttl| ttl.min(REPEATED_WITHIN));
        Config {
            name: names::stream(self.name()),
            description: Some(description.to_owned()),
            subjects: vec![names::all_chunks(self.name()), names::all_metadata(self.name())],
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
            max_age: ttl.unwrap_or_default(),
            duplicate_window: repeated_within,
            metadata: [owner].into(),
            ..Config::default()
        }
    }

    /// As many copies as the streams have: an operator chooses once.
    async fn replicas_of_the_streams(&self) -> usize {
        match self.context().get_stream(subjects::RESULTS).await {
            Ok(stream) => stream.cached_info().config.num_replicas.max(1),
            Err(_) => 1,
        }
    }

    async fn stored_config(&self) -> Result<Config, Error> {
        let stream = self.context().get_stream(names::stream(self.name())).await;
        let stream = stream.map_err(|error| Error::unanswered("read a bucket's settings", &error));
        Ok(stream?.cached_info().config.clone())
    }

    /// An old server leaves out settings that it does not know, without a word.
    fn check(&self, wanted: &Config, found: &Config) -> Result<(), Error> {
        let of = |config: &Config| config.metadata.get(BAG).cloned().unwrap_or_default();
        // It was enlarged since, or was larger already when it was made again.
        let larger = found.max_bytes > wanted.max_bytes && wanted.max_bytes > 0;
        let bytes = if larger { found.max_bytes } else { wanted.max_bytes };
        let fields = [
            ("bag.id", of(found), of(wanted)),
            ("subjects", found.subjects.join(" "), wanted.subjects.join(" ")),
            ("retention", text(&found.retention), text(&wanted.retention)),
            ("discard", text(&found.discard), text(&wanted.discard)),
            ("max_bytes", text(&found.max_bytes), text(&bytes)),
            ("max_age", text(&found.max_age), text(&wanted.max_age)),
            ("allow_rollup_hdrs", text(&found.allow_rollup), text(&true)),
            ("allow_direct", text(&found.allow_direct), text(&true)),
            ("allow_msg_ttl", text(&found.allow_message_ttl), text(&true)),
            ("max_consumers", text(&found.max_consumers), text(&wanted.max_consumers)),
        ];
        for (field, found, wanted) in fields {
            if found != wanted {
                return Err(Error::Unfit { bucket: self.name().to_owned(), field, found, wanted });
            }
        }
        Ok(())
    }

    async fn no_room(&self, max_bytes: u64, error: &async_nats::jetstream::Error) -> Error {
        let account: Result<Account, _> = self.context().query_account().await;
        let reserved = match account {
            Ok(account) if account.limits.max_storage.is_some_and(|max| max > 0) => format!(
                "{} of {} are reserved",
                account.reserved_storage,
                account.limits.max_storage.unwrap_or_default()
            ),
            Ok(account) => format!("{} are reserved already", account.reserved_storage),
            Err(_) => error.to_string(),
        };
        let why = format!("it needs {max_bytes} bytes and {reserved}: {error}");
        Error::Full { bucket: self.name().to_owned(), why }
    }

    /// Lets a bucket that is there take `max_bytes`, if it takes less: an input may have grown since it was made.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], also if the server cannot reserve that much.
    pub async fn grow_to(&self, max_bytes: u64) -> Result<(), Error> {
        let what = "enlarge a bucket";
        match self.usage().await {
            Ok(_) => {}
            Err(Error::NoBucket { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        let found = self.stored_config().await?;
        let max_bytes = i64::try_from(max_bytes).unwrap_or(i64::MAX);
        if found.max_bytes <= 0 || found.max_bytes >= max_bytes {
            return Ok(());
        }
        let grown = self.context().update_stream(Config { max_bytes, ..found }).await;
        grown.map(drop).map_err(|error| Error::unanswered(what, &error))
    }

    /// What the bucket is, and what is in it.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::NoBucket`].
    pub async fn facts(&self) -> Result<Facts, Error> {
        let info = self.state("").await?.info;
        let Config { max_age, max_bytes, metadata, .. } = info.config;
        Ok(Facts {
            bag: metadata.get(BAG).cloned(),
            ttl: (!max_age.is_zero()).then_some(max_age),
            bytes: info.state.bytes,
            max_bytes: u64::try_from(max_bytes).ok().filter(|most| *most > 0),
        })
    }

    /// The names of all buckets of an account, sorted.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient.
    pub async fn names(context: &Context) -> Result<Vec<String>, Error> {
        let (mut names, mut streams) = (Vec::new(), context.streams());
        while let Some(stream) = streams.next().await {
            let stream = stream.map_err(|error| Error::unanswered("list the buckets", &error))?;
            names.extend(stream.config.name.strip_prefix("OBJ_").map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes the bucket and all that is in it; one that is not there is fine.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::Refused`].
    pub async fn delete(&self) -> Result<(), Error> {
        let what = "remove a bucket";
        let removed = self.context().delete_stream(names::stream(self.name())).await;
        match removed.map_err(|error| (error.kind(), error)) {
            Ok(_) => Ok(()),
            Err((DeleteStreamErrorKind::JetStream(answer), _)) => match answer.error_code() {
                ErrorCode::STREAM_NOT_FOUND => Ok(()),
                _ => Err(Error::answered(what, self.name(), &answer)),
            },
            Err((_, error)) => Err(Error::unanswered(what, &error)),
        }
    }
}

fn text(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}
