//! Bags of arrays, by zfp.

use std::fs;
use std::process::Output;

use bagpress_codec::{DataKind, Digest, Generator, Grid};

pub(crate) fn bagpress(folder: &std::path::Path, words: &str) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bagpress"));
    command.args(words.split(' ')).current_dir(folder).output().unwrap()
}

pub(crate) fn succeeds(folder: &std::path::Path, words: &str) -> String {
    let output = bagpress(folder, words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn field(grid: &str) -> Vec<u8> {
    let grid: Grid = grid.parse().unwrap();
    let kind: DataKind = format!("field:{grid}").parse().unwrap();
    let mut bytes = vec![0; usize::try_from(grid.bytes()).unwrap()];
    Generator::new(kind, 0, 0, grid.bytes()).fill(&mut bytes);
    bytes
}

#[test]
fn a_bag_of_fields_runs_by_every_way_and_is_restored_as_it_was_decoded() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let mut outputs = Vec::new();
    for (name, how) in [
        ("a", "--results staged"),
        ("b", "--results objects --get"),
        ("c", "--results staged --delivery queue-group"),
    ] {
        let words =
            "--tasks 4 --bytes 256KiB --codec zfp:accuracy=1e-3 --data field-rough --workers 2 -q";
        let said = succeeds(place, &format!("run {words} --name {name} {how}"));
        assert!(said.contains("largest error"), "{said}");
        let kind = if how.contains("objects") { "objects" } else { "staged" };
        let run = format!("runs/{name}/{kind}");
        succeeds(place, &format!("verify {run}"));
        let task = succeeds(place, &format!("status {run} 2"));
        assert!(task.contains("largest error") && task.contains("PSNR"), "{task}");
        succeeds(place, &format!("restore {run} --out back-{name} --name r{name} --workers 2 -q"));
        let output = fs::read(place.join(run).join("results/out_2.bin")).unwrap();
        let back = fs::read(place.join(format!("back-{name}/out_2.bin"))).unwrap();
        assert_eq!(back.len(), 256 << 10);
        outputs.push((output, Digest::of(&back)));
    }
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]), "the same by every way");
}

/// 1e30 often stands for *missing*, and nobody sees it in a smooth error.
#[test]
fn values_that_make_others_coarse_are_told_where_no_error_is_bounded() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    fs::create_dir(place.join("in")).unwrap();
    let mut missing = field("f32,16x64x64");
    fs::write(place.join("in/whole"), &missing).unwrap();
    missing[4096..4100].copy_from_slice(&1e30_f32.to_le_bytes());
    fs::write(place.join("in/missing"), &missing).unwrap();
    let run = "run in --workers 1 -q --dtype f32 --shape 16x64x64 --codec";
    for (mode, told) in [("precision=20", true), ("rate=16", true), ("reversible", false)] {
        let said = succeeds(place, &format!("{run} zfp:{mode} --name {} --out {mode}", &mode[..4]));
        assert_eq!(said.contains("coarse"), told, "{said}");
        assert_eq!(said.contains("1 of them have values up to 1.0000000150474662e30"), told);
    }
    let task = succeeds(place, "status runs/prec/staged 0");
    assert!(task.contains("values up to 1.0000000150474662e30 beside far smaller ones"), "{task}");
    let summary = fs::read(place.join("runs/rate/staged/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(summary["outliers"]["arrays"], 1);
}

#[test]
fn arrays_that_cannot_be_compressed_fail_by_name() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    fs::create_dir(place.join("in")).unwrap();
    let good = field("f32,8x9x10");
    let mut odd = good.clone();
    odd[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    for (name, bytes) in [("good", &good[..]), ("odd", &odd), ("short", &good[4..])] {
        fs::write(place.join("in").join(name), bytes).unwrap();
    }
    let arrays = "--dtype f32 --shape 8x9x10";
    for how in ["--pack 1", "--pack 8", "--results objects --pack 8"] {
        let name = how.replace([' ', '-'], "");
        let codec = "--codec zfp:accuracy=1e-3";
        let ran = bagpress(
            place,
            &format!("run in --out out-{name} --name {name} --workers 1 -q {codec} {arrays} {how}"),
        );
        let said = String::from_utf8_lossy(&ran.stdout);
        assert_eq!(ran.status.code(), Some(1), "{said}");
        assert!(said.contains("non-finite") && said.contains("shape-mismatch"), "{said}");
        assert!(said.contains("completed       1/3"), "{said}");
        let hints = String::from_utf8_lossy(&ran.stderr);
        assert!(hints.contains("docs/zfp.md") && !hints.contains("--retry-failed"), "{hints}");
    }
    let ran = bagpress(place, "run in --out out --name n --workers 1 -q --codec zfp");
    assert!(String::from_utf8_lossy(&ran.stdout).contains("array-unsupported"));
    let words = format!("run in --out whole --name whole --workers 1 -q --codec zfp {arrays}");
    assert_eq!(bagpress(place, &words).status.code(), Some(1), "one is short");
    succeeds(place, "restore whole --out back --name back --workers 1 -q");
    assert!(fs::read(place.join("back/whole/in/odd")).unwrap() == odd, "every bit");
    for (words, why) in [
        (format!("run in --out x --codec gzip {arrays}"), "gzip takes any bytes"),
        (format!("run in --out x --codec zfp {arrays} --block 8MiB"), "not cut"),
        (
            "run in --out x --codec zfp:accuracy=1 --dtype i32 --shape 3".to_owned(),
            "no mode of i32",
        ),
        ("run in --out x --codec zfp:fast".to_owned(), "use reversible"),
        ("run --tasks 1 --bytes 5 --codec zfp --data field".to_owned(), "not one value"),
    ] {
        let refused = bagpress(place, &words);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(2) && said.contains(why), "{words}: {said}");
    }
}

