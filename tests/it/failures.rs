//! What failed is listed when a bag is over: by name, with its cause, and all of it where scripts look.

use std::fs;

use serde_json::Value;

use crate::harness::Place;

/// More than a summary lists.
const FILES: usize = 25;

/// Moves some of the files away, or back to where they were.
fn move_files(place: &Place, numbers: std::ops::Range<usize>, from: &str, to: &str) {
    for number in numbers {
        let name = format!("goes {number:02}");
        fs::rename(place.path(from).join(&name), place.path(to).join(&name)).unwrap();
    }
}

/// Runs a bag of files that all are gone before a worker asks for them, and one that is there.
async fn bag_that_fails(place: &Place, words: &str, at: &str) -> crate::harness::Ended {
    fs::create_dir(place.path("in")).unwrap();
    fs::create_dir(place.path("away")).unwrap();
    fs::write(place.path("in/stays"), "stays").unwrap();
    for number in 0..FILES {
        fs::write(place.path(&format!("in/goes {number:02}")), "goes").unwrap();
    }
    let run = place.spawn(&format!("run in --out out --name t {words} {at}"));
    let ledger = place.folder("t/staged/manifest.jsonl");
    place.until("the bag is gathered", || ledger.is_file().then_some(())).await;
    move_files(place, 0..FILES, "in", "away");
    let _worker = place.spawn(&format!("worker --slots 1 {at}"));
    run.ended(place).await.with_code(1)
}

#[tokio::test]
async fn the_first_failed_files_are_listed_and_all_are_in_a_file() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let ended = bag_that_fails(&place, "-q", &at).await;
    let listed: Vec<_> = ended.stdout.lines().filter(|l| l.starts_with("failed task")).collect();
    assert_eq!(listed.len(), 20, "{ended:?}");
    for line in listed {
        assert!(line.contains("input-missing") && line.contains("/in/goes "), "{line}");
    }
    assert!(ended.stdout.contains("and 5 more, all in runs/t/staged/failed.txt"), "{ended:?}");
    assert!(ended.stderr.contains("error: 25 of 26 tasks failed"), "{ended:?}");
    let again = format!("hint: bagpress gather runs/t/staged --retry-failed {at}\n");
    assert!(ended.stderr.contains(&again), "{ended:?}");

    let path = place.folder("t/staged/failed.txt");
    let failed = fs::read_to_string(&path).unwrap();
    assert_eq!(failed.lines().count(), FILES, "{failed}");
    for line in failed.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [index, cause, input, message] = fields[..] else { panic!("{line}") };
        index.parse::<u32>().unwrap();
        assert_eq!(cause, "input-missing");
        assert!(input.starts_with('\'') && input.contains("/in/goes "), "{line}");
        assert!(message.contains("No such file"), "{line}");
    }

    // Some of them are there again.
    move_files(&place, 0..FILES - 2, "away", "in");
    let _worker = place.worker(&server);
    let json = format!("gather runs/t/staged --retry-failed --json -q {at}");
    let summary: Value = serde_json::from_str(&place.run(&json).await.stdout).unwrap();
    let failures = summary["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 2, "{summary}");
    assert!(failures.iter().all(|failure| failure["path"].as_str().is_some()), "{summary}");
    let failed = fs::read_to_string(&path).unwrap();
    assert_eq!(failed.lines().count(), failures.len(), "{failed}");
    place.run(&format!("rm runs/t/staged {at}")).await.with_code(0);
    assert!(!place.path("runs/t").exists());
}

#[tokio::test]
async fn all_failed_files_are_in_the_json_and_none_stay_when_none_fail() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let ended = bag_that_fails(&place, "-q --json", &at).await;
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(summary["failures"].as_array().unwrap().len(), FILES, "{summary}");
    assert!(place.folder("t/staged/failed.txt").is_file());
    move_files(&place, 0..FILES, "away", "in");
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/t/staged --retry-failed -q {at}")).await.with_code(0);
    assert!(!place.folder("t/staged/failed.txt").exists());
}

#[tokio::test]
async fn run_says_that_a_bag_goes_on_when_tasks_fail() {
    let place = Place::new().await;
    let help = place.run("run --help").await.with_code(0).stdout;
    for word in ["A bag continues when tasks fail", "failed.txt", "--max-fails"] {
        assert!(help.contains(word), "{help}");
    }
}

/// A place for outputs that is full is no fault of the broker's, and takes nothing from the bag.
#[tokio::test]
async fn a_summary_that_cannot_be_printed_is_written_all_the_same() {
    let place = Place::new().await;
    let script = format!(
        "{} run --tasks 2 --bytes 1KiB --workers 1 --name t -q >/dev/full",
        env!("CARGO_BIN_EXE_bagpress")
    );
    let mut command = place.command(std::path::Path::new("/bin/sh"), "-c");
    command.arg(script);
    let ended = place.finish(command).await.with_code(2);
    assert!(ended.stderr.contains("stdout cannot be written: No space left"), "{ended:?}");
    let summary = fs::read_to_string(place.folder("t/staged/summary.txt")).unwrap();
    assert!(summary.contains("2/2, failed: 0"), "{summary}");
}

#[tokio::test]
async fn no_colours_where_there_is_no_terminal() {
    let (place, server) = Place::with_bare_server().await;
    let mut command =
        place.bagpress(&format!("status --connect-timeout 0s --server {}", server.url()));
    command.env("BAGPRESS_LOG", "debug");
    let ended = place.finish(command).await.with_code(3);
    assert!(ended.stderr.contains("DEBUG"), "{ended:?}");
    assert!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
}

/// What is said of failed tasks when the bag ends is said when it is verified, too.
#[tokio::test]
async fn no_name_that_is_too_long_or_taken_is_only_to_be_run_again() {
    let place = Place::new().await;
    fs::create_dir(place.path("in")).unwrap();
    fs::write(place.path("in").join("n".repeat(254)), "a file").unwrap();
    let run = "run in --out out --workers 1 -q --name";
    let ended = place.run(&format!("{run} t")).await.with_code(1);
    let verified = place.run("verify runs/t/staged").await.with_code(1);
    for told in [ended, verified] {
        assert!(told.stderr.contains("rename it"), "{told:?}");
        assert!(!told.stderr.contains("--retry-failed"), "{told:?}");
    }
    fs::remove_dir_all(place.path("in")).unwrap();
    fs::create_dir(place.path("in")).unwrap();
    fs::write(place.path("in/a"), "a file").unwrap();
    fs::create_dir_all(place.path("out/in/a.gz")).unwrap();
    let ended = place.run(&format!("{run} u --update")).await.with_code(1);
    let verified = place.run("verify runs/u/staged").await.with_code(1);
    for told in [ended, verified] {
        assert!(told.stderr.contains("output-exists is done once the file"), "{told:?}");
        assert!(told.stderr.contains("gather runs/u/staged --retry-failed"), "{told:?}");
    }
    fs::remove_dir(place.path("out/in/a.gz")).unwrap();
    place.run("gather runs/u/staged --retry-failed --workers 1 -q").await.with_code(0);
}
