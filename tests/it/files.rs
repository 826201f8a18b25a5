//! Real files: every one comes back, whatever it is called, and none in the place of another.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bagpress_codec::DataKind;
use walkdir::WalkDir;

use crate::harness::{Ended, Place};
use crate::ledger::{expect_each_done_once, failure, generated};

/// Writes a file, and makes the folders around it.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A folder with everything that a file can be called, and some that are none.
fn tree(root: &Path) {
    write(&root.join("empty"), b"");
    write(&root.join("with two spaces.txt"), b"some words\n");
    write(&root.join("grüße/日本語.txt"), &generated(DataKind::Text, 1, 70_000));
    write(&root.join(OsStr::from_bytes(b"caf\xe9.bin")), b"named long ago");
    write(&root.join("a/b/c/d/deep"), &generated(DataKind::Text, 2, 300_000));
    write(&root.join("more than two chunks"), &generated(DataKind::Random, 3, 1_200_000));
    write(&root.join("$(echo);*?\n\"'"), b"every shell's favourite");
    symlink("empty", root.join("link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for (mode, name) in [(0o640, "with two spaces.txt"), (0o755, "a/b/c/d/deep"), (0o444, "empty")]
    {
        let file = File::options().read(true).open(root.join(name)).unwrap();
        file.set_modified(long_ago).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// The regular files below a folder, relative to it.
fn regular_files(root: &Path) -> Vec<PathBuf> {
    let entries = WalkDir::new(root).sort_by_file_name().into_iter().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.map(|entry| entry.path().strip_prefix(root).unwrap().to_owned()).collect()
}

/// Fails unless `out` has exactly the outputs of `sources`' files, byte for byte, with their mode and
/// time.
pub(crate) fn expect_outputs(sources: &Path, out: &Path) {
    let inputs = regular_files(sources);
    for input in &inputs {
        let output = out.join(with_extension(input));
        let mut data = Vec::new();
        let mut decoder = flate2::read::MultiGzDecoder::new(File::open(&output).unwrap());
        decoder.read_to_end(&mut data).unwrap();
        let source = sources.join(input);
        assert!(data == fs::read(&source).unwrap(), "{}", source.display());
        let (source, output) = (fs::metadata(source).unwrap(), fs::metadata(output).unwrap());
        assert_eq!(source.mode(), output.mode(), "{}", input.display());
        assert_eq!(source.modified().unwrap(), output.modified().unwrap(), "{}", input.display());
    }
    assert_eq!(regular_files(out).len(), inputs.len());
}

fn with_extension(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

async fn every_file_comes_back(how: &str) {
    let place = Place::new().await;
    tree(&place.path("tree"));
    let ran = place.run(&format!("run tree --out out --workers 2 --name t -q {how}")).await;
    let ran = ran.with_code(0);
    assert!(ran.stderr.contains("2 symbolic links"), "{ran:?}");
    expect_outputs(&place.path("tree"), &place.path("out/tree"));
    let results = if how.contains("objects") { "objects" } else { "staged" };
    expect_each_done_once(&place.folder(&format!("t/{results}")), 7);
    place.run(&format!("verify runs/t/{results}")).await.with_code(0);
    place.expect_no_warnings(&[]);
}

#[tokio::test]
async fn every_file_comes_back_by_path() {
    every_file_comes_back("--results staged --transfer auto").await;
}

#[tokio::test]
async fn every_file_comes_back_by_wire() {
    every_file_comes_back("--results staged --transfer wire").await;
}

#[tokio::test]
async fn every_file_comes_back_from_the_object_store() {
    every_file_comes_back("--results objects").await;
}

/// Files that vanish or change behind a bag that was submitted.
#[tokio::test]
async fn every_file_comes_back_by_offers() {
    every_file_comes_back("--results staged --transfer wire --delivery queue-group").await;
    every_file_comes_back("--results objects --delivery queue-group").await;
}

async fn what_changed_fails_alone(allow: &str) {
    let (place, server) = Place::with_server().await;
    for name in ["a", "b", "c", "d"] {
        write(&place.path("in").join(name), &generated(DataKind::Text, 4, 50_000));
    }
    let at = format!("--server {}", server.url());
    place.run(&format!("submit in --out out --name t {at}")).await.with_code(0);
    fs::remove_file(place.path("in/b")).unwrap();
    write(&place.path("in/c"), &generated(DataKind::Text, 5, 50_000));
    let _worker = place.spawn(&format!("worker --slots 2 {allow} {at}"));

    let gathered = place.run(&format!("gather runs/t/staged -q {at}")).await.with_code(1);
    assert!(gathered.stderr.contains("2 of 4 tasks failed"), "{gathered:?}");
    assert!(gathered.stdout.contains("input-missing"), "{gathered:?}");
    assert!(gathered.stdout.contains("input-changed"), "{gathered:?}");
    let folder = place.folder("t/staged");
    assert_eq!(failure(&folder, 1).0, "input-missing");
    assert_eq!(failure(&folder, 2).0, "input-changed");
    assert_eq!(regular_files(&place.path("out")), [Path::new("in/a.gz"), Path::new("in/d.gz")]);

    // Once the file is there again, so is its output, and what changed is taken as it is now.
    write(&place.path("in/b"), b"it came back");
    place.run(&format!("gather runs/t/staged --retry-failed -q {at}")).await.with_code(0);
    for (name, bytes) in
        [("b", b"it came back".to_vec()), ("c", generated(DataKind::Text, 5, 50_000))]
    {
        let mut data = Vec::new();
        let output = File::open(place.path("out/in").join(format!("{name}.gz"))).unwrap();
        flate2::read::GzDecoder::new(output).read_to_end(&mut data).unwrap();
        assert!(data == bytes, "{name}");
    }
}

#[tokio::test]
async fn a_file_that_changed_fails_alone_by_path() {
    what_changed_fails_alone("--allow /").await;
}

#[tokio::test]
async fn a_file_that_changed_fails_alone_by_wire() {
    what_changed_fails_alone("").await;
}

#[tokio::test]
async fn objects_keep_what_the_files_were_at_submit() {
    let (place, server) = Place::with_server().await;
    write(&place.path("in/a"), b"first");
    write(&place.path("in/b"), b"second");
    let at = format!("--server {}", server.url());
    let submit = format!("submit in --results objects --out out --name t {at}");
    place.run(&submit).await.with_code(0);
    fs::remove_file(place.path("in/a")).unwrap();
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(0);
    let mut data = String::new();
    let output = File::open(place.path("out/in/a.gz")).unwrap();
    flate2::read::GzDecoder::new(output).read_to_string(&mut data).unwrap();
    assert_eq!(data, "first");
}

#[tokio::test]
async fn an_output_folder_inside_an_input_is_left_out_of_it() {
    let place = Place::new().await;
    write(&place.path("in/file"), b"a file");
    write(&place.path("in/out/older"), b"no input");
    place.run("run in --out in/out --workers 1 --name t -q").await.with_code(0);
    let outputs = regular_files(&place.path("in/out"));
    assert_eq!(outputs, [Path::new("in/file.gz"), Path::new("older")]);
}

fn expect_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let error = ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    for word in words {
        assert!(error.contains(word), "{word} is not in: {error}");
    }
    assert!(ended.stderr.contains("\nhint: "), "{ended:?}");
}

#[tokio::test]
async fn two_inputs_with_one_target_are_refused_by_name() {
    let place = Place::new().await;
    for path in ["one/doc/x", "two/doc/x"] {
        write(&place.path(path), b"x");
    }
    let folders = place.run("run one/doc two/doc --out out").await;
    expect_refused(&folders, &["one/doc", "two/doc"]);
    let files = place.run("run one/doc/x two/doc/x --out out").await;
    expect_refused(&files, &["one/doc/x", "two/doc/x"]);
    assert!(!place.path("out").exists() && !place.path("runs").exists());
}

#[tokio::test]
async fn a_file_that_is_there_is_never_replaced() {
    let place = Place::new().await;
    write(&place.path("in/x"), b"x");
    write(&place.path("out/in/x.gz"), b"mine");
    let refused = place.run("run in --out out --name t").await;
    expect_refused(&refused, &["out/in/x.gz"]);
    assert_eq!(fs::read(place.path("out/in/x.gz")).unwrap(), b"mine");
}

#[tokio::test]
async fn a_finished_run_keeps_its_name() {
    let place = Place::new().await;
    write(&place.path("in/x"), b"x");
    place.run("run in --out out --workers 1 --name t -q").await.with_code(0);
    let before = fs::read(place.folder("t/staged/manifest.jsonl")).unwrap();
    expect_refused(&place.run("run in --out out --name t").await, &["t is taken"]);
    expect_refused(&place.run("run in --out elsewhere --name t").await, &["t is taken"]);
    assert!(fs::read(place.folder("t/staged/manifest.jsonl")).unwrap() == before);
}
