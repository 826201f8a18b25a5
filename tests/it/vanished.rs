//! An output was durable, and when it is to be counted its bytes are gone: no fault of its task, which is run
//! again, up to a bound.

use std::time::{Duration, Instant};

use bagpress_broker::ids::{Execution, Pool};
use bagpress_broker::result::{Cause, Place as Where};
use bagpress_broker::{
    Broker, Committed, Holder, Membership, Offered, Queue, Verdict, limits, samples, subjects,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::control;
use crate::harness::{Ended, Place, SOON};
use crate::ledger::{failure, outcomes};

/// Says of an offered task that its output is durable, where there is none: as if a disk had eaten it.
async fn hand_over_nothing(broker: &Broker) -> Option<Verdict> {
    let holder = Holder { worker: "W".to_owned(), host: "h".to_owned(), pid: 1 };
    let mut offers = Membership::join(broker, &Pool::default(), holder).await.unwrap();
    let offer = loop {
        if offers.members() == 0 {
            offers.enter(1).await.unwrap();
        }
        if let Offered::Offer(offer) = offers.receive().await {
            break offer;
        }
    };
    offer.take(0).await;
    let result = samples::done(offer.id(), offer.execution(), b"eaten", Where::Staged);
    let subject = subjects::outcome(&offer.id().bag);
    let answer = broker.client_handle().request(subject, result.encode().into()).await.ok()?;
    serde_json::from_slice(&answer.payload).ok()
}

/// The same of a task that was pulled.
async fn commit_nothing(broker: &Broker, queue: &mut Queue, results: &str) {
    let delivery = samples::delivery_within(queue, SOON).await.unwrap().unwrap();
    let id = delivery.id();
    let place = match results {
        "staged" => Where::Staged,
        _ => Where::Object {
            bucket: subjects::bucket(&id.bag),
            object: subjects::output_name(id.index),
            chunks: 1,
        },
    };
    let result = samples::done(id, &Execution::random(), b"eaten", place);
    assert!(matches!(broker.commit(&result).await.unwrap(), Committed::Mine));
    delivery.ack().await.unwrap();
}

async fn outputs_that_vanish(delivery: &str, results: &str, times: u32) -> (Place, Ended) {
    let (place, server) = Place::with_server().await;
    let broker = control::broker(&server).await;
    let at = format!("--server {}", server.url());
    let how = format!("--delivery {delivery} --results {results} {at}");
    let run = place.spawn(&format!("run --tasks 1 --bytes 64KiB --name t -q --json {how}"));
    if delivery == "queue-group" {
        // Somebody listens where a worker is asked whether it lives: a busy machine must not have it called dead.
        let alive = broker.client_handle().subscribe(subjects::ping("W")).await.unwrap();
        for _ in 0..times {
            let verdict = timeout(SOON, hand_over_nothing(&broker)).await;
            assert_eq!(verdict.unwrap(), Some(Verdict::Withdrawn));
        }
        drop(alive);
    } else {
        let mut queue = samples::join(&broker).await.unwrap();
        let mut before: Option<(Instant, Duration)> = None;
        for time in 0..times {
            commit_nothing(&broker, &mut queue, results).await;
            if let Some((at, delay)) = before {
                assert!(at.elapsed() >= delay, "again after {:?}", at.elapsed());
            }
            before = Some((Instant::now(), Cause::BytesLost.give_back_delay(time)));
        }
        assert!(queue.leave().await.is_empty());
    }
    let _worker = place.worker(&server);
    let ended = run.ended(&place).await;
    if ended.code == Some(0) {
        place.run(&format!("verify runs/t/{results} {at}")).await.with_code(0);
    }
    (place, ended)
}

fn summary(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

fn expect_failed_of_lost_bytes(place: &Place, results: &str) {
    let (cause, message) = failure(&place.folder(&format!("t/{results}")), 0);
    assert_eq!(cause, "bytes-lost");
    assert!(message.contains("the bytes were gone"), "{message}");
}

#[tokio::test]
async fn an_output_that_vanished_is_no_failure_of_its_task() {
    let (place, ended) = outputs_that_vanish("queue-group", "staged", 2).await;
    let ended = ended.with_code(0);
    assert_eq!(summary(&ended)["given_back"], json!({"bytes-lost": 2}));
    assert_eq!(outcomes(&place.folder("t/staged"))[0]["attempt"], 1);
}

#[tokio::test]
async fn a_disk_that_eats_every_output_ends_the_bag_with_its_cause() {
    let times = limits::BYTES_LOST_MAX;
    let (place, ended) = outputs_that_vanish("queue-group", "staged", times).await;
    let ended = ended.with_code(1);
    assert_eq!(summary(&ended)["given_back"], json!({"bytes-lost": times}));
    expect_failed_of_lost_bytes(&place, "staged");
}

#[tokio::test]
async fn a_committed_output_that_vanished_is_made_again_in_a_new_round() {
    for results in ["staged", "objects"] {
        let (place, ended) = outputs_that_vanish("jetstream", results, 2).await;
        ended.with_code(0);
        let outcome = outcomes(&place.folder(&format!("t/{results}"))).remove(0);
        assert_eq!((&outcome["round"], &outcome["attempt"]), (&2.into(), &1.into()));
    }
}

#[tokio::test]
async fn a_disk_that_eats_every_committed_output_ends_the_bag_with_its_cause() {
    for results in ["staged", "objects"] {
        let (place, ended) =
            outputs_that_vanish("jetstream", results, limits::BYTES_LOST_MAX).await;
        ended.with_code(1);
        expect_failed_of_lost_bytes(&place, results);
    }
}
