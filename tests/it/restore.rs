//! What was compressed comes back as it was: bytes, names, modes, times and empty folders.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use bagpress_codec::DataKind;
use walkdir::WalkDir;

use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, failure, generated, outcomes};
use crate::taken::run_of;

const MIB: usize = 1024 * 1024;

fn set(path: &Path, mode: u32, seconds: u64) {
    let file = File::open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789)).unwrap();
    file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder with everything that a file can be called, and folders with nothing in them; how many files it has.
fn tree(root: &Path) -> u64 {
    let files: [(&OsStr, Vec<u8>); 9] = [
        (OsStr::new("empty"), Vec::new()),
        (OsStr::new("with two  spaces.txt"), b"some words\n".to_vec()),
        (OsStr::new("grüße/日本語.txt"), generated(DataKind::Text, 1, 70_000)),
        (OsStr::from_bytes(b"caf\xe9.bin"), b"named long ago".to_vec()),
        (OsStr::new("a/b/c/d/deep"), generated(DataKind::Text, 2, 5 * MIB + 1)),
        (OsStr::new("a/noise"), generated(DataKind::Random, 3, MIB + 77)),
        (OsStr::new("a/zeros"), vec![0; 3 * MIB]),
        (OsStr::new("$(echo);*?\n\"'"), b"every shell's favourite".to_vec()),
        (OsStr::new("was.gz"), b"\x1f\x8b is how others begin".to_vec()),
    ];
    for (number, (name, bytes)) in (0..).zip(&files) {
        write(&root.join(name), bytes);
        let mode = [0o640, 0o755, 0o444, 0o600, 0o664][number % 5];
        set(&root.join(name), mode, 1_000_000_000 + number as u64 * 86_400);
    }
    for (folder, mode) in
        [("hollow/er/still", 0o750), ("hollow/er", 0o700), ("hollow", 0o755), ("a/none", 0o711)]
    {
        fs::create_dir_all(root.join(folder)).unwrap();
        set(&root.join(folder), mode, 1_100_000_000);
    }
    set(&root.join("hollow/er"), 0o700, 1_200_000_000);
    set(&root.join("hollow"), 0o755, 1_300_000_000);
    fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o710)).unwrap();
    files.len() as u64
}

/// Mode, time and bytes.
type There = (u32, Option<SystemTime>, Option<Vec<u8>>);

/// All that is below a folder: mode, and time unless it is a folder with a file in it, which no run records; and the bytes.
fn all(root: &Path) -> BTreeMap<PathBuf, There> {
    let has_file = |path: &Path| {
        WalkDir::new(path).into_iter().any(|entry| entry.unwrap().file_type().is_file())
    };
    let entries = WalkDir::new(root).min_depth(1).into_iter().map(Result::unwrap);
    let look = |entry: walkdir::DirEntry| {
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        let time = (metadata.is_file() || !has_file(path)).then(|| metadata.modified().unwrap());
        let bytes = metadata.is_file().then(|| fs::read(path).unwrap());
        (path.strip_prefix(root).unwrap().to_owned(), (metadata.mode(), time, bytes))
    };
    entries.map(look).collect()
}

/// Fails unless two folders are equal, to us and to `diff`.
fn expect_equal(one: &Path, other: &Path) {
    let (was, is) = (all(one), all(other));
    let names = |of: &BTreeMap<PathBuf, _>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&was), names(&is));
    for (name, was) in &was {
        let is = &is[name];
        assert_eq!((was.0, was.1), (is.0, is.1), "{}", name.display());
        assert!(was.2 == is.2, "{} has other bytes", name.display());
    }
    let diff = Command::new("diff").arg("-r").args([one, other]).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

/// No part file of any bag is left.
fn expect_no_parts(out: &Path) {
    assert!(!out.join(".bagpress-part").exists());
}

