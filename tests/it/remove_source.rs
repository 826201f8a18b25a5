//! `--remove-source`: an input goes once its bag has ended, its output is what it should be, and it is what it was.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use walkdir::WalkDir;

use crate::harness::Place;

/// The files below a folder, and their bytes.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = WalkDir::new(root).into_iter().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().is_file());
    let name = |entry: &walkdir::DirEntry| entry.path().strip_prefix(root).unwrap().to_owned();
    files.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Small files, for packs, a long one, for blocks, and an empty one.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    for number in 0..9_u8 {
        write(&root.join(format!("small/{number}")), &vec![number; 3_000]);
    }
    let line = |number: usize| format!("line {number} of it\n").into_bytes();
    write(&root.join("deep/er/long"), &(0..180_000).flat_map(line).collect::<Vec<_>>());
    write(&root.join("empty"), b"");
    files(root)
}

fn summary(place: &Place, run: &str) -> Value {
    let text = fs::read(place.folder(run).join("summary.json")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["sources"].clone()
}

async fn inputs_go_and_come_back(run: &str, how: &str) {
    let place = Place::new().await;
    let were = tree(&place.path("in"));
    let words = format!("run in --out out --name t -q --workers 2 --remove-source {how}");
    let ended = place.run(&words).await.with_code(0);
    assert!(ended.stdout.contains("sources         11 removed\n"), "{how}: {}", ended.stdout);
    assert_eq!(summary(&place, run)["removed"], 11);
    assert_eq!(files(&place.path("in")), BTreeMap::new(), "{how}");
    assert!(place.path("in/deep/er").is_dir(), "{how}: folders stay");
    let verified = place.run(&format!("verify runs/{run} --inputs")).await.with_code(0);
    assert!(verified.stdout.contains("11 good, 0 bad"), "{}", verified.stdout);
    assert!(verified.stdout.contains("11 without input"), "{}", verified.stdout);
    let refused = place.run(&format!("rm runs/{run} --outputs")).await.with_code(2);
    assert!(refused.stderr.contains("all there is of them"), "{}", refused.stderr);
    place.run(&format!("restore runs/{run} --out back -q --workers 2")).await.with_code(0);
    assert!(files(&place.path("back/in")) == were, "{how}");
    // Another look finds nothing to do, and says the same.
    let again = place.run(&format!("gather runs/{run} -q --workers 1")).await.with_code(0);
    assert!(again.stdout.contains("sources         11 removed\n"), "{how}: {}", again.stdout);
}

#[tokio::test]
async fn inputs_go_once_their_bag_has_ended_and_come_back_by_path() {
    inputs_go_and_come_back("t/staged", "--pack 4 --block 1MiB").await;
}

#[tokio::test]
async fn inputs_go_once_their_bag_has_ended_and_come_back_by_wire() {
    let how = "--transfer wire --pack 4 --block 1MiB --codec zstd:3 --delivery queue-group";
    inputs_go_and_come_back("t/staged", how).await;
}

#[tokio::test]
async fn inputs_go_once_their_bag_has_ended_and_come_back_of_objects_that_became_files() {
    inputs_go_and_come_back("t/objects", "--results objects --pack 4").await;
}

/// What a gatherer leaves that died behind the last line of its ledger: the flag, and nothing removed.
fn died_before_it_removed(place: &Place) {
    let path = place.folder("t/staged/bag.json");
    let mut bag: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    bag["remove_source"] = true.into();
    fs::write(&path, serde_json::to_vec(&bag).unwrap()).unwrap();
}

#[tokio::test]
async fn a_gatherer_that_died_before_it_removed_is_continued_and_what_changed_since_stays() {
    let place = Place::new().await;
    let names = [
        "as-it-was",
        "written",
        "same-time",
        "exchanged",
        "linked",
        "led/away",
        "no-output",
        "other-output",
        "same-output",
        "gone",
    ];
    for name in names {
        write(&place.path("in").join(name), format!("this is {name:12}").as_bytes());
    }
    place.run("run in --out out --name t -q --workers 1").await.with_code(0);
    died_before_it_removed(&place);
    let at = |name: &str| place.path("in").join(name);
    let before = files(&place.path("in"));
    fs::write(at("written"), b"another").unwrap();
    // The same size, and the time put back.
    let time = fs::metadata(at("same-time")).unwrap().modified().unwrap();
    fs::write(at("same-time"), b"This is same-time   ").unwrap();
    File::open(at("same-time")).unwrap().set_modified(time).unwrap();
    // Another file of the same bytes and the same time.
    let time = fs::metadata(at("exchanged")).unwrap().modified().unwrap();
    fs::copy(at("exchanged"), place.path("copy")).unwrap();
    File::open(place.path("copy")).unwrap().set_modified(time).unwrap();
    fs::rename(place.path("copy"), at("exchanged")).unwrap();
    fs::hard_link(at("linked"), place.path("link")).unwrap();
    fs::rename(at("led"), place.path("away")).unwrap();
    symlink(place.path("away"), at("led")).unwrap();
    fs::remove_file(place.path("out/in/no-output.gz")).unwrap();
    fs::write(place.path("out/in/other-output.gz"), b"other").unwrap();
    // A copy is as good, once its bytes were looked at.
    fs::copy(place.path("out/in/same-output.gz"), place.path("copy")).unwrap();
    fs::rename(place.path("copy"), place.path("out/in/same-output.gz")).unwrap();
    fs::remove_file(at("gone")).unwrap();

    let ended = place.run("gather runs/t/staged -q --workers 1").await.with_code(0);
    let sources = summary(&place, "t/staged");
    assert_eq!(sources["removed"], 3, "{sources}");
    for (why, count) in [
        ("it has changed since it was read", 3),
        ("it has another name, a hard link", 1),
        ("a symbolic link leads to it by now", 1),
        ("its output is not there", 1),
        ("its output is damaged: `bagpress gather --repair` makes it again", 1),
    ] {
        assert_eq!(sources["kept"][why], count, "{why}: {sources}");
    }
    assert!(ended.stderr.contains("not all inputs could be removed, such as"), "{}", ended.stderr);
    let left: Vec<_> = files(&place.path("in")).into_keys().collect();
    let stay = ["exchanged", "linked", "no-output", "other-output", "same-time", "written"];
    assert_eq!(left, stay.map(PathBuf::from));
    assert_eq!(fs::read(place.path("away/away")).unwrap(), before[Path::new("led/away")]);
}

#[tokio::test]
async fn what_failed_or_was_left_out_stays() {
    let (place, server) = Place::with_server().await;
    write(&place.path("in/sub/twice"), b"given twice");
    write(&place.path("in/sub/both"), b"given twice, too");
    write(&place.path("in/packed.gz"), b"\x1f\x8b\x08 looks compressed");
    let url = server.url();
    let what = "in in/sub --out out --name t --remove-source --skip-compressed";
    place.run(&format!("submit {what} --server {url}")).await.with_code(0);
    // Meanwhile one of its outputs cannot be had any more.
    write(&place.path("out/sub/twice.gz"), b"somebody's");
    let _worker = place.worker(&server);
    let gather = format!("gather runs/t/staged -q --server {url}");
    let ended = place.run(&gather).await.with_code(1);
    assert!(ended.stderr.contains("1 of 4 tasks failed"), "{}", ended.stderr);
    let left = || files(&place.path("in")).into_keys().collect::<Vec<_>>();
    assert_eq!(left(), ["packed.gz", "sub/twice"].map(PathBuf::from));
    let sources = summary(&place, "t/staged");
    assert_eq!(sources["removed"], 2, "{sources}");
    assert_eq!(sources["kept"]["it is the input of another task that is not done"], 1, "{sources}");
    // Once the way is free, all of it is done, and goes.
    fs::remove_file(place.path("out/sub/twice.gz")).unwrap();
    place.run(&format!("{gather} --retry-failed")).await.with_code(0);
    assert_eq!(left(), [PathBuf::from("packed.gz")]);
}

#[tokio::test]
async fn an_input_that_cannot_be_removed_is_said_and_its_task_stays_done() {
    let place = Place::new().await;
    write(&place.path("in/file"), b"in a folder that nobody writes to");
    let close =
        |mode| fs::set_permissions(place.path("in"), fs::Permissions::from_mode(mode)).unwrap();
    close(0o555);
    let words = "run in --out out --name t -q --workers 1 --remove-source";
    let ended = place.finish(place.unprivileged(words)).await.with_code(0);
    close(0o755);
    assert!(ended.stdout.contains("0 removed, 1 kept: Permission denied"), "{}", ended.stdout);
    assert!(place.path("in/file").exists());
    // It goes as soon as it can.
    place.finish(place.unprivileged("gather runs/t/staged -q --workers 1")).await.with_code(0);
    assert!(!place.path("in/file").exists());
}

#[tokio::test]
async fn removing_inputs_is_refused_where_no_file_takes_their_place_and_a_dry_run_only_says_it() {
    let place = Place::new().await;
    tree(&place.path("in"));
    for (words, said) in [
        ("--tasks 2", "a generated bag has none"),
        ("in --results objects", "outputs that become files"),
        ("in --results objects --get", "outputs that become files"),
        ("in --out out --verify none", "outputs that were verified"),
        ("in --out out --codec noop", "noop stores nothing"),
    ] {
        let ended = place.run(&format!("run {words} --remove-source")).await.with_code(2);
        assert!(ended.stderr.contains(said), "{words}: {}", ended.stderr);
    }
    let dry = place.run("run in --out out --remove-source --dry-run").await.with_code(0);
    assert!(dry.stdout.contains("in/empty -> out/in/empty.gz, then removed"), "{}", dry.stdout);
    assert!(dry.stderr.contains("would remove 11 of them after that"), "{}", dry.stderr);
    assert_eq!(files(&place.path("in")).len(), 11);
    assert!(!place.path("runs").exists() && !place.path("out").exists());
}

#[tokio::test]
async fn compressed_files_go_once_they_are_restored_and_those_of_a_run_never() {
    let place = Place::new().await;
    let were = tree(&place.path("in"));
    place.run("run in --out out --name t -q --workers 2 --pack 4").await.with_code(0);
    write(&place.path("out/in/damaged.gz"), b"\x1f\x8b no gzip at all");
    let of_run = place.run("restore runs/t/staged --out back --remove-source").await.with_code(2);
    assert!(of_run.stderr.contains("would take the outputs of the run"), "{}", of_run.stderr);
    let words = "restore out/in --out back --name r -q --workers 2 --pack 4 --remove-source";
    let ended = place.run(words).await.with_code(1);
    assert!(ended.stdout.contains("sources         11 removed\n"), "{}", ended.stdout);
    assert!(files(&place.path("back/in")) == were);
    assert_eq!(
        files(&place.path("out")).into_keys().collect::<Vec<_>>(),
        [PathBuf::from("in/damaged.gz")]
    );
    place.run("verify runs/r/staged --inputs").await.with_code(1);
    place.run("rm runs/r/staged --outputs").await.with_code(2);
    assert!(files(&place.path("back/in")) == were);
}

/// Nothing but its bytes tells what a disk did to a file.
#[tokio::test]
async fn an_input_stays_whose_output_was_damaged_in_place() {
    let place = Place::new().await;
    let bytes = crate::ledger::generated(bagpress_codec::DataKind::Text, 1, 40_000);
    for name in ["first", "twin", "other"] {
        write(&place.path("in").join(name), &bytes);
    }
    write(&place.path("in/other"), b"of another content");
    place.run("run in --out out --name t -q --workers 1").await.with_code(0);
    died_before_it_removed(&place);
    let output = place.path("out/in/first.gz");
    let time = fs::metadata(&output).unwrap().modified().unwrap();
    let mut damaged = fs::read(&output).unwrap();
    damaged[100] ^= 1;
    // In place, so that it is the same file.
    let mut file = File::options().write(true).open(&output).unwrap();
    std::io::Write::write_all(&mut file, &damaged).unwrap();
    file.set_modified(time).unwrap();
    place.run("gather runs/t/staged -q --workers 1").await.with_code(0);
    let sources = summary(&place, "t/staged");
    // Both outputs are one file, unless the file system shares blocks instead.
    let twin = fs::read(place.path("out/in/twin.gz")).unwrap() == damaged;
    assert_eq!(sources["removed"], if twin { 1 } else { 2 }, "{sources}");
    assert!(place.path("in/first").exists() && place.path("in/twin").exists() == twin);
    place.run("gather runs/t/staged -q --repair --workers 1").await.with_code(0);
    assert!(crate::taken::content(&output) == bytes);
}

#[tokio::test]
async fn hard_links_go_once_all_of_them_were_inputs_and_what_would_go_is_counted_before() {
    let place = Place::new().await;
    write(&place.path("in/one"), &[1; 5_000]);
    fs::hard_link(place.path("in/one"), place.path("in/other")).unwrap();
    write(&place.path("in/two"), &[2; 5_000]);
    fs::hard_link(place.path("in/two"), place.path("elsewhere")).unwrap();
    write(&place.path("in/three"), b"alone");
    let words = "run in --out out --name t --workers 2 --remove-source";
    let dry = place.run(&format!("{words} --dry-run")).await.with_code(0);
    assert!(dry.stderr.contains("would remove 3 of them"), "{dry:?}");
    assert!(dry.stdout.contains("one.gz, then removed if all hard links of it"), "{dry:?}");
    place.run(&format!("{words} -q")).await.with_code(0);
    let left: Vec<_> = files(&place.path("in")).into_keys().collect();
    assert_eq!(left, [Path::new("two")]);
    assert_eq!(summary(&place, "t/staged")["removed"], 3);
    assert_eq!(summary(&place, "t/staged")["kept"]["it has another name, a hard link"], 1);
    // The same of files that are restored: both names of one output.
    fs::hard_link(place.path("out/in/one.gz"), place.path("out/in/link.gz")).unwrap();
    fs::remove_file(place.path("out/in/other.gz")).unwrap();
    let restore = "restore out/in/one.gz out/in/link.gz --out back --name r -q --workers 1";
    place.run(&format!("{restore} --remove-source")).await.with_code(0);
    assert_eq!(fs::read(place.path("back/link")).unwrap(), [1; 5_000]);
    let gone = |name: &str| !place.path("out/in").join(name).exists();
    assert!(gone("one.gz") && gone("link.gz") && !gone("two.gz"));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_not_counted_as_one_that_would_be_removed() {
    let place = Place::new().await;
    write(&place.path("in/open"), b"open");
    write(&place.path("in/closed"), b"closed");
    fs::set_permissions(place.path("in/closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let words = "run in --out out --remove-source --dry-run";
    let dry = place.finish(place.unprivileged(words)).await;
    assert!(dry.stderr.contains("would remove 1 of them"), "{dry:?}");
}
