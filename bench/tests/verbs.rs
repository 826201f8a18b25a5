//! Each verb, at a size where no time means anything: what is checked is what is printed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// The program under measurement. `cargo test --workspace` has built it; alone, this package has not.
fn bagpress() -> Result<PathBuf> {
    static BUILD: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let path = Path::new(env!("CARGO_BIN_EXE_bagpress-bench")).with_file_name("bagpress");
    let _guard = BUILD.lock();
    if !path.is_file() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--package", "bagpress", "--bin", "bagpress"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        ensure!(build.status()?.success(), "bagpress cannot be built");
    }
    Ok(path)
}

fn bench(folder: &TempDir, arguments: &str) -> Result<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_bagpress-bench"))
        .args(arguments.split(' '))
        .arg("--json")
        .arg("--dir")
        .arg(folder.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments}: {}\n{said}", output.status);
    serde_json::from_slice(&output.stdout).context("read what was printed")
}

/// A verb that runs bags: also checks the raw lines, and that nothing is left behind.
fn bench_bags(arguments: &str, raw_lines: usize) -> Result<Value> {
    let folder = TempDir::new()?;
    let raw = folder.path().join("raw.jsonl");
    let (program, file) = (bagpress()?, raw.display());
    let arguments = format!("{arguments} --bagpress {} --raw {file}", program.display());
    let printed = bench(&folder, &arguments)?;
    let raw = std::fs::read_to_string(&raw)?;
    let lines: Vec<Value> = raw.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(lines.len(), raw_lines);
    assert!(lines.iter().all(|line| positive(&line["makespan_ms"])), "{raw}");
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 1, "only the raw file stays");
    Ok(printed)
}

fn positive(number: &Value) -> bool {
    number.as_f64().is_some_and(|number| number > 0.0)
}

#[test]
fn limit_measures_both_limits() -> Result<()> {
    let folder = TempDir::new()?;
    for data in ["random", "text", "zeros"] {
        let arguments =
            format!("limit --tasks 5 --bytes 300KiB --threads 2 --runs 2 --data {data}");
        let printed = bench(&folder, &arguments)?;
        for limit in ["codec-limit", "limit"] {
            let makespans = printed[limit]["makespans_ms"].as_array().context("no makespans")?;
            assert!(makespans.len() == 2 && makespans.iter().all(positive), "{printed}");
        }
        // Both made the same outputs.
        assert_eq!(printed["codec-limit"]["output_bytes"], printed["limit"]["output_bytes"]);
    }
    Ok(())
}

#[test]
fn overhead_compares_four_systems() -> Result<()> {
    let arguments = "overhead --tasks 3 --bytes 100KiB --data text --workers 1 --runs 2";
    let printed = bench_bags(arguments, 8)?;
    let rows = printed["rows"].as_array().context("no rows")?;
    let systems: Vec<_> = rows.iter().map(|row| row["system"].as_str().unwrap()).collect();
    assert_eq!(systems, ["codec-limit", "limit", "staged", "objects"]);
    for row in rows {
        for ratio in ["warm_per_limit", "warm_per_codec_limit", "cold_per_limit"] {
            assert!(positive(&row[ratio]["median"]), "{row}");
            assert_eq!(row[ratio]["count"], 2);
        }
    }
    Ok(())
}

#[test]
fn compare_compresses_outputs_once_more_by_reference() -> Result<()> {
    let systems = "--systems objects,objects-queue-group --codec zlib:6 --then zstd:3";
    let arguments =
        format!("compare --tasks 3 --bytes 100KiB --data text --workers 2 --runs 1 {systems}");
    let folder = TempDir::new()?;
    let raw = folder.path().join("raw.jsonl");
    let arguments =
        format!("{arguments} --bagpress {} --raw {}", bagpress()?.display(), raw.display());
    let printed = bench(&folder, &arguments)?;
    for row in printed["rows"].as_array().context("no rows")? {
        assert!(positive(&row["warm_ms"]["median"]), "{row}");
        // The start of the broker and of the workers is in it.
        assert!(row["cold_ms"]["median"].as_f64() > row["warm_ms"]["median"].as_f64(), "{row}");
    }
    let raw = std::fs::read_to_string(&raw)?;
    let runs: Vec<Value> =
        raw.lines().skip(1).map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(runs.len(), 2, "{raw}");
    for run in runs {
        let command = run["command"].as_str().context("no command")?;
        assert!(command.contains("--refs first/objects/results --codec zstd:3"), "{command}");
        assert_eq!(
            (&run["summary"]["tasks"], &run["summary"]["completed"]),
            (&3.into(), &3.into())
        );
    }
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 1, "only the raw file stays");
    Ok(())
}

