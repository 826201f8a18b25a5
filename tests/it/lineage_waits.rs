//! A lost object whose task nobody runs yet: whoever needs it waits for a worker, and who frees it takes the task along.

use bagpress_broker::Role;
use bagpress_broker::testing::{NatsServer, eventually};
use rustix::process::Signal;

use crate::control::{all_there_is, context, status};
use crate::death::DELIVERIES;
use crate::harness::{Place, SOON};
use crate::ledger::expect_each_done_once;
use crate::lineage::Fault::{Delete, Lose};
use crate::lineage::{break_it, chain};
use crate::objects::{answers, at};
use crate::taken::content;

/// How many tasks wait in the queue or run.
async fn queued(server: &NatsServer) -> usize {
    let all = all_there_is(server).await;
    all.iter().filter(|line| line.starts_with("BAG_TASKS bag.task.")).count()
}

/// For how many seconds there was no outcome, as a bag has said last, and why.
fn said(stderr: &str) -> Option<(u64, &str)> {
    let (_, said) = stderr.rsplit_once("no outcome for ")?;
    let (seconds, why) = said.split_once(" s: ")?;
    Some((seconds.parse().ok()?, why.lines().next()?))
}

#[tokio::test]
async fn a_bag_whose_lost_input_nobody_makes_again_waits_for_a_worker_and_says_so() {
    let (place, server) = Place::with_server().await;
    let (at, worker) = (at(&server), place.worker(&server));
    let [one, ..] = chain(&place, &server, 2).await;
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
    let get = format!("object get {} --out whole {at}", one[0].0);
    place.run(&get).await.with_code(0);
    worker.signal(Signal::TERM);
    worker.ended(&place).await.with_code(0);
    break_it(&theirs, &broker, &one[0].0, Delete).await;

    let lost = one[0].0.to_string();
    let bags = DELIVERIES.map(|delivery| {
        let run = format!("run {lost} --codec gzip:6 --out {delivery} --name {delivery}");
        place.spawn(&format!("{run} --delivery {delivery} {at}"))
    });
    for bag in &bags {
        // Three looks for workers take six seconds at most: later than that, it is known that there are none.
        let waits = || said(&bag.stderr()).is_some_and(|(s, why)| s > 9 && why.contains(&lost));
        place.until("the bag says what it waits for", || waits().then_some(())).await;
    }
    let all = status(&place, &at).await.unwrap();
    let open = all["bags"].as_array().unwrap().iter().filter(|bag| bag["state"] != "finished");
    let counts: Vec<_> = open.map(|bag| (&bag["done"], &bag["failed"])).collect();
    assert_eq!(counts, [(&0.into(), &0.into()); 2], "{all}");

    let _worker = place.worker(&server);
    let whole = std::fs::read(place.path("whole")).unwrap();
    for (bag, delivery) in bags.into_iter().zip(DELIVERIES) {
        bag.ended(&place).await.with_code(0);
        expect_each_done_once(&place.folder(&format!("{delivery}/staged")), 1);
        let output = content(&place.path(&format!("{delivery}/out_0.bin.gz")));
        assert!(output == whole, "by {delivery}");
    }
}

#[tokio::test]
async fn what_is_freed_while_its_task_is_queued_does_not_come_back() {
    let (place, server) = Place::with_server().await;
    let (at, worker) = (at(&server), place.worker(&server));
    let [one, ..] = chain(&place, &server, 2).await;
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
    worker.signal(Signal::TERM);
    worker.ended(&place).await.with_code(0);
    for (of, _) in &one {
        break_it(&theirs, &broker, of, Lose).await;
    }
    let get = format!("object get {} {} --out got {at} --json", one[0].0, one[1].0);
    for answer in answers(&place.run(&get).await.with_code(1)) {
        assert_eq!(answer["not_reconstructed"], "no-workers", "{answer}");
    }
    assert_eq!(queued(&server).await, 2);
    place.run(&format!("object free {} {at}", one[0].0)).await.with_code(0);
    assert_eq!(queued(&server).await, 1, "the task of the other one stays");

    // The queue gives the older task first: when the other object is there, whatever was queued before it has run.
    let _worker = place.worker(&server);
    let wait = format!("object wait {} --timeout 30s {at}", one[1].0);
    let there = async || (place.run(&wait).await.code == Some(0)).then_some(());
    eventually("the other one is made again", SOON, there).await;
    let info = format!("object info {} {at} --json", one[0].0);
    let answer = &answers(&place.run(&info).await.with_code(1))[0];
    assert_eq!(answer["state"], "freed", "{answer}");
}
