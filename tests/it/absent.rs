//! Tasks that were given back while their bag had no gatherer.

use std::time::{Duration, Instant};

use bagpress_broker::limits::GIVE_BACK_DELAY_MAX;
use bagpress_broker::result::Cause;
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{AttemptRecord, samples};

use crate::control;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, outcomes};

/// Takes every task that waits and gives it back, as a worker does for the so many `times`.
async fn give_back(server: &NatsServer, tasks: u32, cause: Cause, times: u32) -> Duration {
    let broker = control::broker(server).await;
    let mut queue = samples::join(&broker).await.unwrap();
    let delay = cause.give_back_delay(times - 1);
    for _ in 0..tasks {
        let delivery = samples::delivery(&mut queue).await.unwrap();
        let (id, planned) = (delivery.id(), if cause.is_planned() { times - 1 } else { 0 });
        let mut record = AttemptRecord::new(id, times, planned, cause, "W");
        record.reply = Some(delivery.reply().to_owned());
        broker.record_attempt(&id.bag, &record).await.unwrap();
        delivery.nak(delay).await.unwrap();
    }
    broker.flush().await.unwrap();
    assert!(queue.leave().await.is_empty());
    delay
}

#[tokio::test]
async fn a_bag_that_waits_out_its_gatherers_absence_goes_on_when_there_is_one() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    place.run(&format!("submit --tasks 50 --bytes 16KiB --name t --attempts 1 {at}")).await;
    let delay = give_back(&server, 50, Cause::GathererAbsent, 20).await;
    assert_eq!(delay, GIVE_BACK_DELAY_MAX);
    let _workers = [place.worker(&server), place.worker(&server)];
    let since = Instant::now();
    place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(0);
    assert!(since.elapsed() < delay / 2, "they waited: {:?}", since.elapsed());
    expect_each_done_once(&place.folder("t/staged"), 50);
    // With one attempt a task that were handed out twice would have failed.
    for outcome in outcomes(&place.folder("t/staged")) {
        assert_eq!(outcome["attempt"], 1, "{outcome}");
    }
}

#[tokio::test]
async fn a_bag_whose_tasks_wait_out_a_delay_says_so() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    place.run(&format!("submit --tasks 2 --bytes 16KiB --name t {at}")).await.with_code(0);
    // Its reason may be there still.
    give_back(&server, 2, Cause::TransferError, 9).await;
    let _worker = place.worker(&server);
    let gather = place.spawn(&format!("gather runs/t/staged {at}"));
    let says = |words: &str| gather.stderr().contains(words).then_some(());
    place.until("it says why", || says("2 tasks wait out a delay of up to")).await;
    place.until("it says what for", || says("given back for transfer-error")).await;
}
