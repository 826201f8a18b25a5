//! One real short bag by every peer that is installed: `make test-peers`. Times mean nothing here; outputs do.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

const PEERS: [&str; 6] = ["pool", "xargs", "work_queue", "ray", "pigz", "zstd"];
const OF_ZSTD: [&str; 6] = ["pool", "xargs", "work_queue", "ray", "zstd", "xargs-zstd"];
const OF_ZFP: [&str; 5] = ["pool", "xargs", "work_queue", "ray", "xargs-zfp"];

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bagpress-bench"));
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    command.args(arguments).args(["--tasks", "3", "--bytes", "64KiB", "--peers"]).arg(peers);
    // What a busy machine does to its start is not what is tested.
    command.env("RAY_STARTS", "3");
    command
}

/// What one peer prints of a bag.
fn summary(peer: &str, codec: &str, data: &str) -> Result<String> {
    let folder = TempDir::new()?;
    let mut command = bench(&["peer", peer, "--workers", "2", "--name", "t"]);
    command.args(["--codec", codec, "--data", data, "--runs"]).arg(folder.path());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{peer}, {codec}, {data}: {said}");
    let summary = std::fs::read_to_string(folder.path().join("t").join(peer).join("summary.txt"))?;
    assert_eq!(summary.as_bytes(), output.stdout);
    Ok(summary)
}

#[test]
fn every_peer_makes_outputs_of_the_inputs_that_ours_are_of() -> Result<()> {
    let cases = [("zlib:6", &PEERS[..], &["random", "text"][..]), ("zstd:3", &OF_ZSTD, &["text"])];
    for (codec, peers, data) in cases {
        for peer in peers {
            for data in data {
                let summary = summary(peer, codec, data)?;
                assert!(
                    summary.contains("completed  ") && summary.contains("3/3, failed: 0"),
                    "{summary}"
                );
            }
        }
    }
    Ok(())
}

/// By every texture, type and mode that the peers' own generator and payload have.
#[cfg(feature = "zfp")]
#[test]
fn every_peer_of_arrays_makes_what_is_as_near_as_ours() -> Result<()> {
    for peer in OF_ZFP {
        for (codec, data) in [("zfp:accuracy=1e-3", "field"), ("zfp", "field-rough")] {
            let summary = summary(peer, codec, data)?;
            assert!(summary.contains("3/3, failed: 0"), "{summary}");
        }
    }
    for (codec, data) in [
        ("zfp:reversible", "field:i32,32x512"),
        ("zfp:reversible", "field-rough:i64,2x4x8x128"),
        ("zfp:accuracy=1e-9", "field-rough:f64,8192"),
        ("zfp:precision=20", "field:f32,16384"),
        ("zfp:rate=8", "field-constant:f32,16x32x32"),
    ] {
        for peer in ["pool", "xargs-zfp"] {
            summary(peer, codec, data)?;
        }
    }
    Ok(())
}

#[test]
fn references_are_compressed_once_more_by_ray() -> Result<()> {
    let folder = TempDir::new()?;
    let raw = folder.path().join("raw");
    let mut command = bench(&["compare", "--json", "--runs", "1", "--workers", "2"]);
    command.args(["--bagpress", env!("CARGO_BIN_EXE_bagpress-bench"), "--systems", "ray"]);
    command.args(["--codec", "zlib:6", "--then", "zstd:3", "--data", "text", "--dir"]);
    let output = command.arg(folder.path()).arg("--raw").arg(&raw).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::fs::read_to_string(&raw)?;
    assert!(lines.contains("CODEC=zlib:6 THEN=zstd:3 ") && lines.contains("zstandard "), "{lines}");
    Ok(())
}

#[test]
fn what_a_peer_leaves_is_what_the_rfc_names() -> Result<()> {
    let folder = TempDir::new()?;
    for (peer, artefacts) in [
        (
            "work_queue",
            &["logs/manager.log", "logs/worker_0.log", "logs/worker_1.log", "results/stats_2.json"]
                [..],
        ),
        ("ray", &["ray.log", "ray_results.json"]),
    ] {
        let mut command = bench(&["peer", peer, "--workers", "2", "--name", "test1"]);
        let output = command.arg("--runs").arg(folder.path()).output()?;
        ensure!(output.status.success(), "{peer}: {}", String::from_utf8_lossy(&output.stderr));
        let summary = String::from_utf8(output.stdout)?;
        for line in ["makespan", "completed", "task total_ms", "output/input", "folder"] {
            assert!(summary.lines().any(|said| said.starts_with(line)), "{line}: {summary}");
        }
        let left = folder.path().join("test1").join(peer);
        for artefact in artefacts {
            assert!(left.join(artefact).is_file(), "{peer} has no {artefact}");
        }
        let kept = |name: &str| left.join(name).exists();
        assert!(!kept("password") && !kept("workers") && !kept("port"), "{peer}");
    }
    Ok(())
}

#[test]
fn peers_are_compared_in_one_table() -> Result<()> {
    let folder = TempDir::new()?;
    let raw = folder.path().join("raw");
    let arguments = ["compare", "--json", "--runs", "1", "--workers", "2"];
    // Peers alone: none of ours runs, so any file stands for it.
    let mut command = bench(&arguments);
    command
        .args(["--bagpress", env!("CARGO_BIN_EXE_bagpress-bench")])
        .args(["--systems", &PEERS.join(",")]);
    command.arg("--dir").arg(folder.path()).arg("--raw").arg(&raw);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let rows = report["rows"].as_array().context("no rows")?;
    let systems: Vec<_> = rows.iter().filter_map(|row| row["system"].as_str()).collect();
    assert_eq!(systems, PEERS);
    for row in rows {
        assert!(row["warm_per_pool"]["median"].as_f64() > Some(0.0), "{row}");
        assert!(row["cold_ms"]["median"].as_f64() > Some(0.0), "{row}");
    }
    let lines = std::fs::read_to_string(&raw)?;
    assert_eq!(lines.lines().count(), 1 + PEERS.len(), "{lines}");
    Ok(())
}
