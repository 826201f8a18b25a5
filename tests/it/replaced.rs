//! Outputs whose names a later run into the same folder has taken: they are no corruption, and no removal of the older bag
//! takes them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::control::bag_of;
use crate::harness::Place;
use crate::ledger::outcomes;
use crate::taken::{content, run_of};

const FILES: [&str; 3] = ["a", "b", "c"];

/// Two runs into one folder. Before the second, `a` was changed.
async fn two_runs(second: &str) -> Place {
    two_runs_by(second, "").await
}

/// The same, each by way `how`.
async fn two_runs_by(second: &str, how: &str) -> Place {
    let place = Place::new().await;
    fs::create_dir(place.path("in")).unwrap();
    for name in FILES {
        fs::write(place.path("in").join(name), name.repeat(1000)).unwrap();
    }
    let run = |more: &str| format!("run in --out out --workers 1 -q {how} {more}");
    place.run(&run("--name one")).await.with_code(0);
    fs::write(place.path("in/a"), "newer").unwrap();
    place.run(&run(&format!("--name two {second}"))).await.with_code(0);
    place
}

/// Takes the outcome of a task out of a ledger.
fn forget(folder: &Path, index: u32) {
    let (path, of) = (folder.join("manifest.jsonl"), format!(r#""index":{index},"#));
    let lines = fs::read_to_string(&path).unwrap();
    let others: Vec<_> = lines.lines().filter(|line| !line.contains(&of)).collect();
    assert_eq!(others.len() + 1, lines.lines().count());
    fs::write(path, others.join("\n") + "\n").unwrap();
}

#[tokio::test]
async fn verify_tells_what_a_later_run_replaced_from_what_is_corrupt() {
    let place = two_runs("--update").await;
    let newer = bag_of(&place, "two/staged");
    let verified = place.run("verify runs/one/staged").await.with_code(1);
    let line = format!("out/in/a.gz: an output of bag {newer} in runs/two/staged is there");
    assert!(verified.stdout.contains(&line), "{verified:?}");
    let counts = "2 good, 0 bad, 0 not done, 0 failed, 1 replaced\n";
    assert!(verified.stdout.ends_with(counts), "{verified:?}");
    let hint = "hint: bagpress verify runs/two/staged\n";
    assert!(verified.stderr.contains(hint), "{verified:?}");
    let repair = "hint: bagpress gather";
    assert!(!verified.stderr.contains(repair), "{verified:?}");
    place.run("verify runs/two/staged").await.with_code(0);

    // The file that the bag itself made, and another one that nobody knows.
    fs::write(place.path("out/in/b.gz"), "spoilt").unwrap();
    fs::remove_file(place.path("out/in/c.gz")).unwrap();
    fs::write(place.path("out/in/c.gz"), "mine").unwrap();
    let verified = place.run("verify runs/one/staged --json").await.with_code(1);
    assert!(verified.stderr.contains(repair), "{verified:?}");
    let found: Value = serde_json::from_str(&verified.stdout).unwrap();
    let of = |kind: &str| {
        let list = found[kind].as_array().unwrap().iter();
        list.map(|entry| entry[0].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (of("bad"), of("replaced")),
        (vec!["b.gz".into()], vec!["a.gz".into(), "c.gz".into()])
    );
    assert_eq!(found["replaced_by"][0]["bag"], newer);
}

#[tokio::test]
async fn repair_leaves_out_what_a_later_run_replaced_says_so_and_mends_the_rest() {
    for how in ["--results staged", "--results objects"] {
        let place = two_runs_by("--update", how).await;
        let (one, two) = (run_of("one", how), run_of("two", how));
        // The bag's own file, which is spoilt, and one that is gone.
        fs::write(place.path("out/in/b.gz"), "spoilt").unwrap();
        fs::remove_file(place.path("out/in/c.gz")).unwrap();
        let gather = format!("gather {one} --repair --workers 1 -q");
        let repaired = place.run(&gather).await.with_code(0);
        let note = format!(
            "note: 1 outputs are replaced, and are not made again: another file has the name, and is left alone; `bagpress verify {one}` names them"
        );
        assert!(repaired.stderr.contains(&note), "{how}: {repaired:?}");
        assert!(!repaired.stdout.contains("output-exists"), "{how}: {repaired:?}");
        let again: Vec<_> = outcomes(&place.path(&one))
            .iter()
            .filter(|outcome| outcome["round"] == 1)
            .map(|outcome| outcome["index"].as_u64())
            .collect();
        assert_eq!(again.len(), 2, "{how}: {again:?}");
        assert!(!again.contains(&Some(0)), "{how}: {again:?}");
        assert_eq!(content(&place.path("out/in/a.gz")), b"newer", "{how}");
        let verified = place.run(&format!("verify {one}")).await.with_code(1);
        let counts = "2 good, 0 bad, 0 not done, 0 failed, 1 replaced\n";
        assert!(verified.stdout.ends_with(counts), "{how}: {verified:?}");
        place.run(&format!("verify {two}")).await.with_code(0);
        // Once the other file was moved away, there is something to make again.
        fs::rename(place.path("out/in/a.gz"), place.path("a.gz")).unwrap();
        let gather = place.run(&format!("{gather} --retry-failed")).await;
        assert!(!gather.stderr.contains("are replaced"), "{how}: {gather:?}");
    }
}

#[tokio::test]
async fn rm_of_the_older_bag_leaves_outputs_of_a_later_one_whatever_was_done_before() {
    // What an anxious user does about a bad output, and what ends with an output of the same bytes, which the bag did not make.
    let forgotten = [("", 1), ("--retry-failed", 0)];
    for (before, forgets, removed) in [
        (&[][..], false, 2),
        (&[("--repair", 0), ("--retry-failed", 0)], false, 2),
        (&forgotten, true, 2),
    ] {
        let place = two_runs("--update").await;
        if forgets {
            forget(&place.folder("one/staged"), 0);
        }
        for (how, code) in before {
            let gather = format!("gather runs/one/staged {how} --workers 1 -q");
            place.run(&gather).await.with_code(*code);
        }
        let dry = place.run("rm runs/one/staged --outputs --dry-run --json").await.with_code(0);
        let ended = place.run("rm runs/one/staged --outputs --json").await.with_code(0);
        for told in [dry, ended] {
            let told: Value = serde_json::from_str(&told.stdout).unwrap();
            let counts = (&told["outputs"], &told["outputs_left"]);
            assert_eq!(counts, (&removed.into(), &1.into()), "{before:?}: {told}");
            let kept = told["kept"].to_string();
            assert!(kept.contains(&bag_of(&place, "two/staged")), "{kept}");
        }
        assert_eq!(content(&place.path("out/in/a.gz")), b"newer");
        assert!(!place.path("out/in/b.gz").exists());
        place.run("verify runs/two/staged").await.with_code(0);
    }
}

#[tokio::test]
async fn an_output_of_a_later_bag_stays_even_if_it_has_the_same_bytes() {
    let place = two_runs("--overwrite").await;
    let removed = place.run("rm runs/one/staged --outputs").await.with_code(0);
    assert!(
        removed.stdout.contains("3 outputs stay: they are not what this bag made"),
        "{removed:?}"
    );
    assert!(removed.stderr.contains("3 outputs of bag two-"), "{removed:?}");
    place.run("verify runs/two/staged").await.with_code(0);
    place.run("rm runs/two/staged --outputs").await.with_code(0);
    assert!(FILES.iter().all(|name| !place.path("out/in").join(format!("{name}.gz")).exists()));
}

/// A line that is written again from an output knows only what is in that file, not who made it.
#[tokio::test]
async fn a_ledger_that_was_rebuilt_makes_no_other_bags_output_its_own() {
    let place = two_runs("--overwrite").await;
    fs::remove_file(place.folder("one/staged/manifest.jsonl")).unwrap();
    place.run("gather runs/one/staged --repair --workers 1 -q").await;
    place.run("rm runs/one/staged --outputs").await.with_code(0);
    place.run("verify runs/two/staged").await.with_code(0);
}

/// Neither had an output there when it was made, and each counts the same file: the first of them made it.
#[tokio::test]
async fn a_file_that_two_bags_count_is_removed_with_neither() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    fs::write(place.path("a"), "a file").unwrap();
    for name in ["one", "two"] {
        place.run(&format!("submit a --out out --name {name} {at}")).await.with_code(0);
    }
    for name in ["one", "two"] {
        place.run(&format!("gather runs/{name}/staged -q {at}")).await.with_code(0);
    }
    let removed = place.run("rm runs/one/staged --outputs --folder-only").await.with_code(0);
    assert!(removed.stderr.contains("1 outputs of bag two-"), "{removed:?}");
    place.run(&format!("verify runs/two/staged {at}")).await.with_code(0);
    place.run("rm runs/two/staged --outputs --folder-only").await.with_code(0);
    assert!(!place.path("out/a.gz").exists());
}
