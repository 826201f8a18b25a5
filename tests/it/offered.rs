//! The queue group's own rows of trouble: a worker that may not execute what it is offered, and an output
//! whose bytes are lost before it is counted.

use std::collections::HashMap;
use std::fs;

use bagpress_broker::ids::Pool;
use bagpress_broker::result::Place as Where;
use bagpress_broker::{
    Address, Broker, Error, Holder, Membership, Offer, Offered, Role, Service, ServiceStats,
    samples,
};
use bagpress_codec::{Codec, DataKind, Digest};
use bagpress_objstore::staging::{Allowed, Permission, Stager, part_folder};
use bytes::Bytes;
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::control::until_status;
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::{Place, Running};
use crate::ledger::{expect_each_done_once, generated, outcomes};
use crate::taken::run_of;

/// A bag of three of which the descriptors pin a version of the codec's library that nobody has.
async fn submitted_for_another_version(place: &Place, at: &str) {
    let bag = "--tasks 3 --bytes 64KiB --codec zlib:6 --name t --delivery queue-group";
    place.run(&format!("submit {bag} {at}")).await.with_code(0);
    let path = place.folder("t/staged/bag.json");
    let mut specification: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    specification["library"] = "zlib-rs/99.0.0+1".into();
    fs::write(&path, specification.to_string()).unwrap();
}

async fn expect_no_attempt_spent(place: &Place, gather: Running) {
    let summary = gather.ended(place).await.with_code(0);
    let summary: Value = serde_json::from_str(&summary.stdout).unwrap();
    expect_each_done_once(&place.folder("t/staged"), 3);
    assert!(summary["given_back"]["codec-version"].as_u64() >= Some(1), "{summary}");
    let nobody_died = (&summary["retried"], &summary["given_back"]["worker-lost"]);
    assert_eq!(nobody_died, (&0.into(), &Value::Null), "{summary}");
    for outcome in outcomes(&place.folder("t/staged")) {
        assert_eq!(outcome["attempt"], 1, "{outcome}");
    }
}

#[tokio::test]
async fn a_bag_whose_codec_version_no_member_has_says_so_and_spends_no_attempt() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    submitted_for_another_version(&place, &at).await;
    let other = place.worker(&server);
    let gather = place.spawn(&format!("gather runs/t/staged -q {at} --json"));
    let none = "none has zlib-rs/99.0.0+1 for zlib";
    let says = || gather.stderr().contains(none).then_some(());
    place.until("the gatherer says that no worker fits", says).await;
    until_status(&place, "status says so too", &format!("runs/t/staged {at}"), |bag| {
        bag["why"].as_str()?.contains(none).then_some(())
    })
    .await;
    other.signal(Signal::TERM);
    other.ended(&place).await.with_code(0);
    let _any = place.spawn(&format!("worker --slots 1 --any-codec-version {at}"));
    expect_no_attempt_spent(&place, gather).await;
}

#[tokio::test]
async fn a_member_with_another_codec_version_leaves_the_task_to_one_that_fits() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    submitted_for_another_version(&place, &at).await;
    let _other = place.worker(&server);
    let gather = place.spawn(&format!("gather runs/t/staged -q {at} --json"));
    // It is known by its give-back; from then on there is one that fits beside it.
    until_status(&place, "a task was given back", &format!("runs/t/staged {at}"), |bag| {
        bag["given_back"]["codec-version"].as_u64().map(drop)
    })
    .await;
    let _any = place.spawn(&format!("worker --slots 1 --any-codec-version {at}"));
    expect_no_attempt_spent(&place, gather).await;
}

