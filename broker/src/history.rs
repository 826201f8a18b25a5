//! Reading what a stream holds of some subjects, once, from the first message to the last.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use futures::TryStreamExt;

use crate::ids::random_base32;
use crate::pull::{Pull, Pulled};
use crate::{Broker, Error, limits};

impl Broker {
    /// Reads every message of `stream` that is on one of the subjects `filters` now, oldest first, each
    /// with its subject.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: what was seen so far may be incomplete.
    pub(crate) async fn read_all(
        &self,
        stream: &str,
        filters: &[String],
        mut see: impl FnMut(&str, &[u8]),
    ) -> Result<(), Error> {
        let lost = Error::lost("read a stream");
        let name = format!("read-{}", random_base32::<10>());
        let config = pull::Config {
            name: Some(name.clone()),
            description: Some("Reads once".to_owned()),
            filter_subjects: filters.to_vec(),
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::All,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: Duration::from_mins(1),
            ..pull::Config::default()
        };
        let made = self.jetstream().create_consumer_on_stream(config, stream).await;
        let mut consumer: Consumer<pull::Config> = made.map_err(|e| lost(&e))?;
        let mut left = consumer.cached_info().num_pending;
        let mut pull = Pull::open(self, stream, &name).await?;
        let mut read = 0_u64;
        let mut asked_at = u64::MAX;
        while left > 0 {
            if pull.outstanding() == 0 {
                if asked_at == read {
                    // A whole request brought nothing: what is missing was removed meanwhile, or lost.
                    let info = consumer.info().await.map_err(|e| lost(&e))?;
                    if info.num_pending == 0 {
                        break;
                    }
                    return Err(lost(&"messages are missing"));
                }
                asked_at = read;
                pull.request(limits::GATHER_BATCH).await?;
            }
            match pull.next().await {
                Pulled::Message(message) => {
                    (left, read) = (left - 1, read + 1);
                    see(&message.subject, &message.payload);
                }
                Pulled::Ended => {}
                Pulled::Gone(why) => return Err(lost(&why)),
            }
        }
        if let Err(error) = self.jetstream().delete_consumer_from_stream(&name, stream).await {
            tracing::debug!(%error, "consumer not removed, it goes by itself");
        }
        Ok(())
    }

    /// How many messages `stream` has on each subject that matches `filter`.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] or [`Error::Lost`].
    pub(crate) async fn count_subjects(
        &self,
        stream: &str,
        filter: &str,
        mut see: impl FnMut(&str, u64),
    ) -> Result<(), Error> {
        let lost = Error::lost("count messages");
        let stream = self.stream(stream).await?;
        let counts = stream.info_with_subjects(filter).await;
        let mut counts = counts.map_err(|e| lost(&e))?;
        while let Some((subject, count)) = counts.try_next().await.map_err(|e| lost(&e))? {
            see(&subject, count as u64);
        }
        Ok(())
    }

    /// Removes every message of `stream` that is on a subject that matches `filter`.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] or [`Error::Lost`].
    pub(crate) async fn purge(&self, stream: &str, filter: &str) -> Result<u64, Error> {
        let found = self.stream(stream).await?;
        let purged = found.purge().filter(filter).await;
        purged.map(|purged| purged.purged).map_err(|e| Error::lost("purge")(&e))
    }
}
