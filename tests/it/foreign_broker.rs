//! A broker that is not ours and whose disk filled: recognised, said, and the bag goes on once its keeper has
//! made room and restarted it.

use std::fs;
use std::net::TcpListener;

use bagpress_broker::server::find_program;
use rustix::process::Signal;

use crate::death::{BAG, TASKS, middle};
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, outcomes};
use crate::small_disk::OnSmallDisk;

const MIB: u64 = 1024 * 1024;

/// A nats-server whose `max_file` says nothing of its disk, as somebody else's may be.
fn foreign(place: &Place) -> (OnSmallDisk, String) {
    // Whoever restarts it needs the port again.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = place.path("store");
    let config = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\", max_file: 1GB }}\n",
        store.display()
    );
    fs::write(place.path("foreign.conf"), config).unwrap();
    let program = fs::canonicalize(find_program(None).unwrap().path).unwrap();
    let words = "--config foreign.conf";
    let server = OnSmallDisk::keep_running(place, "store", 64 * MIB, &program, words);
    (server, format!("nats://127.0.0.1:{port}"))
}

#[tokio::test]
async fn a_foreign_broker_whose_disk_filled_is_recognised_and_the_bag_goes_on_when_it_is_back() {
    let place = Place::new().await;
    let (server, url) = foreign(&place);
    place.until("it runs", || server.child("nats-server")).await;
    let listens = || std::net::TcpStream::connect(url.trim_start_matches("nats://")).ok();
    place.until("it listens", listens).await;
    place.run(&format!("broker --init --max-file 256MiB --server {url}")).await.with_code(0);
    let _worker = place.spawn(&format!("worker --slots 1 --server {url}"));
    let folder = place.folder("t/staged");
    let run = place.spawn(&format!("run {BAG} -q --server {url}"));
    middle(&place, &folder).await;
    server.fill(0);
    let says = || run.stderr().contains("answers but stores nothing").then_some(());
    place.until("it says that the broker stores nothing", says).await;
    assert!((outcomes(&folder).len() as u64) < TASKS, "the disk filled too late");

    // Room alone does not help: its keeper must start it again.
    server.make_room();
    let pid = place.until("it runs", || server.child("nats-server")).await;
    crate::process::signal(pid, Signal::KILL);
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    place.run("verify runs/t/staged").await.with_code(0);
}
