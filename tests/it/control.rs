//! What the tests of `status`, `cancel` and `rm` ask a broker and the program.

use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Context};
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{Address, Broker, Role, limits};
use futures::TryStreamExt;
use serde_json::Value;

use crate::harness::Place;

/// A bag whose tasks take longer than any test.
pub(crate) const ENDLESS: &str =
    "--tasks 3 --bytes 16GiB --data text --codec zlib:9 --transfer wire --name t";

/// A bag's id, by its run folder.
pub(crate) fn bag_of(place: &Place, run: &str) -> String {
    let text = std::fs::read(place.folder(run).join("bag.json")).unwrap();
    let specification: Value = serde_json::from_slice(&text).unwrap();
    specification["bag"].as_str().unwrap().to_owned()
}

/// Waits until there is a bag in a run folder.
pub(crate) async fn until_there(place: &Place, run: &str) {
    let path = place.folder(run).join("bag.json");
    place.until("there is a bag", || path.is_file().then_some(())).await;
}

/// What `status` says of a bag, or nothing while it cannot.
pub(crate) async fn status(place: &Place, words: &str) -> Option<Value> {
    let ended = place.run(&format!("status {words} --json")).await;
    (ended.code == Some(0)).then(|| serde_json::from_str(&ended.stdout).unwrap())
}

/// Waits until `status` says something.
pub(crate) async fn until_status<T>(
    place: &Place,
    what: &str,
    words: &str,
    look: impl Fn(&Value) -> Option<T>,
) -> T {
    bagpress_broker::testing::eventually(what, crate::harness::SOON, async || {
        look(&status(place, words).await?)
    })
    .await
}

/// Waits until a worker executes something of a bag.
pub(crate) async fn until_running(place: &Place, words: &str) {
    until_status(place, "a worker executes a task", words, |bag| {
        let busy = bag["workers"].as_array()?.iter().any(|w| w["running"].as_u64() > Some(0));
        busy.then_some(())
    })
    .await;
}

pub(crate) async fn broker(server: &NatsServer) -> Broker {
    Broker::connect(&Address::plain(server.url()), Role::Admin).await.unwrap()
}

pub(crate) async fn context(server: &NatsServer) -> Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

/// Every subject of every stream of a server, with its number of messages, and every stream.
pub(crate) async fn all_there_is(server: &NatsServer) -> Vec<String> {
    let context = context(server).await;
    let mut all = Vec::new();
    let mut names = context.stream_names();
    while let Some(name) = names.try_next().await.unwrap() {
        let stream = context.get_stream(&name).await.unwrap();
        let mut subjects = stream.info_with_subjects(">").await.unwrap();
        while let Some((subject, count)) = subjects.try_next().await.unwrap() {
            if says_removed(&stream, &subject).await {
                continue;
            }
            all.push(format!("{name} {subject} {count}"));
        }
        all.push(name);
    }
    all.sort();
    all
}

/// Whether a message is a KV bucket's purge marker that expires by itself.
async fn says_removed(stream: &Stream, subject: &str) -> bool {
    if !subject.starts_with("$KV.") {
        return false;
    }
    let last = stream.get_last_raw_message_by_subject(subject).await.unwrap();
    let header = |name: &str| last.headers.get(name).map(ToString::to_string);
    let ttl = format!("{}s", limits::REMOVED_FOR.as_secs());
    last.payload.is_empty()
        && header("KV-Operation").as_deref() == Some("PURGE")
        && header("Nats-TTL") == Some(ttl)
}