async fn a_tree_comes_back(run: &str, restore: &str) {
    let place = Place::new().await;
    let files = tree(&place.path("in"));
    let how = format!("run in --out out --name t -q --workers 2 {run}");
    place.run(&how).await.with_code(0);
    // A copy that kept no times is as good.
    let outputs = WalkDir::new(place.path("out")).into_iter().map(Result::unwrap);
    for output in outputs.filter(|entry| entry.file_type().is_file()).take(2) {
        File::open(output.path()).unwrap().set_modified(SystemTime::now()).unwrap();
    }
    let restored =
        format!("restore {} --out back --name r -q --workers 2 {restore}", run_of("t", run));
    let ended = place.run(&restored).await.with_code(0);
    assert!(ended.stdout.contains("every output verified"), "{run}: {ended:?}");
    assert!(ended.stdout.contains("(restore, staged)"), "{run}: {ended:?}");
    expect_each_done_once(&place.folder("r/staged"), files);
    expect_equal(&place.path("in"), &place.path("back/in"));
    expect_no_parts(&place.path("back"));
    place.run("verify runs/r/staged --inputs").await.with_code(0);
    // A pack is told its paths as texts: who has another one is compressed alone.
    place.expect_no_warnings(&["it has no path that its worker could be told"]);
}

#[tokio::test]
async fn a_tree_comes_back_from_a_run_of_gzip() {
    a_tree_comes_back("--codec gzip:6 --pack 8", "--pack 8").await;
}

#[tokio::test]
async fn a_tree_comes_back_from_a_run_of_zstd_in_packs_and_blocks() {
    a_tree_comes_back("--block 1MiB --codec zstd:3,long --pack 8", "--pack 8").await;
}

#[tokio::test]
async fn a_tree_comes_back_from_a_run_of_zlib_by_wire_and_by_offers() {
    a_tree_comes_back("--codec zlib:1 --pack 1", "--transfer wire --delivery queue-group").await;
}

#[tokio::test]
async fn a_tree_comes_back_from_a_run_that_only_stored() {
    a_tree_comes_back("--codec store --pack 8", "--transfer wire --pack 8").await;
}

#[tokio::test]
async fn a_tree_comes_back_from_a_run_of_blocks() {
    a_tree_comes_back("--block 1MiB --codec gzip:9", "--delivery queue-group --pack 8").await;
}

#[tokio::test]
async fn a_tree_comes_back_from_objects_that_became_files() {
    a_tree_comes_back("--results objects --codec zlib:6 --block 1MiB", "").await;
}

#[tokio::test]
async fn generated_tasks_come_back_under_the_names_of_their_outputs() {
    let place = Place::new().await;
    let run = "run --tasks 4 --bytes 300KiB --data text --name t -q --workers 1";
    place.run(run).await.with_code(0);
    // By the name of the run, too.
    place.run("restore runs/t --out back --name r -q --workers 1").await.with_code(0);
    for index in 0..4 {
        let bytes = fs::read(place.path(&format!("back/out_{index}.bin"))).unwrap();
        assert!(bytes == generated(DataKind::Text, index, 300 * 1024), "{index}");
    }
}

/// Files that stock tools made: by `gzip`, and by Python, which puts members one behind the other.
fn by_stock_tools(place: &Place) -> BTreeMap<String, Vec<u8>> {
    let root = place.path("in");
    write(&root.join("plain.txt"), &generated(DataKind::Text, 1, 400_000));
    write(&root.join("deep/er/best"), &generated(DataKind::Text, 2, 90_000));
    write(&root.join("nothing"), b"");
    set(&root.join("plain.txt"), 0o640, 1_000_000_000);
    let found = all(&root)
        .into_iter()
        .filter_map(|(name, (_, _, bytes))| Some((name.to_str().unwrap().to_owned(), bytes?)));
    let mut files: BTreeMap<_, _> = found.collect();
    let gzip = Command::new("gzip").args(["-r", "-9"]).arg(&root).status().unwrap();
    assert!(gzip.success());
    let python = "import gzip, sys, zlib\n\
        parts = [b'one, ' * 1000, b'', b'two' * 90000]\n\
        open(sys.argv[1] + '/members.gz', 'wb').write(b''.join(map(gzip.compress, parts)))\n\
        open(sys.argv[1] + '/deep/z.zz', 'wb').write(zlib.compress(b'zlib ' * 5000))";
    let python = Command::new("python3").args(["-c", python]).arg(&root).status().unwrap();
    assert!(python.success());
    files.insert("members".to_owned(), [b"one, ".repeat(1000), b"two".repeat(90_000)].concat());
    files.insert("deep/z".to_owned(), b"zlib ".repeat(5000));
    files
}

