//! Bags complete, by both result paths, whatever happens to the broker or the connection to it.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use bagpress_broker::limits::LEASE;
use bagpress_broker::server::find_program;
use bagpress_broker::testing::{NatsServer, eventually};
use rustix::process::Signal;

use crate::death::{BAG, TASKS, middle};
use crate::harness::{Place, SOON};
use crate::ledger::expect_each_done_once;
use crate::proxy::{Link, Proxy};

async fn a_link_that(fault: Link, lasts: Duration, delivery: &str, results: &str) {
    let (place, server) = Place::with_server().await;
    let proxy = Proxy::to(server.url()).await;
    let _behind = place.spawn(&format!("worker --slots 1 --server {}", proxy.url()));
    let _other = place.worker(&server);
    let how = format!("--delivery {delivery} --results {results} --server {}", server.url());
    let run = place.spawn(&format!("run {BAG} -q {how}"));
    let folder = place.folder(&format!("t/{results}"));
    middle(&place, &folder).await;
    proxy.set(fault);
    let since = Instant::now();
    place.until("the fault is over", || (since.elapsed() >= lasts).then_some(())).await;
    proxy.set(Link::Up);
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    let verify = format!("verify runs/t/{results} --server {}", server.url());
    place.run(&verify).await.with_code(0);
}

#[tokio::test]
async fn a_worker_cut_off_for_longer_than_its_lease_loses_nothing_of_a_staged_bag() {
    a_link_that(Link::Still, LEASE + Duration::from_secs(2), "jetstream", "staged").await;
}

#[tokio::test]
async fn a_worker_cut_off_for_longer_than_its_lease_loses_nothing_of_an_objects_bag() {
    a_link_that(Link::Still, LEASE + Duration::from_secs(2), "jetstream", "objects").await;
}

#[tokio::test]
async fn a_member_cut_off_for_longer_than_its_lease_loses_nothing_of_a_staged_bag() {
    a_link_that(Link::Still, LEASE + Duration::from_secs(2), "queue-group", "staged").await;
}

#[tokio::test]
async fn a_member_cut_off_for_longer_than_its_lease_loses_nothing_of_an_objects_bag() {
    a_link_that(Link::Still, LEASE + Duration::from_secs(2), "queue-group", "objects").await;
}

#[tokio::test]
async fn a_link_that_breaks_loses_nothing() {
    a_link_that(Link::Cut, Duration::from_secs(1), "jetstream", "staged").await;
    a_link_that(Link::Cut, Duration::from_secs(1), "jetstream", "objects").await;
}

#[tokio::test]
async fn a_link_of_a_member_that_breaks_loses_nothing() {
    a_link_that(Link::Cut, Duration::from_secs(1), "queue-group", "staged").await;
    a_link_that(Link::Cut, Duration::from_secs(1), "queue-group", "objects").await;
}

#[tokio::test]
async fn a_slow_link_loses_nothing() {
    let slow = Link::Slow(Duration::from_millis(100));
    a_link_that(slow, Duration::from_secs(4), "jetstream", "staged").await;
    a_link_that(slow, Duration::from_secs(4), "jetstream", "objects").await;
}

#[tokio::test]
async fn a_slow_link_of_a_member_loses_nothing() {
    let slow = Link::Slow(Duration::from_millis(100));
    a_link_that(slow, Duration::from_secs(4), "queue-group", "staged").await;
    a_link_that(slow, Duration::from_secs(4), "queue-group", "objects").await;
}

/// Three servers, the streams in three copies, and all of their addresses.
async fn cluster(place: &Place) -> ([NatsServer; 3], String) {
    let servers = Box::pin(NatsServer::cluster()).await;
    let urls = servers.each_ref().map(|server| server.url().to_owned()).join(",");
    let init = format!("broker --init --replicas 3 --max-file 2GiB --server {urls}");
    place.run(&init).await.with_code(0);
    (servers, urls)
}

async fn leader(url: &str, stream: &str) -> String {
    let context = jetstream::new(async_nats::connect(url).await.unwrap());
    eventually("the stream has a leader", SOON, async || {
        let stream = context.get_stream(stream).await.ok()?;
        let info = stream.cached_info();
        assert_eq!(info.config.num_replicas, 3, "{}", info.config.name);
        info.cluster.as_ref()?.leader.clone()
    })
    .await
}

