//! compose.yaml on a container engine: `make test-compose` starts one, and runs these.

#![cfg(feature = "compose")] // no entry in Cargo.toml, as the image would be built of this file then
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a helper of a test may fail the test, and says why"
)]

mod cluster;
mod roles;

use cluster::{Cluster, docker};
use serde_json::Value;

/// The run folder that a summary names.
fn folder_of(summary: &str) -> &str {
    let line = summary.lines().find_map(|line| line.strip_prefix("folder"));
    line.unwrap_or_else(|| panic!("no folder in {summary}")).trim()
}

#[test]
fn the_bag_of_the_containers_is_done_and_verified_by_both_result_paths() {
    let cluster = Cluster::unchanged();
    for results in ["staged", "objects"] {
        let summary = cluster.run_bag(results);
        assert!(summary.contains("24/24, failed: 0, every output verified"), "{summary}");
        let folder = folder_of(&summary);
        assert!(folder.ends_with(results), "{folder}");
        let verified = cluster.compose(&format!("run --rm producer verify /{folder}"));
        verified.expect_code(0);
    }
    let bags = cluster.compose("run --rm observer status").expect_code(0).stdout;
    assert!(bags.matches("24/24 done, 0 failed").count() >= 2, "{bags}");
}

#[test]
fn the_workers_of_the_containers_have_zfp() {
    let cluster = Cluster::up();
    let bag = "--tasks 4 --bytes 64KiB --codec zfp:accuracy=1e-3 --data field --results objects";
    let run = format!("run --rm producer run {bag}");
    let summary = cluster.compose(&run).expect_code(0).stdout;
    assert!(summary.contains("4/4, failed: 0, every output verified"), "{summary}");
    assert!(summary.contains("largest error"), "{summary}");
}

/// A socket that listens, as the kernel lists it in hexadecimal: addresses are words of this machine's order.
fn is_beyond_loopback(socket: &str) -> bool {
    const LISTENS: &str = "0A";
    let fields: Vec<_> = socket.split_whitespace().collect();
    let loopback = ["0100007F:", "00000000000000000000000001000000:"];
    fields[3] == LISTENS && !loopback.iter().any(|address| fields[1].starts_with(address))
}

#[test]
fn nothing_of_the_containers_listens_beyond_the_loopback() {
    let _cluster = Cluster::up();
    let mut listening = 0;
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = std::fs::read_to_string(table).unwrap();
        let sockets: Vec<_> = table.lines().skip(1).collect();
        listening += sockets.iter().filter(|socket| socket.contains(":107E ")).count();
        let beyond: Vec<_> = sockets.iter().filter(|socket| is_beyond_loopback(socket)).collect();
        assert!(beyond.is_empty(), "{beyond:#?}");
    }
    assert!(listening > 0, "not even port 4222 is open: this looked at the wrong machine");
}

#[test]
fn no_container_can_write_outside_its_volumes_or_gain_a_right() {
    let cluster = Cluster::up();
    for service in ["init", "worker", "producer", "observer"] {
        let script = "touch /planted /usr/bin/planted /auth/*/planted; id -u; find / -name planted";
        assert_eq!(cluster.shell(service, script), "65532\n", "{service}");
    }
    for (service, container) in cluster.containers() {
        let host = &container["HostConfig"];
        assert_eq!(host["ReadonlyRootfs"], true, "{service}");
        assert_eq!(host["Privileged"], false, "{service}");
        assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]), "{service}");
        assert_eq!(host["SecurityOpt"], serde_json::json!(["no-new-privileges:true"]), "{service}");
        if service != "nats" {
            assert_eq!(host["CapAdd"], Value::Null, "{service}");
            assert_eq!(container["Config"]["User"], "65532:65532", "{service}");
        }
    }
}

#[test]
fn down_with_volumes_leaves_nothing() {
    let cluster = Cluster::up();
    cluster.compose("down --volumes").expect_code(0);
    for what in ["container ls --all --quiet", "volume ls --quiet"] {
        assert_eq!(docker(what, &[]).expect_code(0).stdout, "", "{what}");
    }
    let networks = docker("network ls --filter type=custom --quiet", &[]).expect_code(0).stdout;
    assert_eq!(networks, "");
}
