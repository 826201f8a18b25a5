//! An output's name that belongs to somebody else: that file stays, and the task fails and says so.

use std::fs;
use std::path::Path;

use bagpress_objstore::staging::BAD_DIR;

use crate::harness::Place;
use crate::ledger::failure;

/// Both result paths, by both deliveries.
pub(crate) const WAYS: [&str; 4] =
    ["", "--results objects", "--delivery queue-group", "--results objects --delivery queue-group"];

/// The run's folder, by how it was run.
pub(crate) fn run_of(name: &str, how: &str) -> String {
    let results = if how.contains("objects") { "objects" } else { "staged" };
    format!("runs/{name}/{results}")
}

/// What an output decompresses to.
pub(crate) fn content(output: &Path) -> Vec<u8> {
    let mut data = Vec::new();
    let file = fs::File::open(output).unwrap_or_else(|e| panic!("{}: {e}", output.display()));
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(file), &mut data).unwrap();
    data
}

#[tokio::test]
async fn two_bags_with_one_output_name_lose_nothing_and_one_of_them_says_so() {
    for how in WAYS {
        let (place, server) = Place::with_server().await;
        let at = format!("--server {}", server.url());
        for name in ["ma", "mb"] {
            let folder = place.path(name).join("logs");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("f"), name).unwrap();
            let submit = format!("submit {name}/logs --out om --name {name} {how} {at}");
            place.run(&submit).await.with_code(0);
        }
        let _worker = place.worker(&server);
        let gather = |name| place.spawn(&format!("gather {} -q {at}", run_of(name, how)));
        let (one, other) = (gather("ma"), gather("mb"));
        let ended = [one.ended(&place).await, other.ended(&place).await];
        let mut codes = ended.each_ref().map(|ended| ended.code);
        codes.sort_unstable();
        assert_eq!(codes, [Some(0), Some(1)], "{how}: {ended:#?}");
        let (winner, loser) = if ended[0].code == Some(0) { ("ma", 1) } else { ("mb", 0) };
        assert_eq!(content(&place.path("om/logs/f.gz")), winner.as_bytes());
        let told = &ended[loser].stdout;
        assert!(told.contains("output-exists") && told.contains("om/logs/f.gz"), "{told}");
        assert!(!place.path("om").join(BAD_DIR).exists(), "{how}");
    }
}

#[tokio::test]
async fn a_file_that_appears_under_an_outputs_name_stays_whatever_is_done_with_the_bag() {
    for how in WAYS {
        let (place, server) = Place::with_server().await;
        let at = format!("--server {}", server.url());
        fs::create_dir(place.path("in")).unwrap();
        for name in ["a", "b", "c"] {
            fs::write(place.path("in").join(name), name).unwrap();
        }
        place.run(&format!("submit in --out out --name t {how} {at}")).await.with_code(0);
        fs::create_dir_all(place.path("out/in")).unwrap();
        fs::write(place.path("out/in/b.gz"), b"mine").unwrap();
        let _worker = place.worker(&server);
        let run = run_of("t", how);
        for more in ["", "--retry-failed", "--repair", "--repair --retry-failed"] {
            let ended = place.run(&format!("gather {run} -q {more} {at}")).await.with_code(1);
            assert!(ended.stderr.contains("1 of 3 tasks failed"), "{how} {more}: {ended:?}");
            assert_eq!(fs::read(place.path("out/in/b.gz")).unwrap(), b"mine", "{how} {more}");
        }
        assert!(!place.path("out").join(BAD_DIR).exists(), "{how}");
        for name in ["a", "c"] {
            assert_eq!(content(&place.path("out/in").join(format!("{name}.gz"))), name.as_bytes());
        }
        // Once its owner has taken it away, the output has its place.
        fs::remove_file(place.path("out/in/b.gz")).unwrap();
        place.run(&format!("gather {run} -q --retry-failed {at}")).await.with_code(0);
        assert_eq!(content(&place.path("out/in/b.gz")), b"b");
    }
}

