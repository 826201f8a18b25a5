//! What is said of a large file while it is done in part.

use rustix::process::Signal;
use serde_json::Value;

use crate::blocks::{RUN, expect_done, large_of, some_blocks};
use crate::control::{bag_of, status, until_status};
use crate::harness::Place;
use crate::ledger::outcomes;

const BLOCKS: u64 = 24;
const MIB: u64 = 1024 * 1024;

fn bytes(bag: &Value) -> [u64; 3] {
    ["input_bytes", "block_bytes", "total_bytes"].map(|name| bag[name].as_u64().unwrap())
}

/// How many blocks are done of a bag that no worker has: the last results may still be on their way into the ledger.
async fn all_but_waiting(place: &Place, at: &str) -> u64 {
    let folder = place.folder("t/staged");
    until_status(place, "the rest waits", &format!("runs/t/staged {at}"), |bag| {
        let done = outcomes(&folder).len() as u64;
        (done + bag["waiting"].as_u64()? == BLOCKS).then_some(done)
    })
    .await
}

#[tokio::test]
async fn a_bag_of_one_large_file_moves_with_its_blocks() {
    let (place, server) = Place::with_server().await;
    let (total, folder) = ((BLOCKS - 1) * MIB + 5, place.folder("t/staged"));
    large_of(&place, usize::try_from(BLOCKS).unwrap());
    let at = format!("--server {}", server.url());
    let worker = place.spawn(&format!("worker --slots 1 --allow / {at}"));
    let run = place.spawn(&format!("run in {RUN} {at}"));
    some_blocks(&place, &folder, 2).await;
    let id = bag_of(&place, "t/staged");
    for named in ["runs/t/staged", &id] {
        until_status(&place, "some of it is done", &format!("{named} {at}"), |bag| {
            let [input, block, of] = bytes(bag);
            assert_eq!((input, of), (0, total), "{bag}");
            (block >= 2 * MIB && bag["eta_s"].as_u64()? > 0).then_some(())
        })
        .await;
    }
    let running =
        until_status(&place, "a block is running", &format!("runs/t/staged 0 {at}"), |task| {
            let blocks = &task["blocks"];
            let running = blocks["running"].as_array()?.first()?.as_u64()?;
            assert_eq!((&task["state"], &blocks["blocks"]), (&"running".into(), &BLOCKS.into()));
            Some((running, blocks["done"].as_u64()?))
        })
        .await;
    assert!(running.0 < BLOCKS && running.1 >= 2, "{running:?}");

    // Without a worker it stands still.
    worker.signal(Signal::TERM);
    worker.ended(&place).await.with_code(0);
    let done = all_but_waiting(&place, &at).await;
    assert!(done < BLOCKS, "the worker was too fast");
    for where_it_is in [at.as_str(), ""] {
        let bag = status(&place, &format!("runs/t/staged {where_it_is}")).await.unwrap();
        assert_eq!(bytes(&bag), [0, done * MIB, total], "{bag}");
    }
    let told = place.run(&format!("status runs/t/staged 0 {at}")).await.with_code(0).stdout;
    let says = format!(
        "blocks: {done} of {BLOCKS} done, 0 failed, 0 with workers, {} waiting\n",
        BLOCKS - done
    );
    assert!(told.contains(&says), "{told}");
    let told = place.run("status runs/t/staged 0").await.with_code(0).stdout;
    assert!(told.contains(&format!("blocks: {done} of {BLOCKS} done, 0 failed\n")), "{told}");
    let percent = done * MIB * 100 / total;
    let told = place.run(&format!("status runs/t/staged {at}")).await.with_code(0).stdout;
    assert!(told.contains(&format!(" of 23.0 MiB, {percent} %\n")), "{told}");
    // The bag's line is written once a second.
    until_status(&place, "its line says so", &format!("{id} {at}"), |bag| {
        (bytes(bag) == [0, done * MIB, total]).then_some(())
    })
    .await;
    let told = place.run(&format!("status {at}")).await.with_code(0).stdout;
    assert!(told.contains(&format!("0/1 done, 0 failed, {percent} %  ")), "{told}");

    let _worker = place.spawn(&format!("worker --slots 1 --allow / {at}"));
    run.ended(&place).await.with_code(0);
    expect_done(&folder, 1);
    let bag = status(&place, &format!("runs/t/staged {at}")).await.unwrap();
    assert_eq!(bytes(&bag), [total, 0, total], "{bag}");
    let task = status(&place, &format!("runs/t/staged 0 {at}")).await.unwrap();
    assert_eq!((&task["state"], &task["blocks"]["done"]), (&"done".into(), &BLOCKS.into()));
    assert_eq!(task["blocks"]["running"], Value::Null);
}
