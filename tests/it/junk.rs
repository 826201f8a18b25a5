//! Junk on our subjects is answered or ignored, and never ends a worker or a bag.

use std::fs;

use async_nats::jetstream;
use bagpress_broker::testing::NatsServer;

use crate::death::{BAG, TASKS, middle};
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, failure, outcomes};
use crate::process;

/// The id of a run's bag.
fn bag_id(place: &Place, run: &str) -> String {
    let text = fs::read(place.folder(run).join("bag.json")).unwrap();
    let specification: serde_json::Value = serde_json::from_slice(&text).unwrap();
    specification["bag"].as_str().unwrap().to_owned()
}

/// Takes a task out of the stream, and gives what it was.
async fn take_out(tasks: &jetstream::stream::Stream, subject: &str) -> Vec<u8> {
    let task = tasks.get_last_raw_message_by_subject(subject).await.unwrap();
    assert!(tasks.delete_message(task.sequence).await.unwrap());
    task.payload.to_vec()
}

async fn publish(server: &NatsServer, subject: &str, payload: Vec<u8>) {
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let subject = subject.to_owned();
    context.publish(subject, payload.into()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn junk_in_the_place_of_a_task_fails_it_alone() {
    for results in ["staged", "objects"] {
        let (place, server) = Place::with_server().await;
        let at = format!("--server {}", server.url());
        let submit = format!("submit --tasks 8 --bytes 64KiB --name t --results {results} {at}");
        place.run(&submit).await.with_code(0);
        let bag = bag_id(&place, &format!("t/{results}"));
        let subject = |index: u32| format!("bag.task.default.{bag}.{index}.0");
        let client = async_nats::connect(server.url()).await.unwrap();
        let tasks = jetstream::new(client).get_stream("BAG_TASKS").await.unwrap();
        let mut own = Vec::new();
        for index in 0..5 {
            own.push(take_out(&tasks, &subject(index)).await);
        }
        let version_2 = String::from_utf8(own[1].clone()).unwrap().replace("\"v\":1", "\"v\":2");
        publish(&server, &subject(0), b"{\"v\":1, not JSON".to_vec()).await;
        publish(&server, &subject(1), version_2.into()).await;
        publish(&server, &subject(2), vec![b'x'; 60 * 1024]).await;
        publish(&server, &subject(3), own[4].clone()).await;
        publish(&server, &subject(4), Vec::new()).await;
        let worker = place.worker(&server);

        let gather = format!("gather runs/t/{results} -q {at}");
        let gathered = place.run(&gather).await.with_code(1);
        assert!(gathered.stderr.contains("5 of 8 tasks failed"), "{gathered:?}");
        assert!(gathered.stdout.contains("bad-descriptor"), "{gathered:?}");
        let folder = place.folder(&format!("t/{results}"));
        assert_eq!(outcomes(&folder).len(), 8);
        let reasons = ["line 1", "version 2", "line 1", "t-", "line 1"];
        for (index, reason) in (0..).zip(reasons) {
            let (cause, message) = failure(&folder, index);
            let version = reason == "version 2";
            assert_eq!(cause, if version { "protocol-version" } else { "bad-descriptor" });
            assert!(message.contains(reason), "{index}: {message}");
        }
        assert!(process::is_alive(worker.pid()));

        // What failed of junk is done when it is run again.
        place.run(&format!("{gather} --retry-failed")).await.with_code(0);
        place.run(&format!("verify runs/t/{results} {at}")).await.with_code(0);
    }
}

/// What nobody who follows the protocol would send.
fn junk() -> Vec<Vec<u8>> {
    let held = br#"{"v":1,"worker":"w","host":"h","pid":1,"all":true,"deliveries":[]}"#;
    let later = br#"{"v":2,"index":0,"round":0,"execution":"0123456789abcdef01234567"}"#;
    let far = br#"{"v":1,"index":4000000000,"round":7,"execution":"0123456789abcdef01234567"}"#;
    vec![
        Vec::new(),
        b"junk".to_vec(),
        held.to_vec(),
        later.to_vec(),
        far.to_vec(),
        vec![0xff; 60 * 1024],
        vec![b'['; 60 * 1024],
    ]
}

async fn junk_beside_the_tasks(delivery: &str) {
    let (place, server) = Place::with_server().await;
    let workers = [place.worker(&server), place.worker(&server)];
    let at = format!("--server {}", server.url());
    let run = place.spawn(&format!("run {BAG} -q --transfer wire --delivery {delivery} {at}"));
    let folder = place.folder("t/staged");
    middle(&place, &folder).await;
    let bag = bag_id(&place, "t/staged");
    let client = async_nats::connect(server.url()).await.unwrap();
    let up = ["open", "close", "input", "x.nobody", "x.0-0123456789abcdef01234567", "else.where"];
    let up = up.map(|what| format!("bag.up.{bag}.{what}"));
    let event = ["held", "cancelled", "else"].map(|what| format!("bag.event.{bag}.{what}"));
    let lease = ["renew", "back", "outcome", "else"].map(|what| format!("bag.lease.{bag}.{what}"));
    let offer = ["bag.run.default".to_owned()];
    for subject in up.iter().chain(&event).chain(&lease).chain(&offer) {
        for payload in junk() {
            let inbox = client.new_inbox();
            client.publish(subject.clone(), payload.clone().into()).await.unwrap();
            client.publish_with_reply(subject.clone(), inbox, payload.into()).await.unwrap();
        }
    }
    client.flush().await.unwrap();
    assert!(outcomes(&folder).len() < usize::try_from(TASKS).unwrap(), "it came too late");
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    place.run("verify runs/t/staged").await.with_code(0);
    for worker in &workers {
        assert!(process::is_alive(worker.pid()));
    }
}

#[tokio::test]
async fn junk_beside_the_tasks_stops_nobody() {
    junk_beside_the_tasks("jetstream").await;
}

#[tokio::test]
async fn junk_among_the_offers_stops_nobody() {
    junk_beside_the_tasks("queue-group").await;
}
