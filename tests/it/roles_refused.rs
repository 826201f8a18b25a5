//! What each role tries in vain against a real server, with the key that it has and a client of its own.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, HeaderMap, ServerError};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::harness::SOON;
use crate::roles::Guarded;

/// A hostile client with the key of a role.
struct Hand {
    client: Client,
    refused: mpsc::UnboundedReceiver<String>,
}

impl Hand {
    async fn of(guarded: &Guarded, role: &str) -> Self {
        let (sender, refused) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_nkey(guarded.seed(role))
            .custom_inbox_prefix(format!("_INBOX_{role}"))
            .event_callback(move |event| {
                if let Event::ServerError(ServerError::Other(why)) = event {
                    sender.send(why).unwrap();
                }
                std::future::ready(())
            });
        Self { client: options.connect(guarded.server.url()).await.unwrap(), refused }
    }

    /// Fails unless the server said so.
    async fn expect_refused(&mut self, what: &str) {
        let why = timeout(SOON, self.refused.recv()).await;
        let why = why.unwrap_or_else(|_| panic!("{what}: not refused")).unwrap();
        assert!(why.contains("Permissions Violation") && why.contains(what), "{what}: {why}");
    }

    async fn may_not_publish(&mut self, subject: &str) {
        self.client.publish(subject.to_owned(), "{}".into()).await.unwrap();
        self.expect_refused(subject).await;
    }

    async fn may_not_subscribe(&mut self, subject: &str) {
        let _subscriber = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.expect_refused(subject).await;
    }

    async fn may_not_join(&mut self, subject: &str, group: &str) {
        let joined = self.client.queue_subscribe(subject.to_owned(), group.to_owned()).await;
        let _subscriber = joined.unwrap();
        self.expect_refused(subject).await;
    }

    async fn ask(&self, subject: &str, body: &Value) -> Value {
        let answer = self.client.request(subject.to_owned(), body.to_string().into()).await;
        serde_json::from_slice(&answer.unwrap().payload).unwrap()
    }
}

/// Everything that JetStream can be asked to change about a stream or the durable of all workers.
fn changes(stream: &str) -> [String; 6] {
    ["CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT"]
        .map(|verb| format!("$JS.API.STREAM.{verb}.{stream}"))
}

const STREAMS: [&str; 4] = ["BAG_TASKS", "BAG_RESULTS", "BAG_ATTEMPTS", "KV_bags"];
const DURABLE: [&str; 5] = [
    "$JS.API.CONSUMER.CREATE.BAG_TASKS",
    "$JS.API.CONSUMER.CREATE.BAG_TASKS.workers.bag.task.default.*.*.*",
    "$JS.API.CONSUMER.DURABLE.CREATE.BAG_TASKS.workers",
    "$JS.API.CONSUMER.DELETE.BAG_TASKS.workers",
    "$JS.API.CONSUMER.PAUSE.BAG_TASKS.workers",
];

#[tokio::test]
async fn a_worker_submits_nothing_reads_no_other_inbox_and_changes_no_stream() {
    let guarded = Guarded::new().await;
    let mut worker = Hand::of(&guarded, "worker").await;
    for subject in
        ["bag.task.default.b.0.0", "bag.run.default", "$KV.bags.b", "bag.event.b.cancelled"]
    {
        worker.may_not_publish(subject).await;
    }
    for subject in ["_INBOX_producer.>", "_INBOX_observer.>", "_INBOX_admin.>", ">", "*.>", "bag.>"]
    {
        worker.may_not_subscribe(subject).await;
    }
    for subject in ["bag.up.b.>", "bag.lease.b.*", "bag.event.b.held", "bag.run.default"] {
        worker.may_not_subscribe(subject).await;
    }
    worker.may_not_join("bag.run.default", "others").await;
    for subject in
        STREAMS.iter().flat_map(|stream| changes(stream)).chain(DURABLE.map(str::to_owned))
    {
        worker.may_not_publish(&subject).await;
    }
    // Buckets are made and removed by others too, and the queue's tasks are had by pulling alone.
    for verb in ["CREATE", "UPDATE", "DELETE"] {
        worker.may_not_publish(&format!("$JS.API.STREAM.{verb}.OBJ_bag-b")).await;
    }
    for subject in
        ["STREAM.MSG.GET.BAG_TASKS", "DIRECT.GET.BAG_TASKS", "CONSUMER.MSG.NEXT.BAG_RESULTS.x"]
    {
        worker.may_not_publish(&format!("$JS.API.{subject}")).await;
    }
}

#[tokio::test]
async fn an_observer_takes_no_task_and_says_nothing() {
    let guarded = Guarded::new().await;
    let mut observer = Hand::of(&guarded, "observer").await;
    observer.may_not_publish("$JS.API.CONSUMER.MSG.NEXT.BAG_TASKS.workers").await;
    observer.may_not_join("bag.run.default", "workers").await;
    for subject in [
        "bag.task.default.b.0.0",
        "bag.result.b.0.0",
        "bag.attempt.b.0",
        "bag.run.default",
        "bag.up.b.open",
        "bag.lease.b.outcome",
        "bag.event.b.cancelled",
        "$KV.bags.b",
        "$O.bag-b.C.x",
        "$JS.ACK.BAG_TASKS.workers.1.1.1.1.0",
    ] {
        observer.may_not_publish(subject).await;
    }
    for subject in
        STREAMS.iter().flat_map(|stream| changes(stream)).chain(DURABLE.map(str::to_owned))
    {
        observer.may_not_publish(&subject).await;
    }
    // Where a consumer delivers to is its maker's choice.
    for stream in STREAMS {
        observer.may_not_publish(&format!("$JS.API.CONSUMER.CREATE.{stream}.x")).await;
    }
    // What bags are made of is none of its business.
    observer.may_not_publish("$JS.API.DIRECT.GET.OBJ_bag-b").await;
    for subject in [">", "bag.>", "bag.up.b.>", "_INBOX_producer.>", "_INBOX_worker.>"] {
        observer.may_not_subscribe(subject).await;
    }
}