#[test]
fn arrays_and_other_files_are_tasks_of_one_list() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let array = field("f32,8x9x10");
    fs::write(place.join("array"), &array).unwrap();
    fs::write(place.join("text"), b"some text").unwrap();
    let list = r#"{"file":"array","codec":"zfp:accuracy=1e-3,f32,8x9x10"}
{"file":"text"}
{"file":"array","to":"same.zfp","codec":"zfp:reversible,f32,8x9x10"}
{"generate":{"data":"field:f64,4x5"},"codec":"zfp:accuracy=1e-3"}"#;
    fs::write(place.join("list"), list).unwrap();
    for how in ["--block 8MiB --pack 8", "--results objects"] {
        let name = if how.contains("objects") { "objects" } else { "staged" };
        let words = format!("--out out-{name} --name t --workers 1 -q {how}");
        let said = succeeds(place, &format!("run --from-jsonl list {words}"));
        assert!(said.contains("completed       4/4"), "{said}");
        succeeds(place, &format!("verify runs/t/{name} --inputs"));
        succeeds(place, &format!("restore runs/t/{name} --out back-{name} --workers 1 -q"));
        let back = |file: &str| fs::read(place.join(format!("back-{name}/{file}"))).unwrap();
        assert!(back("same") == array, "every bit");
        assert!(back("array").len() == array.len() && back("array") != array, "nearly");
        assert_eq!((back("text").as_slice(), back("out_3").len()), (&b"some text"[..], 160));
    }
    for (line, why) in [
        (r#"{"file":"array","codec":"zfp:raw"}"#, "zfp"),
        (r#"{"generate":{"data":"text","bytes":40},"codec":"zfp"}"#, "of what type and shape"),
        (
            r#"{"generate":{"data":"zeros","bytes":8},"codec":"zfp:reversible,f32,3"}"#,
            "has 12 bytes",
        ),
    ] {
        fs::write(place.join("bad"), line).unwrap();
        let refused = bagpress(place, "run --from-jsonl bad --out x");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(2) && said.contains(why), "{line}: {said}");
    }
    let removes = bagpress(place, "run --from-jsonl list --out x --remove-source");
    let said = String::from_utf8_lossy(&removes.stderr);
    assert!(said.contains("list:1: an output of zfp"), "{said}");
}

/// A range by a fixed rate: whatever is before and behind its layers may be anything, as nobody reads it.
#[test]
fn a_range_of_a_fixed_rate_reads_the_layers_that_have_it_and_no_more() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    fs::create_dir(place.join("in")).unwrap();
    fs::write(place.join("in/a"), field("f64,40x30x20")).unwrap();
    for (mode, said) in [
        ("rate=8", "read 2 of 10 parts; its format has no checksum to compare them with"),
        ("accuracy=1e-3", "read from the start: no index"),
    ] {
        let name = &mode[..4];
        let arrays = "--dtype f64 --shape 40x30x20";
        let run =
            format!("run in --out {name} --name {name} --workers 1 -q --codec zfp:{mode} {arrays}");
        succeeds(place, &run);
        succeeds(
            place,
            &format!("restore {name} --out {name}-back --name {name}-back --workers 1 -q"),
        );
        let whole = fs::read(place.join(format!("{name}-back/{name}/in/a")))
            .unwrap_or_else(|_| fs::read(place.join(format!("{name}-back/in/a"))).unwrap());
        let layer = 4 * 30 * 20 * 8;
        let range = 3 * layer + 5..4 * layer + 77;
        for of in [format!("runs/{name}/staged in/a"), format!("{name}/in/a.zfp")] {
            let words = format!(
                "restore {of} --range {}..{} --out part --overwrite",
                range.start, range.end
            );
            let ended = bagpress(place, &words);
            let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(ended.status.success() && stderr.contains(said), "{words}: {stderr}");
            assert!(fs::read(place.join("part")).unwrap() == whole[range.clone()], "{words}");
        }
        if mode == "rate=8" {
            let path = place.join("rate/in/a.zfp");
            let mut bytes = fs::read(&path).unwrap();
            let (length, each) = (bytes.len(), bytes.len() / 10);
            bytes[32..3 * each - 32].fill(0xa5);
            bytes[5 * each + 64..length].fill(0x5a);
            fs::write(&path, &bytes).unwrap();
            let words = format!(
                "restore rate/in/a.zfp --range {}..{} --out part --overwrite",
                range.start, range.end
            );
            succeeds(place, &words);
            assert!(fs::read(place.join("part")).unwrap() == whole[range.clone()]);
            // Of another length, it is not what its header says.
            fs::write(&path, [&bytes[..], &[0; 8]].concat()).unwrap();
            assert_eq!(bagpress(place, &words).status.code(), Some(1));
            fs::write(&path, &bytes[..length - 8]).unwrap();
            assert_eq!(bagpress(place, &words).status.code(), Some(1));
        }
    }
}
