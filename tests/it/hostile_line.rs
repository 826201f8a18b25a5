//! A line that cannot be read is treated as held, and a mere event is looked up first.

use std::path::Path;
use std::time::Duration;

use bagpress_broker::limits::GATHERER_LEASE;
use bagpress_broker::testing::NatsServer;
use futures::StreamExt;
use serde_json::json;

use crate::control::{ENDLESS, bag_of, broker, context, status, until_running, until_there};
use crate::death::{BAG, TASKS, middle};
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, outcomes};

/// Writes over a bag's line, whatever it is.
async fn overwrite(server: &NatsServer, bag: &str, line: &str) {
    let context = context(server).await;
    let subject = format!("$KV.bags.{bag}");
    context.publish(subject, line.to_owned().into()).await.unwrap().await.unwrap();
}

const LATER: &str = r#"{"v":2,"gatherer":"of a later version"}"#;

#[tokio::test]
async fn a_line_that_cannot_be_read_is_not_taken_over() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    place.run(&format!("submit --tasks 2 --bytes 1KiB --name t {at}")).await.with_code(0);
    let bag = bag_of(&place, "t/staged");
    let before = broker(&server).await.find_bag(&bag.parse().unwrap()).await.unwrap();
    for line in ["junk", LATER] {
        overwrite(&server, &bag, line).await;
        let found = broker(&server).await.find_bag(&bag.parse().unwrap()).await.unwrap();
        let verbs = [
            format!("gather runs/t/staged -q {at}"),
            format!("rm runs/t/staged {at}"),
            format!("cancel {bag} {at}"),
            format!("status {bag} {at}"),
        ];
        for verb in verbs {
            let refused = place.run(&verb).await.with_code(2);
            assert!(refused.stderr.contains("cannot be read"), "{refused:?}");
            assert!(refused.stderr.contains("use the version of bagpress"), "{refused:?}");
        }
        let after = broker(&server).await.find_bag(&bag.parse().unwrap()).await.unwrap();
        assert_eq!(found, after, "somebody wrote over it");
    }
    // As the hint says, once nobody gathers it.
    let refused = place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(2);
    assert!(refused.stderr.contains(&format!("nats kv del bags {bag}")), "{refused:?}");
    overwrite(&server, &bag, "").await;
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(0);
    assert!(before.unreadable.is_none());
}

/// A gatherer of a later version lives, and renews a line that this one cannot read.
#[tokio::test]
async fn a_bag_that_a_later_version_gathers_is_left_to_it() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    place.run(&format!("submit --tasks 2 --bytes 1KiB --name t {at}")).await.with_code(0);
    let bag = bag_of(&place, "t/staged");
    overwrite(&server, &bag, LATER).await;
    let gather = place.spawn(&format!("gather runs/t/staged -q {at}"));
    let renewing = async {
        loop {
            overwrite(&server, &bag, LATER).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let refused = tokio::select! {
        ended = gather.ended(&place) => ended.with_code(2),
        () = renewing => unreachable!(),
    };
    assert!(refused.stderr.contains("is being gathered by a process whose line"), "{refused:?}");
    assert!(outcomes(&place.folder("t/staged")).is_empty());
}

#[tokio::test]
async fn junk_in_the_place_of_its_line_ends_no_living_gatherer() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let run = place.spawn(&format!("run --tasks 3 --bytes 1MiB --name t -q {at}"));
    until_there(&place, "t/staged").await;
    let bag = bag_of(&place, "t/staged");
    let broker = broker(&server).await;
    let held = async || {
        let found = broker.find_bag(&bag.parse().unwrap()).await.ok()?;
        found.line?.gatherer.map(|gatherer| gatherer.id)
    };
    let soon = 2 * GATHERER_LEASE + crate::harness::SOON;
    let first = bagpress_broker::testing::eventually("it is gathered", soon, held).await;
    overwrite(&server, &bag, "junk").await;
    // Meanwhile nobody takes it over; then it says again who it is.
    let copied = place.finish(place.command(Path::new("cp"), "-r runs copy")).await;
    copied.with_code(0);
    let second = place.run(&format!("gather copy/t/staged -q {at}")).await.with_code(2);
    let refused = ["is being gathered by", "cannot be read"].map(|why| second.stderr.contains(why));
    assert!(refused.contains(&true), "{second:?}");
    let again = bagpress_broker::testing::eventually("it is gathered again", soon, held).await;
    assert_eq!(first, again);
    let _worker = place.worker(&server);
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), 3);
}

#[tokio::test]
async fn a_cancellation_that_no_line_says_stops_nothing() {
    for delivery in ["jetstream", "queue-group"] {
        let (place, server) = Place::with_server().await;
        let at = format!("--server {}", server.url());
        let _worker = place.worker(&server);
        let run = place.spawn(&format!("run {ENDLESS} --delivery {delivery} -q {at}"));
        until_there(&place, "t/staged").await;
        until_running(&place, &format!("runs/t/staged {at}")).await;
        let bag = bag_of(&place, "t/staged");
        let client = async_nats::connect(server.url()).await.unwrap();
        // Of a delivery that was terminated nothing comes again.
        let mut said = client.subscribe("$JS.ACK.BAG_TASKS.>").await.unwrap();
        for _ in 0..100 {
            client.publish(format!("bag.event.{bag}.cancelled"), "".into()).await.unwrap();
        }
        client.flush().await.unwrap();
        let watching = async {
            while let Some(word) = said.next().await {
                assert!(!word.payload.starts_with(b"+TERM"), "{word:?}");
            }
        };
        tokio::time::timeout(Duration::from_secs(2), watching).await.unwrap_err();
        let seen = status(&place, &format!("runs/t/staged {at}")).await.unwrap();
        assert_eq!(
            (&seen["state"], &seen["workers"][0]["running"]),
            (&json!("running"), &json!(1))
        );
        // One that the line says stops it.
        place.run(&format!("cancel runs/t/staged {at}")).await.with_code(0);
        run.ended(&place).await.with_code(1);
    }
}

/// A hostile worker says on which subject its delivery is answered, and is gone.
#[tokio::test]
async fn nothing_is_said_in_the_name_of_a_gatherer_but_answers_to_deliveries() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _workers = [place.worker(&server), place.worker(&server)];
    let run = place.spawn(&format!("run {BAG} -q {at}"));
    let folder = place.folder("t/staged");
    middle(&place, &folder).await;
    let bag = bag_of(&place, "t/staged");
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut heard = client.subscribe("victim.>").await.unwrap();
    let held = json!({"v": 1, "worker": "NOBODY", "host": "h", "pid": 1, "all": true, "deliveries":
        [{"index": 23, "round": 0, "delivered": 1, "reply": "victim.of.it"}]});
    for _ in 0..10 {
        let subject = format!("bag.event.{bag}.held");
        client.publish(subject, held.to_string().into()).await.unwrap();
    }
    client.flush().await.unwrap();
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    client.publish("victim.end", "".into()).await.unwrap();
    assert_eq!(heard.next().await.unwrap().subject.as_str(), "victim.end");
}
