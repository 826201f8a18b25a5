//! A second name for the bytes of an object: each name has metadata of its own, over the same chunks, and these go with the last.
//!
//! Whoever gives a name first marks the object whose bytes they are, over the sequence that was read; then creates the other
//! metadata; then looks whether the object is still there. Whoever takes a name away first writes the tombstone, then looks which
//! names are left. Of a name that is given and the last one that is taken away at the same time, one learns of the other.

use std::time::SystemTime;

use async_nats::jetstream::object_store::ObjectInfo;
use tracing::debug;

use super::bucket::Bucket;
use super::error::Error;
use super::marks;
use super::meta::{Info, Lookup};
use super::metadata::{Published, RACES_MAX, too_many_races};
use super::names;

const WHAT: &str = "give an object a second name";

impl Bucket {
    /// Gives the bytes of the object that `info` describes the name `name` as well, and that one `description` and `labels`. None if the
    /// object is another by now, or not whole, or if another one has the name. Safe to repeat.
    ///
    /// # Errors
    ///
    /// [`Error::Unanswered`], transient; [`Error::Full`], [`Error::NoBucket`], [`Error::BadName`].
    pub async fn share(
        &self,
        info: &Info,
        name: &str,
        (description, labels): (String, marks::Labels),
    ) -> Result<Option<Info>, Error> {
        names::check_object(name)?;
        let Some(there) = self.mark_shared(info).await? else { return Ok(None) };
        let mut metadata = labels;
        marks::keep_time(&there.metadata, &mut metadata);
        marks::share(&mut metadata, &info.token);
        let wire = ObjectInfo {
            name: name.to_owned(),
            description: Some(description),
            metadata,
            modified: Some(SystemTime::now().into()),
            ..there
        };
        let Some(shared) = self.create_shared(&wire, info).await? else { return Ok(None) };
        // Whoever removed the object before it was there may not have seen it.
        let is_whole = match self.info_from_leader(&info.name).await? {
            Lookup::Found(found) if found.token == info.token => {
                self.count_chunks(&info.token).await? == info.chunks
            }
            _ => false,
        };
        if is_whole {
            return Ok(Some(shared));
        }
        debug!(object = name, "what it was to share is gone");
        self.remove_exactly(&shared).await?;
        Ok(None)
    }

    /// Notes on an object that its chunks have other names. None if it is another by now. Returns its metadata.
    async fn mark_shared(&self, info: &Info) -> Result<Option<ObjectInfo>, Error> {
        let subject = names::metadata_subject(self.name(), &info.name);
        for _ in 0..RACES_MAX {
            let message = self.message_from_leader(None, &subject).await?;
            let Some(message) = message else { return Ok(None) };
            let Lookup::Found(found) =
                Lookup::read(self.name(), message.sequence, &message.payload)
            else {
                return Ok(None);
            };
            if (&found.token, found.digest) != (&info.token, info.digest) {
                return Ok(None);
            }
            let mut there: ObjectInfo = serde_json::from_slice(&message.payload)
                .map_err(|error| Error::unanswered(WHAT, &error))?;
            if marks::is_shared(&there.metadata, &info.token) {
                return Ok(Some(there));
            }
            marks::share(&mut there.metadata, &info.token);
            if let Published::At(_) = self.publish_metadata(&there, found.sequence).await? {
                return Ok(Some(there));
            }
        }
        Err(too_many_races(WHAT, self.name(), &info.name))
    }

    async fn create_shared(&self, wire: &ObjectInfo, info: &Info) -> Result<Option<Info>, Error> {
        for _ in 0..RACES_MAX {
            match self.info_from_leader(&wire.name).await? {
                Lookup::Found(found) if found.token == info.token => return Ok(Some(found)),
                Lookup::Found(_) | Lookup::Malformed { .. } => return Ok(None),
                nothing @ (Lookup::Missing | Lookup::Deleted { .. }) => {
                    // Whether it was stored, the next look tells.
                    self.publish_metadata(wire, nothing.sequence()).await?;
                }
            }
        }
        Err(too_many_races(WHAT, self.name(), &wire.name))
    }

    /// Purges the chunks of a name that was taken away, unless they are `shared` and another name has them.
    pub(super) async fn purge_unless_named(&self, token: &str, shared: bool) -> Result<(), Error> {
        if shared && self.is_named(token).await? {
            return Ok(());
        }
        self.purge_chunks(token).await
    }
}

#[cfg(test)]
mod tests {
    use bagpress_broker::testing::NatsServer;
    use bagpress_broker::{Role, samples};

    use super::super::marks::Freed;
    use super::*;