#[tokio::test]
async fn a_producer_changes_neither_the_streams_of_all_nor_their_durable() {
    let guarded = Guarded::new().await;
    let mut producer = Hand::of(&guarded, "producer").await;
    for stream in STREAMS {
        for verb in ["CREATE", "UPDATE", "DELETE"] {
            producer.may_not_publish(&format!("$JS.API.STREAM.{verb}.{stream}")).await;
        }
    }
    for subject in DURABLE {
        producer.may_not_publish(subject).await;
    }
    producer.may_not_publish("$JS.API.CONSUMER.MSG.NEXT.BAG_TASKS.workers").await;
    producer.may_not_join("bag.run.default", "workers").await;
    for subject in [">", "_INBOX_worker.>", "_INBOX_admin.>"] {
        producer.may_not_subscribe(subject).await;
    }
}

/// How many messages each stream has; none if it is gone.
async fn messages(admin: &Hand) -> Vec<Option<u64>> {
    let mut counts = Vec::new();
    for stream in STREAMS {
        let info = admin.ask(&format!("$JS.API.STREAM.INFO.{stream}"), &json!({})).await;
        counts.push(info["state"]["messages"].as_u64());
    }
    counts
}

/// A server lets whoever asks choose where the answer goes, and does not ask whether the asker may publish there.
#[tokio::test]
async fn no_answer_goes_where_its_asker_may_not_publish() {
    let guarded = Guarded::new().await;
    let admin = Hand::of(&guarded, "admin").await;
    for (subject, payload) in
        [("bag.result.b.0.0", "{}"), ("bag.attempt.b.0", ""), ("$KV.bags.b", "{}")]
    {
        admin.client.request(subject, payload.into()).await.unwrap();
    }
    let before = messages(&admin).await;
    assert_eq!(before, [Some(0), Some(1), Some(1), Some(1)]);
    let asked = [
        ("observer", "$JS.API.INFO", json!({})),
        ("observer", "$JS.API.STREAM.INFO.BAG_RESULTS", json!({})),
        // What comes back is empty, as a request to delete is.
        ("observer", "$JS.API.DIRECT.GET.BAG_ATTEMPTS", json!({ "seq": 1 })),
        ("observer", "$JS.API.DIRECT.GET.BAG_RESULTS", json!({ "seq": 1 })),
        ("observer", "$SRV.PING", json!({})),
        ("worker", "$JS.API.INFO", json!({})),
        ("worker", "$JS.API.STREAM.MSG.GET.BAG_RESULTS", json!({ "seq": 1 })),
        ("worker", "$JS.API.CONSUMER.MSG.NEXT.BAG_TASKS.workers", json!({ "no_wait": true })),
        ("worker", "bag.result.b.1.0", json!({})),
    ];
    let wanted = [
        "$JS.API.STREAM.DELETE.BAG_RESULTS",
        "$JS.API.STREAM.PURGE.BAG_ATTEMPTS",
        "$JS.API.STREAM.PURGE.KV_bags",
        "$JS.API.CONSUMER.DELETE.BAG_TASKS.workers",
        "bag.task.default.b.0.0",
        "bag.attempt.b.9",
    ];
    let hands = [Hand::of(&guarded, "observer").await, Hand::of(&guarded, "worker").await];
    for (role, subject, body) in asked {
        let hand = if role == "observer" { &hands[0] } else { &hands[1] };
        for to in wanted {
            let payload = body.to_string().into();
            hand.client.publish_with_reply(subject, to, payload).await.unwrap();
        }
    }
    for hand in &hands {
        // Its own answer comes behind all of these.
        hand.ask("$JS.API.INFO", &json!({})).await;
    }
    let after = messages(&admin).await;
    assert_eq!(after, [Some(0), Some(2), Some(1), Some(1)], "one result was the worker's own");
    let durable = admin.ask("$JS.API.CONSUMER.INFO.BAG_TASKS.workers", &json!({})).await;
    assert_eq!(durable["name"], "workers", "{durable}");
}

/// Whoever serves a request answers where it says: a worker's requests cannot name a subject of the bags.
#[tokio::test]
async fn nobody_answers_a_worker_on_a_subject_of_the_bags() {
    let guarded = Guarded::new().await;
    let (admin, worker) = (Hand::of(&guarded, "admin").await, Hand::of(&guarded, "worker").await);
    let mut served = admin.client.subscribe("bag.up.b.open").await.unwrap();
    admin.client.flush().await.unwrap();
    let open = ("bag.up.b.open", "bag.task.default.b.0.0");
    worker.client.publish_with_reply(open.0, open.1, "{}".into()).await.unwrap();
    let request = timeout(SOON, futures::StreamExt::next(&mut served)).await.unwrap().unwrap();
    let reply = request.reply.unwrap();
    assert!(reply.starts_with("_R_."), "{reply}");
    let headers = HeaderMap::new();
    admin.client.publish_with_headers(reply, headers, "answer".into()).await.unwrap();
    admin.ask("$JS.API.INFO", &json!({})).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(messages(&admin).await[0], Some(0));
}
