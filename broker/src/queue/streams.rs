//! The streams and the durable: made once, checked ever after.

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{ErrorCode, context, stream};
use futures::TryStreamExt;

use crate::ids::Pool;
use crate::retry::Retry;
use crate::{Broker, Error, Loss, limits, subjects};

const SCHEMA: (&str, &str) = ("bag.schema", "1");

/// How much disk the streams may take.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Bytes that the server may store in all; the streams get parts of it where it is small.
    pub max_file: Option<u64>,
    /// Copies of each stream: 1, or 3 in a cluster.
    pub replicas: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { max_file: None, replicas: 1 }
    }
}

impl Sizes {
    /// The largest of `wanted` and what fits: the server reserves the whole of it, and buckets need
    /// room too.
    fn bytes(self, wanted: i64, share: u64) -> i64 {
        self.max_file.map_or(wanted, |max| wanted.min(i64::try_from(max / share).unwrap_or(wanted)))
    }
}

fn tasks(sizes: Sizes) -> Config {
    Config {
        name: subjects::TASKS.to_owned(),
        description: Some("Tasks waiting or running".to_owned()),
        subjects: vec![subjects::TASK_ALL.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: 1,
        max_messages: i64::from(limits::BAG_TASKS_MAX),
        max_bytes: sizes.bytes(limits::TASKS_BYTES, 8),
        duplicate_window: Duration::from_mins(10),
        max_consumers: 256,
        ..common(sizes)
    }
}

fn results(sizes: Sizes) -> Config {
    Config {
        name: subjects::RESULTS.to_owned(),
        description: Some("One committed outcome per task and round".to_owned()),
        subjects: vec![subjects::RESULT_ALL.to_owned()],
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: 1,
        max_bytes: sizes.bytes(limits::RESULTS_BYTES, 8),
        max_consumers: 1_000,
        ..common(sizes)
    }
}

fn attempts(sizes: Sizes) -> Config {
    Config {
        name: subjects::ATTEMPTS.to_owned(),
        description: Some("Why a delivery was given back, and what came too late".to_owned()),
        subjects: vec![subjects::ATTEMPT_ALL.to_owned(), subjects::DUPLICATE_ALL.to_owned()],
        discard: DiscardPolicy::Old,
        max_messages_per_subject: limits::ATTEMPTS_KEPT,
        max_bytes: sizes.bytes(limits::ATTEMPTS_BYTES, 32),
        max_age: Duration::from_hours(720),
        max_consumers: 256,
        ..common(sizes)
    }
}

/// The stream of the KV bucket `bags`, with the settings that NATS' clients give to such buckets, and
/// messages that may expire by themselves: [`remove_bag`](Broker::remove_bag) needs them.
fn bags(sizes: Sizes) -> Config {
    Config {
        name: subjects::lines(),
        description: Some("One line a bag: specification, state, counts".to_owned()),
        subjects: vec![format!("$KV.{}.>", subjects::BAGS)],
        discard: DiscardPolicy::New,
        max_messages_per_subject: 1,
        max_bytes: sizes.bytes(256 << 20, 64),
        allow_rollup: true,
        deny_delete: true,
        allow_message_ttl: true,
        ..common(sizes)
    }
}

fn common(sizes: Sizes) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: sizes.replicas,
        max_message_size: 65_536,
        allow_direct: true,
        metadata: [(SCHEMA.0.to_owned(), SCHEMA.1.to_owned())].into(),
        ..Config::default()
    }
}

fn durable(pool: &Pool) -> consumer::pull::Config {
    consumer::pull::Config {
        durable_name: Some(subjects::durable(pool)),
        description: Some("Queue group of compression workers".to_owned()),
        filter_subject: subjects::tasks_of_pool(pool),
        ack_policy: AckPolicy::Explicit,
        deliver_policy: DeliverPolicy::All,
        replay_policy: ReplayPolicy::Instant,
        ack_wait: limits::LEASE,
        max_deliver: -1,
        // A delayed nak stays pending and counts: a small number would let one bag stop all others.
        max_ack_pending: i64::from(limits::BAG_TASKS_MAX),
        max_waiting: 4_096,
        metadata: [(SCHEMA.0.to_owned(), SCHEMA.1.to_owned())].into(),
        ..consumer::pull::Config::default()
    }
}