#[cfg(feature = "zfp")]
#[test]
fn compare_runs_arrays_by_our_ways_and_both_limits() -> Result<()> {
    let systems = "--systems staged,objects,codec-limit,limit --workers 1 --runs 1";
    let bag = "--tasks 2 --bytes 64KiB --codec zfp:accuracy=1e-3 --data field";
    let folder = TempDir::new()?;
    let program = bagpress()?;
    let arguments = format!("compare {bag} {systems} --bagpress {}", program.display());
    let printed = bench(&folder, &arguments)?;
    let rows = printed["rows"].as_array().context("no rows")?;
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row["data"], "field:f32,64x256", "{row}");
        assert!(positive(&row["warm_per_limit"]["median"]), "{row}");
    }
    Ok(())
}

#[test]
fn noop_counts_tasks_and_memory() -> Result<()> {
    let printed = bench_bags("noop --tasks 50,100 --workers 1 --runs 1", 2)?;
    let rows = printed["rows"].as_array().context("no rows")?;
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert!(positive(&row["tasks_per_s"]["median"]), "{row}");
        assert!(positive(&row["producer_peak_rss_mib"]["median"]), "{row}");
    }
    Ok(())
}

#[test]
fn kill_kills_a_worker_in_the_middle() -> Result<()> {
    for arguments in ["", " --server", " --server --delivery queue-group"] {
        let arguments = format!("kill --tasks 40 --bytes 1MiB --workers 2 --runs 1{arguments}");
        let printed = bench_bags(&arguments, 2)?;
        assert_eq!(printed["server"], arguments.contains("--server"));
        let delivery = if arguments.contains("queue") { "queue-group" } else { "jetstream" };
        assert_eq!(printed["delivery"], delivery, "{printed}");
        assert!(positive(&printed["with_ms"]["median"]), "{printed}");
        assert!(positive(&printed["ratio"]["median"]), "{printed}");
    }
    Ok(())
}

#[test]
fn kill_takes_a_file_too_whose_blocks_are_the_tasks() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("file");
    std::fs::File::create(&file)?.set_len(128 << 20)?;
    let arguments = format!("kill --input {} --tasks 16 --workers 2 --runs 1", file.display());
    let printed = bench_bags(&arguments, 2)?;
    assert_eq!(printed["tasks"], 16, "{printed}");
    assert!(positive(&printed["with_ms"]["median"]), "{printed}");
    Ok(())
}

