//! The comparison with peers, where none is installed: a stand-in takes the place of one, in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// It compresses the files that it is given, as pigz would, with Python's zlib; `SPOILED` is put before every input.
const STAND_IN: &str = r#"#!/usr/bin/env python3
import gzip, os, pathlib, sys, time
if sys.argv[1] == "version":
    print("stand-in 1.0")
    sys.exit()
began = time.monotonic()
for task in range(int(os.environ["TASKS"])):
    data = pathlib.Path(os.environ["INPUTS"], f"in_{task}").read_bytes()
    assert len(data) == int(os.environ["BYTES"])
    packed = gzip.compress(SPOILED + data, int(os.environ["LEVEL"]))
    pathlib.Path(os.environ["FOLDER"], "results", f"out_{task}.gz").write_bytes(packed)
print('{"makespan_ms":%.3f,"extra_ms":0}' % ((time.monotonic() - began) * 1e3))
"#;

/// A folder of peers in which `pigz.sh` is the stand-in.
fn stand_in(spoiled: &str) -> Result<TempDir> {
    let folder = TempDir::new()?;
    let program = folder.path().join("pigz.sh");
    fs::write(&program, STAND_IN.replace("SPOILED", spoiled))?;
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    Ok(folder)
}

/// A copy of our peers, beside which nothing was installed.
fn uninstalled() -> Result<(TempDir, PathBuf)> {
    let folder = TempDir::new()?;
    let peers = folder.path().join("bench/peers");
    fs::create_dir_all(&peers)?;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers"))? {
        let entry = entry?;
        fs::copy(entry.path(), peers.join(entry.file_name()))?;
    }
    Ok((folder, peers))
}

fn bench(arguments: &[&str], peers: &Path) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bagpress-bench"));
    // None of ours runs, so any file stands for it.
    if arguments[0] == "compare" {
        command.arg("compare").arg("--bagpress").arg(env!("CARGO_BIN_EXE_bagpress-bench"));
        command.args(["--runs", "2"]).args(&arguments[1..]);
    } else {
        command.args(arguments);
    }
    Ok(command.arg("--peers").arg(peers).output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn raw_lines_say_machine_versions_and_commands_and_no_path() -> Result<()> {
    let (peers, folder) = (stand_in("b''")?, TempDir::new()?);
    let at = folder.path().to_str().context("a path in ASCII")?;
    let raw = folder.path().join("raw");
    let arguments = ["--tasks", "3", "--bytes", "5000", "--workers", "2", "--json", "--dir", at];
    let mut all =
        vec!["compare", "--systems", "pigz,codec-limit", "--raw", raw.to_str().context("ASCII")?];
    all.extend(arguments);
    let output = bench(&all, peers.path())?;
    ensure!(output.status.success(), "{}", said(&output));
    let text = fs::read_to_string(&raw)?;
    assert!(!text.contains(at) && !text.contains(env!("CARGO_MANIFEST_DIR")), "{text}");
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (about, runs) = lines.split_first().context("no lines")?;
    assert_eq!(about["versions"]["pigz"], serde_json::json!(["stand-in 1.0"]));
    for key in ["cpu", "cores", "memory_mib", "kernel", "system"] {
        assert!(!about["platform"][key].is_null(), "{about}");
    }
    let order: Vec<_> = runs.iter().filter_map(|run| run["system"].as_str()).collect();
    assert_eq!(order, ["codec-limit", "pigz", "pigz", "codec-limit"], "rounds are interleaved");
    for run in runs {
        assert_eq!((&run["verb"], &run["workers"]), (&"compare".into(), &2.into()));
        assert!(
            run["makespan_ms"].as_f64() > Some(0.0) && run["cold_ms"].as_f64() > Some(0.0),
            "{run}"
        );
        assert!(run["others_busy"].is_number() && run["load_1min"].is_number(), "{run}");
    }
    let command = runs[1]["command"].as_str().context("no command")?;
    assert!(
        command.starts_with("TASKS=3 BYTES=5000 WORKERS=2 LEVEL=6 DATA=random KEY="),
        "{command}"
    );
    assert!(
        command.ends_with("CODEC=zlib:6 BAGS=2 FOLDER=DIR INPUTS=DIR bench/peers/pigz.sh run"),
        "{command}"
    );
    assert_eq!(fs::read_dir(folder.path())?.count(), 1, "only the raw file stays");
    Ok(())
}

#[test]
fn an_output_of_another_input_ends_the_comparison() -> Result<()> {
    let (peers, folder) = (stand_in("b'x'")?, TempDir::new()?);
    let at = folder.path().to_str().context("a path in ASCII")?;
    let arguments =
        ["compare", "--systems", "pigz", "--tasks", "2", "--bytes", "5000", "--dir", at];
    let output = bench(&arguments, peers.path())?;
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("run pigz: the output of task 0 is not of its input"), "{said}");
    Ok(())
}