/// A worker of an earlier version is as one of today to whoever looks at its codecs.
#[tokio::test]
async fn a_bag_whose_packs_or_blocks_no_worker_knows_says_so() {
    let library = "gzip:6".parse::<Codec>().unwrap().library();
    for (how, revision) in [
        ("--pack 2", "packs/1"),
        ("--pack 2 --results objects", "packs/2"),
        ("--block 1MiB", "blocks/1"),
    ] {
        for delivery in DELIVERIES {
            let (place, server) = Place::with_server().await;
            for (name, bytes) in [("a", 10), ("b", 10), ("large", 1024 * 1024 + 1)] {
                write(&place.path("in").join(name), &vec![0; bytes]);
            }
            let old = ServiceStats {
                pool: "default".to_owned(),
                slots: 1,
                codecs: vec![format!("gzip={library}")],
                ..ServiceStats::default()
            };
            let by_hand =
                Broker::connect(&Address::plain(server.url()), Role::Worker).await.unwrap();
            let _old = Service::start(&by_hand, HashMap::new(), move || old.clone()).await.unwrap();
            let at = format!("--server {}", server.url());
            let run = format!("run in --out out --name t -q {how} --delivery {delivery} {at}");
            let run = place.spawn(&run);
            let none = format!("1 workers connected, none knows {revision},");
            let says = || run.stderr().contains(&none).then_some(());
            place.until("the gatherer says that no worker fits", says).await;
            let bag = format!("{} {at}", run_of("t", how));
            until_status(&place, "status says so too", &bag, |bag| {
                bag["why"].as_str()?.contains(&none).then_some(())
            })
            .await;
            let _worker = place.worker(&server);
            run.ended(&place).await.with_code(0);
        }
    }
}

/// Waits for an offer, as an idle slot does.
async fn next_offer(offers: &mut Membership) -> Offer {
    loop {
        if offers.members() == 0 {
            offers.enter(1).await.unwrap();
        }
        if let Offered::Offer(offer) = offers.receive().await {
            return offer;
        }
    }
}

/// CLOSE was answered *durable*; when the outcome comes, the part file is gone.
#[tokio::test]
async fn an_output_whose_bytes_are_lost_behind_its_close_is_offered_again() {
    const BYTES: usize = 64 * 1024;
    let (place, server) = Place::with_server().await;
    let by_hand = Broker::connect(&Address::plain(server.url()), Role::Worker).await.unwrap();
    let holder =
        Holder { worker: "by-hand".to_owned(), host: "here".to_owned(), pid: std::process::id() };
    let mut offers = Membership::join(&by_hand, &Pool::default(), holder).await.unwrap();
    let bag = format!("--tasks 1 --bytes {BYTES} --codec store --transfer wire --name t -q");
    let at = format!("--server {}", server.url());
    let run = place.spawn(&format!("run {bag} --delivery queue-group {at}"));
    let offer = next_offer(&mut offers).await;
    offer.take(0).await;

    let output = generated(DataKind::Random, 0, BYTES);
    let stager = Stager::new(&by_hand, Allowed::default());
    let opened = stager.open(offer.id(), offer.execution(), false).await.unwrap();
    let Permission::Go(grant) = opened else { panic!("{opened:?}") };
    let (sender, chunks) = mpsc::channel(1);
    sender.try_send(Bytes::copy_from_slice(&output)).unwrap();
    drop(sender);
    let upload = stager.upload(&grant, chunks).await.unwrap();
    upload.close(BYTES as u64, &Digest::of(&output)).await.unwrap();
    let results = place.folder("t/staged/results");
    let part = part_folder(&results, &offer.id().bag).join(format!("0.0-{}", offer.execution()));
    fs::remove_file(&part).unwrap();
    let result = samples::done(offer.id(), offer.execution(), &output, Where::Staged);
    let concluded = offer.conclude(&result, &CancellationToken::new()).await;
    assert!(matches!(concluded, Err(Error::Lost { .. })), "{concluded:?}");
    assert_eq!(outcomes(&place.folder("t/staged")).len(), 0);

    let _worker = place.worker(&server);
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), 1);
    assert_ne!(outcomes(&place.folder("t/staged"))[0]["execution"], offer.execution().as_str());
    place.run("verify runs/t/staged").await.with_code(0);
}