#[test]
fn incompressible_compares_each_file_and_adds_up() -> Result<()> {
    let folder = TempDir::new()?;
    std::fs::create_dir(folder.path().join("below"))?;
    let noise = |bytes: usize| -> Vec<u8> {
        let next = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some((*state >> 56) as u8)
        };
        (0..bytes).scan(7, |state, _| next(state)).collect()
    };
    std::fs::write(folder.path().join("noise"), noise(300_000))?;
    std::fs::write(folder.path().join("below/text.txt"), "a line\n".repeat(20_000))?;
    std::os::unix::fs::symlink("noise", folder.path().join("link"))?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bagpress-bench"));
        command.arg("incompressible").arg(folder.path()).args(arguments).output()
    };
    let output = run(&["--json"])?;
    ensure!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout)?;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (sums, files) = lines.split_last().context("nothing was printed")?;
    assert_eq!(files.len(), 2, "the link is left out: {files:?}");
    for file in files {
        let name = file["file"].as_str().context("no name")?;
        let skipped = if name.ends_with("noise") { 300_000 } else { 0 };
        assert_eq!(file["skipped_bytes"], skipped, "{file}");
    }
    let sum = |key: &str| files.iter().filter_map(|file| file[key].as_u64()).sum::<u64>();
    for key in ["bytes", "skipped_bytes", "with_bytes", "without_bytes"] {
        assert_eq!(sums[key], sum(key), "{key}");
    }
    assert!(positive(&sums["look_ns_per_byte"]) && positive(&sums["compress_without_s"]), "{sums}");
    assert_eq!(sums["large_files"], 2);
    let text = String::from_utf8(run(&["--per-ending", "200kB"])?.stdout)?;
    assert!(text.contains("1 files, 140000 B"), "{text}");
    let refused = String::from_utf8(run(&["--codec", "zlib:6,full"])?.stderr)?;
    assert!(refused.contains("leave `,full` out"), "{refused}");
    Ok(())
}

/// The drill's own output, and its exit code.
fn drill(program: &Path, folder: &TempDir, arguments: &str) -> Result<(Value, Option<i32>)> {
    let output = Command::new(env!("CARGO_BIN_EXE_bagpress-bench"))
        .args(["drill", "--json", "--workers", "2", "--bagpress"])
        .arg(program)
        .arg("--dir")
        .arg(folder.path())
        .args(arguments.split(' '))
        .output()?;
    let verdict = serde_json::from_slice(&output.stdout);
    let verdict = verdict.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((verdict, output.status.code()))
}

#[test]
fn a_short_drill_loses_nothing_and_leaves_nothing() -> Result<()> {
    let folder = TempDir::new()?;
    let (verdict, code) = drill(&bagpress()?, &folder, "--faults 20 --seed 7")?;
    for count in ["lost", "doubled", "unreadable", "failed", "stuck", "unnoticed"] {
        assert_eq!(verdict[count], 0, "{verdict:#}");
    }
    assert_eq!(verdict["good"], true, "{verdict:#}");
    assert_eq!(code, Some(0));
    let by_kind = &verdict["by_kind"];
    let total =
        |of: &Value| of.as_object().into_iter().flatten().filter_map(|n| n.1.as_u64()).sum();
    let counts: [u64; 3] = ["hit", "left_out", "missed"].map(|what| total(&by_kind[what]));
    assert_eq!(counts.iter().sum::<u64>(), 20, "{by_kind}");
    assert!(counts[0] >= 15 && verdict["bags"].as_u64() >= Some(2), "{verdict:#}");
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 0, "nothing stays");
    Ok(())
}

#[test]
fn a_drill_sees_an_output_that_is_lost_behind_everybodys_back() -> Result<()> {
    let folder = TempDir::new()?;
    let thief = folder.path().join("thief");
    // It does as it is told, and takes an output of its bag away when that is complete: the outputs of
    // another may be being looked at. What is killed must be the program, not a shell above it.
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" != run ]; then exec \"{0}\" \"$@\"; fi\n\"{0}\" \"$@\" || exit\n\
         while [ \"$1\" != --name ]; do shift; done\n\
         rm -f {1}/drill-*/runs/\"$2\"/staged/results/out_3.bin\n\
         find {1}/drill-*/runs/\"$2\"-out -type f -name '[0-9]*.txt*' -delete\n",
        bagpress()?.display(),
        folder.path().display()
    );
    std::fs::write(&thief, script)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&thief, mode)?;
    let (verdict, code) = drill(&thief, &folder, "--faults 3 --seed 3")?;
    assert_eq!(code, Some(1));
    assert_eq!(verdict["good"], false);
    assert!(verdict["lost"].as_u64() >= Some(1), "{verdict:#}");
    let kept = Path::new(verdict["kept"].as_str().context("nothing was kept")?);
    assert!(kept.join("logs").is_dir() && kept.join("kept").is_dir(), "{verdict:#}");
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_plan() -> Result<()> {
    let plan = |seed: &str| -> Result<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bagpress-bench"));
        let output =
            command.args(["drill", "--plan", "--faults", "40", "--seed", seed]).output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    assert_eq!(plan("7")?, plan("7")?);
    assert_ne!(plan("7")?, plan("8")?);
    let lines: Vec<Value> =
        plan("7")?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(lines.iter().filter(|line| line["kind"].is_string()).count(), 40);
    assert_eq!(lines.iter().filter(|line| line["inputs"].is_object()).count(), 4);
    Ok(())
}