#[tokio::test]
async fn files_of_stock_tools_come_back() {
    let place = Place::new().await;
    let files = by_stock_tools(&place);
    fs::create_dir_all(place.path("in/deep/hollow")).unwrap();
    let attributes = |path: &str| {
        let metadata = fs::metadata(place.path(path)).unwrap();
        (metadata.mode(), metadata.modified().unwrap())
    };
    // Those of one codec that are beside each other make packs.
    place.run("restore in --out back --name r -q --workers 2 --pack 8").await.with_code(0);
    let restored = all(&place.path("back/in"));
    for (name, bytes) in &files {
        let (_, _, is) = &restored[Path::new(name)];
        assert!(is.as_ref() == Some(bytes), "{name}");
    }
    let (here, there) = (attributes("in/plain.txt.gz"), attributes("back/in/plain.txt"));
    assert_eq!((here.0 & 0o777, here.1), (0o640, there.1));
    assert_eq!(here, there);
    assert!(place.path("back/in/deep/hollow").is_dir());
    assert_eq!(restored.len(), files.len() + 3);
    // Some of them, by name.
    let some = "restore in/plain.txt.gz in/deep/z.zz --out some -q --workers 1";
    place.run(some).await.with_code(0);
    let names: Vec<_> = all(&place.path("some")).into_keys().collect();
    assert_eq!(names, [Path::new("plain.txt"), Path::new("z")]);
}

/// Each damage, and the cause that names it.
const DAMAGES: [(&str, &str); 5] = [
    ("cut", "input-corrupt"),
    ("flipped", "input-corrupt"),
    ("gone", "input-missing"),
    ("other", "original-differs"),
    ("trailed", "input-corrupt"),
];

fn damage(out: &Path) {
    let at = |name: &str| out.join(format!("{name}.gz"));
    let bytes = |name: &str| fs::read(at(name)).unwrap();
    let cut = bytes("cut");
    fs::write(at("cut"), &cut[..cut.len() - 5]).unwrap();
    let mut flipped = bytes("flipped");
    let middle = flipped.len() / 2;
    flipped[middle] ^= 16;
    fs::write(at("flipped"), flipped).unwrap();
    fs::remove_file(at("gone")).unwrap();
    fs::write(at("other"), bytes("a")).unwrap();
    fs::write(at("trailed"), [&bytes("trailed")[..], b"more"].concat()).unwrap();
}

#[tokio::test]
async fn what_is_damaged_or_missing_fails_by_name_and_all_else_comes_back() {
    for how in ["--pack 1", "--pack 8", "--transfer wire --delivery queue-group --pack 8"] {
        let place = Place::new().await;
        for (number, name) in (0..).zip(["a", "cut", "flipped", "gone", "other", "trailed", "z"]) {
            write(&place.path("in").join(name), &generated(DataKind::Text, number, 200_000));
        }
        let made = "run in --out out --name t -q --workers 2 --codec gzip:6";
        place.run(made).await.with_code(0);
        damage(&place.path("out/in"));
        let restore = format!("restore runs/t/staged --out back --name r -q --workers 2 {how}");
        let ended = place.run(&restore).await.with_code(1);
        assert!(ended.stderr.contains("5 of 7 tasks failed"), "{how}: {ended:?}");
        let (folder, back) = (place.folder("r/staged"), place.path("back/in"));
        let failed = fs::read_to_string(folder.join("failed.txt")).unwrap();
        for (index, (name, cause)) in (1..).zip(DAMAGES) {
            assert_eq!(failure(&folder, index).0, cause, "{how}: {name}: {failed}");
            let line = failed.lines().find(|line| line.contains(&format!("{name}.gz")));
            assert!(line.is_some_and(|line| line.contains(cause)), "{how}: {name}: {failed}");
            assert!(!back.join(name).exists(), "{how}: {name} has its name");
        }
        for name in ["a", "z"] {
            assert!(
                fs::read(back.join(name)).unwrap()
                    == fs::read(place.path("in").join(name)).unwrap()
            );
        }
        expect_no_parts(&place.path("back"));
        place.run("verify runs/r/staged").await.with_code(1);
        // Once the outputs are whole again, so is what comes of them.
        place.run("gather runs/t/staged --repair -q --workers 2").await.with_code(0);
        place.run("gather runs/r/staged --retry-failed -q --workers 2").await.with_code(0);
        expect_equal(&place.path("in"), &back);
    }
}

