//! A bag that is cancelled stops, everywhere, and what was done of it stays.

use bagpress_broker::BagState;
use bagpress_broker::testing::eventually;
use rustix::process::Signal;

use crate::control::{ENDLESS, bag_of, broker, until_running, until_there};
use crate::death::{BAG, TASKS, middle};
use crate::harness::{Place, SOON};
use crate::ledger::{expect_each_done_once, outcomes};

/// Waits until every worker is free.
async fn until_free(broker: &bagpress_broker::Broker) {
    let within = bagpress_broker::limits::WORKERS_ANSWER_WITHIN;
    eventually("no worker holds or executes anything", SOON, async || {
        let workers = broker.workers(within).await.ok().filter(|workers| !workers.is_empty())?;
        workers.iter().all(|(_, w)| w.running == 0 && w.held.is_empty()).then_some(())
    })
    .await;
}

async fn cancel_stops_what_is_being_compressed(delivery: &str) {
    for results in ["staged", "objects"] {
        let (place, server) = Place::with_server().await;
        let at = format!("--server {}", server.url());
        let _worker = place.worker(&server);
        let endless = ENDLESS.replace("16GiB", "1GiB");
        let run = place
            .spawn(&format!("run {endless} -q --results {results} --delivery {delivery} {at}"));
        let folder = format!("t/{results}");
        until_there(&place, &folder).await;
        until_running(&place, &format!("runs/{folder} {at}")).await;
        let bag = bag_of(&place, &folder);
        let cancelled = place.run(&format!("cancel {bag} {at}")).await.with_code(0);
        assert!(cancelled.stdout.contains("0 of 3 tasks were done"), "{cancelled:?}");
        let ended = run.ended(&place).await.with_code(1);
        assert!(ended.stderr.contains("was cancelled"), "{ended:?}");
        assert!(ended.stderr.contains(&format!("gather runs/{folder} --resume")), "{ended:?}");

        let broker = broker(&server).await;
        until_free(&broker).await;
        assert!(outcomes(&place.folder(&folder)).is_empty(), "it was executed to its end");
        let mut waiting = 0;
        broker.waiting(&bag.parse().unwrap(), |_| waiting += 1).await.unwrap();
        assert_eq!(waiting, 0);
        // Nobody failed, and the worker takes other bags.
        let (_, worker) = broker.workers(SOON / 60).await.unwrap().remove(0);
        assert_eq!((worker.failed, worker.done), (0, 0));
        let other = format!("run --tasks 2 --bytes 64KiB --name other -q {at}");
        place.run(&other).await.with_code(0);
        // Again: it says that it is over.
        let again = place.run(&format!("cancel {bag} {at}")).await.with_code(0);
        assert!(again.stdout.contains("was already over"), "{again:?}");
    }
}

#[tokio::test]
async fn cancel_stops_what_is_being_compressed_and_frees_the_worker() {
    cancel_stops_what_is_being_compressed("jetstream").await;
}

#[tokio::test]
async fn cancel_stops_what_was_offered_and_frees_the_member() {
    cancel_stops_what_is_being_compressed("queue-group").await;
}

#[tokio::test]
async fn a_worker_that_missed_the_event_learns_it_at_its_next_renewal() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    let endless = ENDLESS.replace("16GiB", "1GiB");
    let run = place.spawn(&format!("run {endless} -q {at}"));
    until_there(&place, "t/staged").await;
    until_running(&place, &format!("runs/t/staged {at}")).await;
    run.signal(Signal::KILL);
    run.ended(&place).await;
    let broker = broker(&server).await;
    let mut found = broker.find_bag(&bag_of(&place, "t/staged").parse().unwrap()).await.unwrap();
    let line = found.line.as_mut().unwrap();
    line.state = BagState::Cancelled;
    assert!(broker.write_bag(line, found.revision).await.unwrap().is_some());
    until_free(&broker).await;
    assert!(outcomes(&place.folder("t/staged")).is_empty());
}

#[tokio::test]
async fn a_cancelled_bag_keeps_what_was_done_and_goes_on_only_when_told() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _workers = [place.worker(&server), place.worker(&server)];
    let folder = place.folder("t/staged");
    let run = place.spawn(&format!("run {BAG} -q {at}"));
    middle(&place, &folder).await;
    place.run(&format!("cancel runs/t/staged {at}")).await.with_code(0);
    run.ended(&place).await.with_code(1);
    let done = outcomes(&folder).len();
    assert!(done >= 4 && u64::try_from(done).unwrap() < TASKS, "{done}");
    assert!(outcomes(&folder).iter().all(|o| o["outcome"].get("done").is_some()));

    let refused = place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(1);
    assert!(refused.stderr.contains("--resume"), "{refused:?}");
    assert_eq!(outcomes(&folder).len(), done);
    place.run(&format!("gather runs/t/staged --resume -q {at}")).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    place.run("verify runs/t/staged").await.with_code(0);
}

#[tokio::test]
async fn a_local_run_is_cancelled_by_its_folder() {
    let place = Place::new().await;
    let run = place.spawn(&format!("run {BAG} --workers 2 -q"));
    middle(&place, &place.folder("t/staged")).await;
    place.run("cancel runs/t/staged").await.with_code(0);
    run.ended(&place).await.with_code(1);
    // Nothing runs any more: there is nothing to cancel, and it says what can be done.
    let again = place.run("cancel runs/t/staged").await.with_code(2);
    assert!(again.stderr.contains("bagpress rm runs/t/staged"), "{again:?}");
    place.run("gather runs/t/staged --resume --workers 2 -q").await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
}

#[tokio::test]
async fn a_bag_that_nobody_knows_is_not_cancelled() {
    let (place, server) = Place::with_server().await;
    let url = server.url();
    let unknown = place.run(&format!("cancel no-abcdefgh --server {url}")).await.with_code(2);
    assert!(unknown.stderr.contains("knows no bag no-abcdefgh"), "{unknown:?}");
    let unnamed = place.run("cancel no-abcdefgh").await.with_code(2);
    assert!(unnamed.stderr.contains("no server was named"), "{unnamed:?}");
}