/// `bench/blocks.sh BYTES` of docs/benchmark.md, with smaller blocks of a smaller file.
#[test]
fn blocks_are_timed_against_gzip_and_every_output_is_compared() -> Result<()> {
    let folder = TempDir::new()?;
    let raw = folder.path().join("raw.jsonl");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("blocks.sh");
    let output = Command::new(script)
        .arg("3145729")
        .current_dir(folder.path())
        .envs([("ROUNDS", "1"), ("BLOCK", "1MiB"), ("WORKERS", "2")])
        .env("RAW", &raw)
        .env("BAGPRESS", bagpress()?)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout)?;
    assert!(printed.contains("3 MiB, 2 at a time, blocks 1MiB, 1 rounds"), "{printed}");
    let raw = std::fs::read_to_string(&raw)?;
    let lines: Vec<Value> = raw.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!((&lines[0]["input_bytes"], &lines[0]["block"]), (&3_145_729.into(), &"1MiB".into()));
    for system in ["blocks", "gzip"] {
        let run = lines.iter().find(|line| line["system"] == system).context("no such row")?;
        assert!(positive(&run["wall_ms"]) && positive(&run["output_bytes"]), "{raw}");
        assert!(printed.lines().any(|line| line.starts_with(system)), "{printed}");
    }
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 1, "only the raw file stays");
    Ok(())
}

#[test]
fn a_program_that_is_not_there_is_named_with_the_next_step() -> Result<()> {
    let folder = TempDir::new()?;
    let refused = bench(&folder, "noop --bagpress nowhere").unwrap_err().to_string();
    assert!(refused.contains("no nowhere: build it with `cargo build --release`"), "{refused}");
    Ok(())
}

/// `OPENED=yes bench/blocks.sh BYTES` of docs/benchmark.md: the readers of a large file, with a small one.
#[test]
fn a_file_of_blocks_is_opened_by_others_and_its_middle_is_restored() -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("blocks.sh");
    for (codec, rows) in [
        (
            "gzip:6",
            &["whole by gzip", "whole by Python's gzip", "64 KiB of the middle, by the run"][..],
        ),
        (
            "zstd:3",
            &["64 KiB of the middle, by the run", "64 KiB of the middle, by the file's table"],
        ),
    ] {
        let folder = TempDir::new()?;
        let raw = folder.path().join("raw.jsonl");
        let mut command = Command::new(&script);
        command.arg("5000000").current_dir(folder.path()).env("RAW", &raw).env("CODEC", codec);
        command.envs([("ROUNDS", "0"), ("OPENED", "yes"), ("BLOCK", "1MiB"), ("WORKERS", "2")]);
        let output = command.env("BAGPRESS", bagpress()?).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout)?;
        let lines = std::fs::read_to_string(&raw)?;
        let lines: Vec<Value> =
            lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        for what in rows {
            let line = lines.iter().find(|line| line["what"] == *what).context("no such row")?;
            assert!(positive(&line["read_bytes"]) && line["codec"] == codec, "{line}");
            assert!(printed.lines().any(|line| line.starts_with(what)), "{printed}");
        }
        let memory = lines.iter().find(|line| line["what"] == "most private memory");
        let memory = memory.context("no memory")?;
        assert!(positive(&memory["producer_MiB"]) && positive(&memory["worker_MiB"]), "{memory}");
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1, "only the raw file stays");
    }
    Ok(())
}