    async fn bucket(server: &NatsServer) -> Bucket {
        let broker = server.broker(Role::Admin).await;
        let (client, context) = (broker.client_handle(), broker.context_handle());
        Bucket::create(client, context, "b", "Outputs of a test", 1 << 20, &samples::bag())
            .await
            .unwrap()
    }

    fn no_labels() -> (String, marks::Labels) {
        ("shared".to_owned(), marks::Labels::new())
    }

    #[tokio::test]
    async fn the_bytes_of_two_names_stay_until_both_are_gone() {
        let server = NatsServer::start().await;
        let bucket = bucket(&server).await;
        let first = bucket.put("a", "0-x", b"bytes".as_slice().into()).await.unwrap().info;
        for _ in 0..2 {
            // Once more is the same.
            let second = bucket.share(&first, "b", no_labels()).await.unwrap().unwrap();
            assert_eq!((&second.token, second.digest), (&first.token, first.digest));
        }
        for (name, left) in [("a", "b"), ("b", "a")] {
            let freed = Freed { by: "test".to_owned(), is_input: false, at: None };
            let info = bucket.find(name).await.unwrap();
            assert!(bucket.free_exactly(&info, &freed).await.unwrap());
            // Who freed it may have died before its chunks were gone, and it is freed again.
            let Lookup::Deleted { token, shared, .. } =
                bucket.info_from_leader(name).await.unwrap()
            else {
                panic!("{name} is there")
            };
            bucket.finish_removal(&token, shared).await.unwrap();
            assert!(!bucket.remove(name).await.unwrap());
            if left == "b" {
                let info = bucket.find("b").await.unwrap();
                bucket.read_back(&info).await.unwrap();
                // What is gone gives no name, and what has a name already stays.
                assert_eq!(bucket.share(&first, "c", no_labels()).await.unwrap(), None);
                bucket.put("a", "0-y", b"other".as_slice().into()).await.unwrap();
                let other = bucket.find("a").await.unwrap();
                assert_eq!(bucket.share(&other, "b", no_labels()).await.unwrap(), None);
                assert!(bucket.remove("a").await.unwrap());
                bucket.read_back(&info).await.unwrap();
            }
        }
        assert_eq!(bucket.count_chunks("0-x").await.unwrap(), 0);
        assert_eq!(bucket.orphans().await.unwrap(), []);
    }

    /// A name is given and the object removed, in every order that the steps of both can have.
    #[tokio::test]
    async fn a_name_that_is_given_while_the_object_is_removed_has_its_bytes_or_is_none() {
        let server = NatsServer::start().await;
        let bucket = bucket(&server).await;
        for round in 0..60 {
            let token = format!("{round}-x");
            let (a, b) = (format!("a{round}"), format!("b{round}"));
            let first = bucket.put(&a, &token, b"bytes".as_slice().into()).await.unwrap().info;
            let removing = async {
                for _ in 0..round % 12 {
                    tokio::task::yield_now().await;
                    bucket.count_chunks("none").await.unwrap();
                }
                bucket.remove(&a).await.unwrap()
            };
            let (shared, removed) = tokio::join!(bucket.share(&first, &b, no_labels()), removing);
            assert!(removed);
            match bucket.find(&b).await {
                Ok(info) => bucket.read_back(&info).await.unwrap(),
                Err(error) => {
                    assert_eq!(shared.unwrap(), None, "{round}: {error}");
                    assert_eq!(bucket.count_chunks(&token).await.unwrap(), 0, "{round}");
                }
            }
        }
    }

    /// An earlier version takes the mark for a pin that nobody can take away, and frees nothing.
    #[tokio::test]
    async fn an_object_with_two_names_is_pinned_for_who_does_not_know_that() {
        let server = NatsServer::start().await;
        let bucket = bucket(&server).await;
        let first = bucket.put("a", "0-x", b"bytes".as_slice().into()).await.unwrap().info;
        bucket.share(&first, "b", no_labels()).await.unwrap().unwrap();
        for name in ["a", "b"] {
            let info = bucket.find(name).await.unwrap();
            let pins = info.metadata.keys().filter(|label| label.starts_with("bagpress.pin."));
            assert_eq!(pins.count(), 1, "{name}");
            assert_eq!(marks::pins(&info.metadata), []);
        }
        // What takes the name with other bytes is not shared.
        let other = bucket.put("c", "1-x", b"other".as_slice().into()).await.unwrap().info;
        bucket.rename(&other, "a").await.unwrap();
        assert!(!marks::is_shared(&bucket.find("a").await.unwrap().metadata, "1-x"));
    }
}
