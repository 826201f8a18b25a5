//! A file that was moved or copied within its tree gets, in an update, the output that is there of its content, and never another's.

use std::fs;
use std::path::Path;

use bagpress_codec::DataKind;

use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, generated, outcomes};
use crate::taken::{content, run_of};
use crate::twins::summary;

const BYTES: usize = 200 * 1024;

/// Files of one size: `a`, `b` and `c`; and what each is.
fn tree(place: &Place) -> [Vec<u8>; 3] {
    let files = [0, 1, 2].map(|index| generated(DataKind::Text, index, BYTES));
    for (name, bytes) in ["a", "b", "c"].into_iter().zip(&files) {
        write(&place.path("in").join(name), bytes);
    }
    files
}

/// Moves `a`, copies `b`, and makes a new file of their size that has no byte of them.
fn change(place: &Place) -> [(&'static str, Vec<u8>); 3] {
    let bytes = |name: &str| fs::read(place.path("in").join(name)).unwrap();
    let (a, b, new) = (bytes("a"), bytes("b"), generated(DataKind::Text, 9, BYTES));
    fs::create_dir_all(place.path("in/deep")).unwrap();
    fs::rename(place.path("in/a"), place.path("in/deep/moved")).unwrap();
    write(&place.path("in/copied"), &b);
    write(&place.path("in/new"), &new);
    [("deep/moved", a), ("copied", b), ("new", new)]
}

fn expect_contents(place: &Place, files: &[(&str, Vec<u8>)], how: &str) {
    for (name, bytes) in files {
        let output = place.path(&format!("out/in/{name}.gz"));
        assert!(content(&output) == *bytes, "{how} {name}");
    }
}

/// How many outputs of a run are those of earlier runs, by its summary and by its ledger.
fn earlier(place: &Place, run: &str) -> u64 {
    let lines = outcomes(&place.path(run));
    let of_itself = lines.iter().filter(|line| line["twin_of"] == line["index"]);
    let (said, found) = (summary(place, run)["earlier"].as_u64().unwrap(), of_itself.count());
    assert_eq!(said, found as u64);
    said
}

#[tokio::test]
async fn a_file_that_was_moved_or_copied_gets_the_output_that_is_there_by_every_way() {
    let ways = DELIVERIES.into_iter().flat_map(|delivery| {
        ["--transfer auto", "--transfer wire", "--results objects", "--pack 4"]
            .map(|how| format!("--delivery {delivery} {how}"))
    });
    for how in ways {
        let place = Place::new().await;
        tree(&place);
        let run = |name: &str| format!("run in --out out --name {name} -q --workers 1 {how}");
        place.run(&run("one")).await.with_code(0);
        let files = change(&place);
        place.run(&format!("{} --update", run("two"))).await.with_code(0);
        let two = run_of("two", &how);
        expect_contents(&place, &files, &how);
        let lines = outcomes(&place.path(&two));
        assert_eq!(lines.len(), 3, "{how} {lines:?}");
        assert_eq!((earlier(&place, &two), &summary(&place, &two)["twins"]), (2, &2.into()));
        let text = fs::read_to_string(place.path(&two).join("summary.txt")).unwrap();
        assert!(text.contains("2 that of an earlier run"), "{text}");
        let status = place.run(&format!("status {two} in/copied")).await.with_code(0);
        assert!(status.stdout.contains("its output is that of an earlier run"), "{status:?}");
        place.run(&format!("verify {two} --inputs")).await.with_code(0);
        place.run(&format!("restore {two} --out back -q")).await.with_code(0);
        assert!(fs::read(place.path("back/in/deep/moved")).unwrap() == files[0].1, "{how}");
        // A third one has nothing to do, and each run's outputs go by their names.
        let third = place.run(&format!("{} --update", run("three"))).await.with_code(0);
        assert!(!place.path(&run_of("three", &how)).exists(), "{third:?}");
        place.run(&format!("rm {} --outputs", run_of("one", &how))).await.with_code(0);
        expect_contents(&place, &files, &how);
        place.run(&format!("rm {two} --outputs")).await.with_code(0);
        assert!(!place.path("out/in/deep/moved.gz").exists());
    }
}

#[tokio::test]
async fn outputs_that_are_not_what_they_were_and_other_parameters_are_no_help() {
    let spoilt = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    for what in ["spoilt", "gone", "forgotten", "--no-dedup", "--codec gzip:9"] {
        let place = Place::new().await;
        tree(&place);
        place.run("run in --out out --name one -q --workers 1").await.with_code(0);
        let files = change(&place);
        let outputs = ["a", "b"].map(|name| place.path(&format!("out/in/{name}.gz")));
        match what {
            "spoilt" => outputs.iter().for_each(|output| spoilt(output)),
            "gone" => outputs.iter().for_each(|output| fs::remove_file(output).unwrap()),
            "forgotten" => fs::remove_dir_all(place.path("runs")).unwrap(),
            _ => {}
        }
        let flag = if what.starts_with("--") { what } else { "" };
        let run = format!("run in --out out --name two -q --workers 1 --update {flag}");
        place.run(&run).await.with_code(0);
        assert_eq!(earlier(&place, "runs/two/staged"), 0, "{what}");
        expect_contents(&place, &files, what);
        place.run("verify runs/two/staged --inputs").await.with_code(0);
    }
}

#[tokio::test]
async fn a_list_of_earlier_outputs_that_is_damaged_costs_nothing_but_time() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let _worker = place.worker(&server);
    let [a, b, _] = tree(&place);
    place.run(&format!("run in --out out --name one -q {at}")).await.with_code(0);
    let files = change(&place);
    place.run(&format!("submit in --out out --name two --update {at}")).await.with_code(0);
    // Each says of the other's output that it is its own.
    let list = place.path("runs/two/staged/earlier.jsonl");
    let lines = fs::read_to_string(&list).unwrap();
    let swapped =
        lines.replace("/a.gz", "/x.gz").replace("/b.gz", "/a.gz").replace("/x.gz", "/b.gz");
    assert_ne!(lines, swapped);
    fs::write(&list, swapped + "junk\n").unwrap();
    place.run(&format!("gather runs/two/staged -q {at}")).await.with_code(0);
    expect_contents(&place, &files, "");
    assert!(files[0].1 == a && files[1].1 == b);
    assert_eq!(earlier(&place, "runs/two/staged"), 0);
}

#[tokio::test]
async fn a_file_that_was_touched_and_a_twin_of_one_that_was_moved_are_not_compressed() {
    let place = Place::new().await;
    let [a, ..] = tree(&place);
    place.run("run in --out out --name one -q --workers 1").await.with_code(0);
    fs::rename(place.path("in/a"), place.path("in/x")).unwrap();
    write(&place.path("in/y"), &a);
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(100);
    fs::File::open(place.path("in/b")).unwrap().set_modified(later).unwrap();
    place.run("run in --out out --name two -q --workers 1 --update").await.with_code(0);
    let two = summary(&place, "runs/two/staged");
    assert_eq!((&two["twins"], &two["earlier"], &two["tasks"]), (&3.into(), &2.into(), &3.into()));
    expect_contents(&place, &[("x", a.clone()), ("y", a)], "");
    expect_each_done_once(&place.path("runs/two/staged"), 3);
    let third = "run in --out out --name three -q --workers 1 --update";
    place.run(third).await.with_code(0);
    assert!(!place.path("runs/three").exists(), "nothing is left to do");
}