#[tokio::test]
async fn what_the_bag_itself_wrote_and_is_bad_is_moved_aside_with_a_word() {
    let place = Place::new().await;
    fs::create_dir(place.path("in")).unwrap();
    fs::write(place.path("in/a"), "a").unwrap();
    place.run("run in --out out --name t -q").await.with_code(0);
    fs::write(place.path("out/in/a.gz"), b"no longer an output").unwrap();
    let repaired = place.run("gather runs/t/staged --repair -q").await.with_code(0);
    assert!(repaired.stderr.contains(BAD_DIR), "{repaired:?}");
    assert_eq!(content(&place.path("out/in/a.gz")), b"a");
    let aside = fs::read_dir(place.path("out").join(BAD_DIR)).unwrap().next().unwrap().unwrap();
    assert_eq!(fs::read(aside.path()).unwrap(), b"no longer an output");
}

/// The output folder went with the last gatherer, or is another one now: what was counted there is no witness.
#[tokio::test]
async fn a_bag_that_goes_on_makes_outputs_again_that_are_gone() {
    for how in WAYS {
        let place = Place::new().await;
        fs::create_dir(place.path("in")).unwrap();
        for name in ["a", "b"] {
            fs::write(place.path("in").join(name), name).unwrap();
        }
        place.run(&format!("run in --out out --name t -q {how}")).await.with_code(0);
        let run = run_of("t", how);
        // One that is over is left as it is: its owner may have moved what it made.
        fs::remove_file(place.path("out/in/a.gz")).unwrap();
        place.run(&format!("gather {run} -q")).await.with_code(0);
        assert!(!place.path("out/in/a.gz").exists(), "{how}");
        // As if it had ended early.
        fs::remove_file(place.path(&run).join("summary.json")).unwrap();
        let went_on = place.run(&format!("gather {run} -q")).await.with_code(0);
        assert!(went_on.stderr.contains("1 finished outputs no longer exist"), "{went_on:?}");
        for name in ["a", "b"] {
            assert_eq!(content(&place.path("out/in").join(format!("{name}.gz"))), name.as_bytes());
        }
        place.run(&format!("verify {run}")).await.with_code(0);
    }
}

/// Its owner has removed the first bag's output, and the second bag's has that name since.
#[tokio::test]
async fn an_output_of_another_bag_is_not_repaired_away() {
    let place = Place::new().await;
    for (name, bag) in [("ma", "a"), ("mb", "b")] {
        fs::create_dir_all(place.path(name).join("logs")).unwrap();
        fs::write(place.path(name).join("logs/f"), name).unwrap();
        place.run(&format!("run {name}/logs --out om --name {bag} -q")).await.with_code(0);
        if bag == "a" {
            fs::remove_file(place.path("om/logs/f.gz")).unwrap();
        }
    }
    let repaired = place.run("gather runs/a/staged --repair -q").await.with_code(0);
    assert!(repaired.stderr.contains("1 outputs are replaced"), "{repaired:?}");
    assert!(!repaired.stdout.contains("output-exists"), "{repaired:?}");
    assert_eq!(content(&place.path("om/logs/f.gz")), b"mb");
    assert!(!place.path("om").join(BAD_DIR).exists());
    place.run("verify runs/b/staged").await.with_code(0);
}

#[tokio::test]
async fn a_failure_of_the_gatherers_own_is_in_the_ledger_once() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    fs::write(place.path("a"), "a").unwrap();
    place.run(&format!("submit a --out out --name t {at}")).await.with_code(0);
    fs::create_dir_all(place.path("out/a.gz")).unwrap();
    let _worker = place.worker(&server);
    // The second one reads the committed result, which says that the task is done, once more.
    for _ in 0..2 {
        place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(1);
        assert_eq!(failure(&place.folder("t/staged"), 0).0, "output-exists");
    }
}