async fn a_leader_that_is_killed(delivery: &str, results: &str) {
    let place = Place::new().await;
    let (mut servers, urls) = Box::pin(cluster(&place)).await;
    let _worker = place.spawn(&format!("worker --slots 1 --server {urls}"));
    let how = format!("--delivery {delivery} --results {results} --server {urls}");
    let run = place.spawn(&format!("run {BAG} -q {how}"));
    let folder = place.folder(&format!("t/{results}"));
    middle(&place, &folder).await;
    let name = leader(servers[0].url(), "BAG_TASKS").await;
    let victim = servers.iter_mut().find(|server| server.is_named(&name)).unwrap();
    victim.kill();
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&folder, TASKS);
    place.run(&format!("verify runs/t/{results} --server {urls}")).await.with_code(0);
}

#[tokio::test]
async fn a_cluster_whose_leader_is_killed_completes_a_staged_bag() {
    a_leader_that_is_killed("jetstream", "staged").await;
}

#[tokio::test]
async fn a_cluster_whose_leader_is_killed_completes_an_objects_bag() {
    a_leader_that_is_killed("jetstream", "objects").await;
}

#[tokio::test]
async fn a_cluster_that_loses_a_server_completes_a_queue_group_bag_of_files() {
    a_leader_that_is_killed("queue-group", "staged").await;
}

#[tokio::test]
async fn a_cluster_that_loses_a_server_completes_a_queue_group_bag_of_objects() {
    a_leader_that_is_killed("queue-group", "objects").await;
}

#[tokio::test]
async fn a_lame_duck_is_left_and_the_bag_goes_on() {
    a_lame_duck("jetstream").await;
}

#[tokio::test]
async fn a_lame_duck_is_left_by_members_and_the_bag_goes_on() {
    a_lame_duck("queue-group").await;
}

async fn a_lame_duck(delivery: &str) {
    let place = Place::new().await;
    let (servers, urls) = Box::pin(cluster(&place)).await;
    let _worker = place.spawn(&format!("worker --slots 1 --server {urls}"));
    let run = place.spawn(&format!("run {BAG} -q --delivery {delivery} --server {urls}"));
    middle(&place, &place.folder("t/staged")).await;
    let name = leader(servers[0].url(), "BAG_TASKS").await;
    let duck = servers.iter().find(|server| server.is_named(&name)).unwrap();
    duck.send(Signal::USR2);
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
}

#[tokio::test]
async fn a_program_that_an_update_replaced_still_starts_its_workers() {
    let place = Place::new().await;
    let program = place.path("bagpress");
    std::fs::copy(env!("CARGO_BIN_EXE_bagpress"), &program).unwrap();
    // Beside the original there is a server.
    let server = std::fs::canonicalize(find_program(None).unwrap().path).unwrap();
    let mut command = place.command(&program, &format!("run {BAG} --workers 2 -q"));
    command.env("BAGPRESS_NATS_SERVER", server);
    let run = place.start(command);
    middle(&place, &place.folder("t/staged")).await;
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "not a program").unwrap();
    let children = crate::process::children(run.pid());
    let victim = children.iter().find(|child| child.is_worker()).unwrap();
    crate::process::signal(victim.pid, Signal::KILL);
    let log = |number| {
        std::fs::read_to_string(place.folder(&format!("t/staged/logs/worker_{number}.log")))
            .unwrap_or_default()
    };
    place
        .until("the worker is started again", || {
            let starts = (0..2).map(|n| log(n).matches("worker started").count()).sum::<usize>();
            (starts == 3).then_some(())
        })
        .await;
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), TASKS);
}

#[tokio::test]
async fn a_durable_local_run_has_a_server_that_syncs_before_it_answers() {
    for (flags, sync) in [("--durability always", "always"), ("", "10s")] {
        let place = Place::new().await;
        let folder = place.folder("t/staged");
        let run = place.spawn(&format!("run {BAG} --workers 2 -q {flags}"));
        middle(&place, &folder).await;
        let config = std::fs::read_to_string(folder.join(".broker/server.conf")).unwrap();
        let settings: Vec<_> = config.split_whitespace().collect();
        let at = settings.iter().position(|word| *word == "sync_interval:").unwrap();
        assert_eq!(settings[at + 1].trim_matches('"'), sync, "{config}");
        run.ended(&place).await.with_code(0);
        expect_each_done_once(&folder, TASKS);
    }
}