#[test]
fn a_peer_that_is_not_installed_is_said_with_what_installs_it() -> Result<()> {
    let (_folder, peers) = uninstalled()?;
    for system in ["pool", "xargs", "work_queue", "ray"] {
        for arguments in [vec!["compare", "--systems", system], vec!["peer", system, "--name", "t"]]
        {
            let output = bench(&arguments, &peers)?;
            let said = said(&output);
            assert!(!output.status.success() && output.stdout.is_empty(), "{system}: {said}");
            assert!(
                said.contains("`make bench-peers`") && said.contains(" here"),
                "{system}: {said}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_system_without_the_codec_is_refused_if_it_is_named_and_left_out_if_not() -> Result<()> {
    let named = |system: &str, words: &[&str]| -> Result<String> {
        let all = [&["compare", "--systems", system][..], words].concat();
        let output = bench(&all, Path::new("nowhere"))?;
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        Ok(said(&output))
    };
    for (system, words, why) in [
        ("pigz", &["--codec", "zstd:3"][..], "pigz has no row: it does not compress with zstd"),
        ("xargs-zstd", &[], "xargs-zstd has no row: it does not compress with deflate"),
        ("pool", &["--codec", "zstd:3,long"], "peers have a level of zstd and nothing else"),
        ("staged", &["--then", "zstd:3"], "staged has no row: it compresses no outputs once more"),
    ] {
        let said = named(system, words)?;
        assert!(said.contains(why), "{said}");
    }
    let (peers, folder) = (stand_in("b''")?, TempDir::new()?);
    let at = folder.path().to_str().context("a path in ASCII")?;
    let output = bench(&["compare", "--tasks", "2", "--bytes", "5000", "--dir", at], peers.path())?;
    // Ours are not run by this stand-in, but what has no row was said before.
    let said = said(&output);
    assert!(
        said.contains("note: xargs-zstd has no row: it does not compress with deflate"),
        "{said}"
    );
    assert!(said.contains("note: ray has no row") && !said.contains("note: pigz"), "{said}");
    Ok(())
}

#[test]
fn a_system_that_there_is_not_is_said_with_those_there_are() -> Result<()> {
    let output = bench(&["compare", "--systems", "staged,daks"], Path::new("nowhere"))?;
    let said = said(&output);
    assert!(
        said.contains("no system is named \"daks\"; there are codec-limit, limit, staged"),
        "{said}"
    );
    let output = bench(&["peer", "staged", "--name", "t"], Path::new("nowhere"))?;
    assert!(String::from_utf8_lossy(&output.stderr).contains("staged is no peer"), "{output:?}");
    Ok(())
}

#[test]
fn a_run_folder_that_is_there_is_left_alone() -> Result<()> {
    let (peers, folder) = (stand_in("b''")?, TempDir::new()?);
    let runs = folder.path().to_str().context("a path in ASCII")?;
    let arguments =
        ["peer", "pigz", "--tasks", "2", "--bytes", "5000", "--runs", runs, "--name", "t"];
    let first = bench(&arguments, peers.path())?;
    ensure!(first.status.success(), "{}", said(&first));
    let printed = String::from_utf8(first.stdout)?;
    assert!(printed.contains("2/2, failed: 0, every output checked afterwards"), "{printed}");
    let made = folder.path().join("t/pigz");
    assert_eq!(fs::read_to_string(made.join("summary.txt"))?, printed);
    let mut left: Vec<_> = fs::read_dir(&made)?.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["pigz.log", "results", "summary.txt"]);
    let again = bench(&arguments, peers.path())?;
    assert!(!again.status.success() && said(&again).contains("take another name"), "{again:?}");
    Ok(())
}

#[test]
fn scripts_say_how_they_are_used() -> Result<()> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (script, usage) in [
        ("run_work_queue.sh", "usage: bench/run_work_queue.sh TASKS BYTES WORKERS NAME"),
        ("run_ray.sh", "usage: bench/run_ray.sh TASKS BYTES WORKERS NAME"),
        ("run_staged.sh", "usage: bench/run_staged.sh TASKS BYTES WORKERS NAME"),
        ("run_objects.sh", "usage: bench/run_objects.sh TASKS BYTES WORKERS NAME"),
        ("files.sh", "usage: bench/files.sh DIR..."),
        ("blocks.sh", "usage: bench/blocks.sh BYTES [FOLDER]"),
    ] {
        let output = Command::new(scripts.join(script)).output()?;
        assert_eq!(output.status.code(), Some(2), "{script}");
        assert!(said(&output).starts_with(usage), "{script}: {}", said(&output));
    }
    Ok(())
}