impl Broker {
    /// Makes what is missing of the streams, the durable of `pool` and the KV bucket, and checks the rest. Safe to call again.
    ///
    /// # Errors
    ///
    /// [`Error::NoJetStream`], [`Error::Unfit`] when something of that name has other settings,
    /// [`Error::Full`] when the server has no room for the streams.
    pub async fn ensure(&self, pool: &Pool, sizes: Sizes) -> Result<(), Error> {
        // A cluster that has just elected its leader, or is busy, may not answer the first time.
        let slow = |error: &Error| matches!(error, Error::Lost { loss: Loss::Timeout, .. });
        let once = || Box::pin(self.ensure_once(pool, sizes));
        Retry::within(limits::STREAMS_MADE_WITHIN).run(once, slow).await
    }

    async fn ensure_once(&self, pool: &Pool, sizes: Sizes) -> Result<(), Error> {
        self.check_jetstream().await?;
        let make = |config: Config| async move {
            let name = config.name.clone();
            match self.jetstream().create_stream(config.clone()).await {
                Ok(made) => check(&made.cached_info().config, &config),
                // Somebody made it with other settings: say which one rather than "in use".
                Err(error) => match self.jetstream().get_stream(&name).await {
                    Ok(found) => check(&found.cached_info().config, &config),
                    Err(_) => Err(self.with_numbers(refused(&name, error), config.max_bytes).await),
                },
            }
        };
        futures::try_join!(
            make(tasks(sizes)),
            make(results(sizes)),
            make(attempts(sizes)),
            make(bags(sizes))
        )?;
        self.ensure_durable(pool).await
    }

    /// Checks the promise that the broker's disk cannot fill: what all streams and buckets may hold
    /// together is at most `max_file` bytes, which [`max_file`](crate::server::max_file) says of the
    /// folder `store` on this machine.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] with both numbers, or [`Error::Lost`].
    pub async fn check_room(&self, max_file: u64, store: &Path) -> Result<(), Error> {
        let mut streams = self.jetstream().streams();
        let mut reserved = 0_u64;
        while let Some(stream) =
            streams.try_next().await.map_err(|e| Error::during("list the streams").lost(e))?
        {
            let config = stream.config;
            if config.storage == StorageType::File {
                reserved = reserved.saturating_add(u64::try_from(config.max_bytes).unwrap_or(0));
            }
        }
        if reserved <= max_file {
            return Ok(());
        }
        Err(Error::Full {
            what: format!("the broker's disk at {}", crate::quote::name(store)),
            why: format!(
                "streams and buckets may hold {reserved} bytes, and there is space for {max_file} \
                 (what they hold plus nine tenths of the free space)"
            ),
        })
    }

    /// What the stream `name` holds, and may hold, if it is as good as full.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] or [`Error::Lost`].
    pub async fn nearly_full(&self, name: &str) -> Result<Option<String>, Error> {
        let stream = self.stream(name).await?;
        let stream::Info { config, state, .. } = stream.cached_info();
        let near =
            |held: u64, most: i64| u64::try_from(most).is_ok_and(|m| m > 0 && held >= m / 100 * 95);
        let full = near(state.bytes, config.max_bytes) || near(state.messages, config.max_messages);
        Ok(full.then(|| {
            format!(
                "stream {name} is full: {} of {} bytes, {} of {} messages",
                state.bytes, config.max_bytes, state.messages, config.max_messages
            )
        }))
    }

    async fn with_numbers(&self, error: Error, wanted: i64) -> Error {
        let Error::Full { what, why } = error else { return error };
        let Ok(account) = self.jetstream().query_account().await else {
            return Error::Full { what, why };
        };
        let reserved = account.reserved_storage;
        let why =
            format!("it needs {wanted} bytes in addition to {reserved} reserved bytes: {why}");
        Error::Full { what, why }
    }

    async fn ensure_durable(&self, pool: &Pool) -> Result<(), Error> {
        let wanted = durable(pool);
        let name = subjects::durable(pool);
        let context = self.jetstream();
        match context.create_consumer_on_stream(wanted, subjects::TASKS).await {
            Ok(made) => check_durable(&name, pool, &made.cached_info().config),
            Err(error) => Err(refused(&format!("durable {name}"), error)),
        }
    }

    /// Checks that everything that [`ensure`](Self::ensure) makes is there, and fits.
    ///
    /// # Errors
    ///
    /// [`Error::NoJetStream`], [`Error::Missing`], [`Error::Unfit`], or [`Error::Lost`].
    pub async fn require(&self, pool: &Pool) -> Result<(), Error> {
        self.check_jetstream().await?;
        let sizes = Sizes::default();
        let look = async |config: Config| {
            check(&self.stream(&config.name).await?.cached_info().config, &config)
        };
        futures::try_join!(look(tasks(sizes)), look(results(sizes)), look(attempts(sizes)))?;
        let durable: consumer::Consumer<consumer::pull::Config> = self
            .jetstream()
            .get_consumer_from_stream(subjects::durable(pool), subjects::TASKS)
            .await
            .map_err(|error| match error.kind() {
                stream::ConsumerErrorKind::JetStream(_) => {
                    Error::Missing { what: format!("durable {}", subjects::durable(pool)) }
                }
                // A server that is about to choose a leader does not answer.
                _ => Error::during("look for the durable").lost(error),
            })?;
        check_durable(&subjects::durable(pool), pool, &durable.cached_info().config)
    }