#[tokio::test]
async fn a_flipped_bit_of_what_was_only_stored_is_found_by_its_digest() {
    let place = Place::new().await;
    for name in ["a", "b"] {
        write(&place.path("in").join(name), b"without a checksum of its own");
    }
    place.run("run in --out out --name t -q --workers 1 --codec store").await.with_code(0);
    let mut bytes = fs::read(place.path("out/in/a")).unwrap();
    bytes[3] ^= 1;
    fs::write(place.path("out/in/a"), bytes).unwrap();
    place.run("restore runs/t/staged --out back --name r -q --workers 1").await.with_code(1);
    assert_eq!(failure(&place.folder("r/staged"), 0).0, "original-differs");
    assert!(!place.path("back/in/a").exists() && place.path("back/in/b").exists());
}

#[tokio::test]
async fn verify_tells_what_was_restored_from_what_is_there_by_now() {
    let place = Place::new().await;
    by_stock_tools(&place);
    place.run("restore in --out back --name r -q --workers 2").await.with_code(0);
    place.run("verify runs/r/staged").await.with_code(0);
    place.run("verify runs/r/staged --inputs").await.with_code(0);
    let mut bytes = fs::read(place.path("back/in/members")).unwrap();
    bytes[17] ^= 1;
    fs::write(place.path("back/in/members"), &bytes).unwrap();
    let verified = place.run("verify runs/r/staged").await.with_code(1);
    assert!(verified.stdout.contains("back/in/members"), "{verified:?}");
    assert!(verified.stdout.contains("4 good, 1 bad"), "{verified:?}");
    // It is made again, and nothing else.
    place.run("gather runs/r/staged --repair -q --workers 1").await.with_code(0);
    place.run("verify runs/r/staged --inputs").await.with_code(0);
    fs::write(place.path("in/members.gz"), "another").unwrap();
    let verified = place.run("verify runs/r/staged --inputs").await.with_code(1);
    assert!(verified.stdout.contains("1 not compared"), "{verified:?}");
    // A ledger that is gone is written again by what the outputs prove.
    let ledger = place.folder("r/staged/manifest.jsonl");
    fs::remove_file(&ledger).unwrap();
    fs::rename(place.path("in/members.gz"), place.path("away")).unwrap();
    place.run("gather runs/r/staged --repair -q --workers 1").await.with_code(1);
    let gathered = fs::read_to_string(&ledger).unwrap();
    assert_eq!(gathered.matches("\"worker\":\"gatherer\"").count(), 4, "{gathered}");
}

#[tokio::test]
async fn small_files_are_restored_in_packs_and_what_turns_out_to_be_large_alone() {
    for how in ["", "--transfer wire", "--transfer wire --delivery queue-group"] {
        let place = Place::new().await;
        for number in 0..40_u32 {
            let bytes = format!("file {number} ").repeat(number as usize * 7).into_bytes();
            write(&place.path(&format!("in/f {number:02}")), &bytes);
        }
        // Nobody can tell before it is restored.
        write(&place.path("in/f 17"), &vec![0; 3 * MIB]);
        let gzip = Command::new("gzip").args(["-r", "-k"]).arg(place.path("in")).status().unwrap();
        assert!(gzip.success());
        fs::create_dir(place.path("packed")).unwrap();
        for number in 0..40 {
            let name = format!("f {number:02}.gz");
            fs::rename(place.path("in").join(&name), place.path("packed").join(&name)).unwrap();
        }
        let restore = format!("restore packed --out back --name r -q --workers 2 --pack 8 {how}");
        place.run(&restore).await.with_code(0);
        expect_equal(&place.path("in"), &place.path("back/packed"));
        let outcomes = outcomes(&place.folder("r/staged"));
        let executions: BTreeSet<_> =
            outcomes.iter().map(|outcome| outcome["execution"].to_string()).collect();
        assert!((5..=12).contains(&executions.len()), "{how}: {}", executions.len());
        let alone = outcomes.iter().find(|outcome| outcome["index"] == 17).unwrap();
        assert_eq!(alone["round"], 1, "{how}: {alone}");
        place.run("verify runs/r/staged --inputs").await.with_code(0);
    }
}