    async fn check_jetstream(&self) -> Result<(), Error> {
        let described = self.jetstream().query_account().await;
        described.map(|_| ()).map_err(|error| no_account(self.url(), error))
    }

    /// The stream `name`, with its state.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] or [`Error::Lost`].
    pub async fn stream(&self, name: &str) -> Result<stream::Stream, Error> {
        self.jetstream().get_stream(name).await.map_err(|error| match error.kind() {
            context::GetStreamErrorKind::JetStream(inner)
                if inner.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Error::Missing { what: format!("stream {name}") }
            }
            _ => Error::during("look for a stream").lost(error),
        })
    }
}

/// What it means that the account was not described. Without JetStream nobody answers at all; in an account without
/// it, an error does. A cluster that has no leader now answers with another error, or not in time: that passes.
fn no_account(url: &str, error: context::AccountError) -> Error {
    let is_off = match error.kind() {
        context::AccountErrorKind::JetStreamUnavailable => true,
        context::AccountErrorKind::JetStream(answer) => matches!(
            answer.error_code(),
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
        ),
        _ => false,
    };
    if is_off {
        return Error::NoJetStream { url: url.to_owned() };
    }
    Error::during("ask for JetStream").lost(error)
}

fn refused(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    if Loss::of(&error) == Loss::NoSpace {
        return Error::Full { what: what.to_owned(), why: error.to_string() };
    }
    let (loss, cause) = (Loss::of(&error), format!("{what}: {error}").into());
    Error::Lost { what: "make a stream", loss, cause }
}

macro_rules! same {
    ($what:expr, $found:expr, $wanted:expr, $($field:ident),+) => {
        $(if $found.$field != $wanted.$field {
            return Err(Error::Unfit {
                what: $what,
                field: stringify!($field),
                found: format!("{:?}", $found.$field),
                wanted: format!("{:?}", $wanted.$field),
            });
        })+
    };
}

/// Sizes, ages and copies are the operator's; everything that correctness needs is ours.
fn check(found: &Config, wanted: &Config) -> Result<(), Error> {
    same!(
        format!("stream {}", wanted.name),
        found,
        wanted,
        subjects,
        retention,
        discard,
        discard_new_per_subject,
        max_messages_per_subject,
        max_message_size,
        allow_direct,
        storage
    );
    if wanted.name == subjects::RESULTS {
        same!(format!("stream {}", wanted.name), found, wanted, max_age);
    }
    if wanted.allow_message_ttl {
        let name = format!("stream {}", wanted.name);
        same!(name, found, wanted, allow_message_ttl, allow_rollup);
    }
    Ok(())
}

fn check_durable(name: &str, pool: &Pool, found: &consumer::Config) -> Result<(), Error> {
    let wanted = durable(pool);
    same!(
        format!("durable {name}"),
        found,
        wanted,
        filter_subject,
        ack_policy,
        ack_wait,
        max_ack_pending,
        max_waiting
    );
    // The server says -1 where nothing bounds it.
    if found.max_deliver > 0 {
        return Err(Error::Unfit {
            what: format!("durable {name}"),
            field: "max_deliver",
            found: found.max_deliver.to_string(),
            wanted: "-1".to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_a_leader_is_not_one_without_jetstream() {
        use context::AccountErrorKind::{JetStreamUnavailable, Other, TimedOut};
        let answer = |code: u64, status: u32, description: &str| {
            let json = serde_json::json!({
                "code": status, "err_code": code, "description": description
            });
            context::AccountErrorKind::JetStream(serde_json::from_value(json).unwrap())
        };
        for (kind, is_off) in [
            (answer(10_076, 503, "JetStream not enabled"), true),
            (answer(10_039, 503, "JetStream not enabled for account"), true),
            (JetStreamUnavailable, true),
            (answer(10_008, 503, "JetStream system temporarily unavailable"), false),
            (answer(10_009, 500, "JetStream cluster can not handle request"), false),
            (TimedOut, false),
            (Other, false),
        ] {
            let error = no_account("nats://x", context::AccountError::new(kind.clone()));
            assert_eq!(matches!(error, Error::NoJetStream { .. }), is_off, "{kind:?}");
            assert_eq!(error.is_transient(), !is_off, "{kind:?}");
        }
    }
}
