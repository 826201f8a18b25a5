//! Which files a bag is made of: what is left out is named, and what cannot be run fails alone.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use walkdir::WalkDir;

use crate::bad_input::expect_refusal;
use crate::files::write;
use crate::harness::{Ended, Place};
use crate::ledger::{expect_each_done_once, failure};

const WAYS: [(&str, &str); 4] = [
    ("staged", "jetstream"),
    ("staged", "queue-group"),
    ("objects", "jetstream"),
    ("objects", "queue-group"),
];

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    let file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// What is below a folder, relative to it: folders end in a slash.
fn below(root: &Path) -> Vec<String> {
    let entries = WalkDir::new(root).min_depth(1).sort_by_file_name().into_iter();
    let names = entries.map(Result::unwrap).map(|entry| {
        let name = entry.path().strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if entry.file_type().is_dir() { name + "/" } else { name }
    });
    names.collect()
}

#[tokio::test]
async fn an_unreadable_folder_fails_by_name_and_the_rest_is_run() {
    let place = Place::new().await;
    write(&place.path("tree/a"), b"a");
    write(&place.path("tree/locked/b"), b"b");
    write(&place.path("tree/z/c"), b"c");
    fs::set_permissions(place.path("tree/locked"), fs::Permissions::from_mode(0o000)).unwrap();
    for (results, delivery) in WAYS {
        let (name, out) = (format!("{results}-{delivery}"), format!("out-{results}-{delivery}"));
        let how = format!("--results {results} --delivery {delivery} --workers 1 -q");
        let words = format!("run tree --out {out} --name {name} {how}");
        let ran = place.finish(place.unprivileged(&words)).await.with_code(1);
        assert!(ran.stderr.contains("1 of 3 tasks failed"), "{ran:#?}");
        let (cause, message) = failure(&place.folder(&format!("{name}/{results}")), 1);
        assert_eq!(cause, "input-unreadable");
        assert!(message.ends_with("tree/locked: Permission denied (os error 13)"), "{message}");
        assert!(ran.stdout.contains(&message), "{ran:#?}");
        assert_eq!(below(&place.path(&out)), ["tree/", "tree/a.gz", "tree/z/", "tree/z/c.gz"]);
    }
    chown(place.path("tree/locked"), Some(0), Some(0)).ok();
    fs::set_permissions(place.path("tree/locked"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn a_name_that_no_output_can_have_fails_by_name_and_the_rest_is_run() {
    for (results, delivery) in WAYS {
        let place = Place::new().await;
        let long = "x".repeat(253);
        write(&place.path("tree/a"), b"a");
        write(&place.path("tree").join(&long), b"long");
        let how = format!("--results {results} --delivery {delivery} --workers 1 -q");
        let ran = place.run(&format!("run tree --out out --name t {how}")).await.with_code(1);
        assert!(ran.stderr.contains("note: will fail: "), "{ran:#?}");
        // To run it again would fail again.
        assert!(
            !ran.stderr.contains("--retry-failed") && ran.stderr.contains("--update"),
            "{ran:#?}"
        );
        let (cause, message) = failure(&place.folder(&format!("t/{results}")), 1);
        assert_eq!(cause, "output-unwritable");
        assert!(message.ends_with(&format!("{long}.gz: File name too long (os error 36)")));
        assert_eq!(below(&place.path("out")), ["tree/", "tree/a.gz"]);
    }
}

#[tokio::test]
async fn a_path_that_the_system_cannot_open_fails_by_name_and_the_rest_is_run() {
    let place = Place::new().await;
    write(&place.path("tree/a"), b"a");
    // A folder after the other, each from within the last: together longer than a path can be.
    let script = r"cd tree; d=$(printf 'd%.0s' $(seq 200)); for i in $(seq 21); do mkdir $d; cd $d; done; echo x >x";
    let mut deep = place.command(Path::new("bash"), "-c");
    deep.arg(script);
    place.finish(deep).await.with_code(0);
    let ran = place.run("run tree --out out --workers 1 --name t -q").await.with_code(1);
    let (cause, message) = failure(&place.folder("t/staged"), 1);
    assert_eq!(cause, "input-unreadable");
    assert!(message.starts_with('…') && message.contains("File name too long"), "{message}");
    assert!(message.len() <= 1024 && ran.stderr.len() < 4096, "{ran:#?}");
    let mut clean = place.command(Path::new("rm"), "-rf");
    clean.arg(place.path("tree"));
    place.finish(clean).await.with_code(0);
}

#[tokio::test]
async fn runs_and_outputs_are_left_out_of_what_is_compressed() {
    let place = Place::new().await;
    write(&place.path("e/f"), b"1\n");
    let run = async |words: &str| {
        let mut command = place.bagpress(words);
        command.current_dir(place.path("e"));
        place.finish(command).await
    };
    run("run . --out ../one --workers 1 -q").await.with_code(0);
    let again = run("run . --out ../two --workers 1 -q").await.with_code(0);
    assert!(again.stderr.contains("1 run folder (./runs/"), "{again:#?}");
    run("run . --out packed --runs deep/er --workers 1 -q").await.with_code(0);
    run("run . --out packed --runs deep/er --update --workers 1 -q").await.with_code(0);
    for out in ["one", "two", "e/packed"] {
        assert_eq!(below(&place.path(out)), ["e/", "e/f.gz"]);
    }
    let refused = run("run . --out .").await;
    expect_refusal(&refused, 2, &["folder of the outputs", "--out"]);
}

#[tokio::test]
async fn outputs_beside_their_files_are_not_compressed_by_the_next_run() {
    let place = Place::new().await;
    write(&place.path("a/f"), b"f");
    write(&place.path("a/other.gz"), b"somebody's, of no file here");
    place.run("run a --out . --workers 1 -q").await.with_code(0);
    let again = place.run("run a --out . --update --workers 1 -q").await.with_code(0);
    assert!(
        again.stderr.contains("2 outputs of earlier runs (a/f.gz, a/other.gz.gz)"),
        "{again:#?}"
    );
    assert_eq!(below(&place.path("a")), ["f", "f.gz", "other.gz", "other.gz.gz"]);
}

#[tokio::test]
async fn what_is_skipped_is_named_by_kind() {
    let place = Place::new().await;
    write(&place.path("tree/a"), b"a");
    for name in ["l1", "l2", "l3", "l4", "x\nerror: forged"] {
        symlink("a", place.path("tree").join(name)).unwrap();
    }
    let mut fifo = place.command(Path::new("mkfifo"), "tree/pipe");
    fifo.current_dir(place.path(""));
    place.finish(fifo).await.with_code(0);
    let ran = place.run("run tree --out out --workers 1 -q").await.with_code(0);
    let said = "note: skipped: 5 symbolic links (tree/l1, tree/l2, tree/l3, …), 1 FIFO (tree/pipe)";
    assert!(ran.stderr.contains(said), "{ran:#?}");
    symlink("nowhere", place.path("dangling")).unwrap();
    let refused = place.run("run dangling --out out").await;
    expect_refusal(&refused, 2, &["dangling symbolic link, to nowhere"]);
}

#[tokio::test]
async fn of_two_runs_of_one_name_one_is_made_and_the_other_refused() {
    let place = Place::new().await;
    for folder in ["a", "b"] {
        for file in 0..50 {
            write(&place.path(folder).join(file.to_string()), folder.as_bytes());
        }
    }
    let one = place.spawn("run a --out out --name t --workers 1 -q");
    let other = place.spawn("run b --out out --name t --workers 1 -q");
    let ended: [Ended; 2] = [one.ended(&place).await, other.ended(&place).await];
    let mut codes = ended.each_ref().map(|ended| ended.code);
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(2)], "{ended:#?}");
    let refused = ended.iter().find(|ended| ended.code == Some(2)).unwrap();
    let named = ["being gathered by process", "the name t is taken"];
    assert!(named.iter().any(|words| refused.stderr.contains(words)), "{refused:#?}");
    expect_each_done_once(&place.folder("t/staged"), 50);
    place.run("verify runs/t/staged").await.with_code(0);
}

#[tokio::test]
async fn a_run_folder_of_another_version_is_refused() {
    let place = Place::new().await;
    place.run("run --tasks 2 --bytes 1KiB --workers 1 --name t -q").await.with_code(0);
    let path = place.folder("t/staged/bag.json");
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replacen("\"v\": 1", "\"v\": 2", 1);
    assert!(newer != text);
    fs::write(&path, newer).unwrap();
    for verb in ["gather", "verify"] {
        let refused = place.run(&format!("{verb} runs/t/staged")).await;
        expect_refusal(&refused, 2, &["version 2", "version 1"]);
    }
}

#[tokio::test]
async fn excluded_files_are_left_out_and_counted() {
    let place = Place::new().await;
    for file in ["a.tmp", "keep.tmp", "b.txt", "build/x", "deep/build/y"] {
        write(&place.path("tree").join(file), b"x");
    }
    let globs = "--exclude *.tmp --exclude !keep.tmp --exclude /build/";
    let ran = place.run(&format!("run tree --out out {globs} --workers 1 -q")).await.with_code(0);
    assert!(ran.stderr.contains("2 excluded (tree/a.tmp, tree/build)"), "{ran:#?}");
    let outputs = below(&place.path("out/tree"));
    assert_eq!(outputs, ["b.txt.gz", "deep/", "deep/build/", "deep/build/y.gz", "keep.tmp.gz"]);
    expect_refusal(&place.run("run tree --out o --exclude [z-a]").await, 2, &["[z-a]"]);
}

#[tokio::test]
async fn a_list_of_files_keeps_their_paths() {
    let place = Place::new().await;
    write(&place.path("a/w.log"), b"of a");
    write(&place.path("b/w.log"), b"of b");
    write(&place.path("b").join(OsStr::from_bytes(b"caf\xe9\nx")), b"no line");
    fs::create_dir(place.path("b/empty")).unwrap();
    let bagpress = env!("CARGO_BIN_EXE_bagpress");
    let mut piped = place.bagpress("");
    let program = piped.get_program().to_owned();
    assert_eq!(program, bagpress);
    piped = place.command(Path::new("sh"), "-c");
    let run = "run --files-from - -0 --out out --name t --workers 1 -q";
    piped.arg(format!("find ./a b -print0 | '{bagpress}' {run}"));
    place.finish(piped).await.with_code(0);
    assert_eq!(unpacked(&place.path("out/a/w.log.gz")), "of a");
    assert_eq!(unpacked(&place.path("out/b/w.log.gz")), "of b");
    assert!(place.path("out/b").join(OsStr::from_bytes(b"caf\xe9\nx.gz")).is_file());
    assert!(place.path("out/b/empty").is_dir());

    write(&place.path("list"), b"a/w.log\n./a/w.log\nnowhere\n");
    let ran = place.run("run --files-from list --out two --name l --workers 1 -q").await;
    let ran = ran.with_code(1);
    assert!(ran.stderr.contains("1 named twice"), "{ran:#?}");
    assert_eq!(failure(&place.folder("l/staged"), 1).0, "input-missing");
    write(&place.path("list"), b"a/w.log\nb/../a/w.log\n");
    let refused = place.run("run --files-from list --out three").await;
    expect_refusal(&refused, 2, &["line 2 of the list list", "upwards"]);
}

/// Runs with `--update`, with what it says it found.
async fn updated(place: &Place, how: &str, name: &str, said: &str) -> Ended {
    let ran = place.run(&format!("run in --out out --name {name} {how}")).await.with_code(0);
    assert!(ran.stderr.contains(&format!("note: {said}")), "{ran:#?}");
    ran
}

#[tokio::test]
async fn an_update_compresses_what_is_new_or_changed() {
    for (results, delivery) in WAYS {
        let place = Place::new().await;
        for name in ["same", "changed", "touched"] {
            write(&place.path("in").join(name), name.as_bytes());
        }
        let how = format!("--results {results} --delivery {delivery} --workers 1 -q");
        place.run(&format!("run in --out out --name t {how}")).await.with_code(0);
        let inode = |name: &str| fs::metadata(place.path(name)).unwrap().ino();
        let same = inode("out/in/same.gz");

        let refused = place.run(&format!("run in --out out {how}")).await;
        expect_refusal(&refused, 2, &["already exists", "--update", "--overwrite"]);
        let update = format!("{how} --update");
        let nothing = updated(&place, &update, "u1", "0 new, 0 changed, 3 up to date").await;
        assert!(nothing.stderr.contains("nothing to do") && nothing.stdout.is_empty());
        assert!(!place.folder("u1").exists());

        let later = SystemTime::now() + Duration::from_secs(3);
        write(&place.path("in/changed"), b"something else");
        write(&place.path("in/new"), b"new");
        for name in ["in/changed", "in/touched"] {
            let file = fs::File::options().append(true).open(place.path(name)).unwrap();
            file.set_modified(later).unwrap();
        }
        let by_content = format!("{update} --checksum");
        let dry = place.run(&format!("run in --out out {by_content} --dry-run")).await;
        assert!(dry.stderr.contains("1 new, 1 changed, 2 up to date"), "{dry:#?}");
        updated(&place, &update, "u2", "1 new, 2 changed, 1 up to date").await;
        let outputs = ["changed", "new", "same", "touched"];
        let texts = outputs.map(|name| unpacked(&place.path(&format!("out/in/{name}.gz"))));
        assert_eq!(texts, ["something else", "new", "same", "touched"]);
        assert_eq!(inode("out/in/same.gz"), same);
        let summary = fs::read(place.folder(&format!("u2/{results}/summary.json"))).unwrap();
        let summary: Value = serde_json::from_slice(&summary).unwrap();
        let counts = ["new", "changed", "up_to_date"].map(|key| summary["selection"][key].clone());
        assert_eq!(counts, [1, 2, 1]);
        updated(&place, &update, "u3", "0 new, 0 changed, 4 up to date").await;
        place.run(&format!("run in --out out --name o {how} --overwrite")).await.with_code(0);
    }
}

#[tokio::test]
async fn an_update_of_an_unfinished_name_says_how_that_goes_on() {
    let (place, server) = Place::with_server().await;
    write(&place.path("in/a"), b"a");
    let at = format!("--server {}", server.url());
    place.run(&format!("submit in --out out --name t {at}")).await.with_code(0);
    let refused = place.run(&format!("run in --out out --name t --update {at}")).await;
    let words = ["the name t is taken by an unfinished bag", "`bagpress gather runs/t/staged`"];
    expect_refusal(&refused, 2, &words);
}

#[tokio::test]
async fn compressed_files_are_left_out_by_their_content() {
    let place = Place::new().await;
    write(&place.path("in/text.gz"), b"a text that is called so");
    write(&place.path("in/photo"), b"\x89PNG\r\n\x1a\n....");
    let ran = place.run("run in --out out --skip-compressed --workers 1 -q").await.with_code(0);
    assert!(ran.stderr.contains("1 compressed already (in/photo)"), "{ran:#?}");
    assert_eq!(below(&place.path("out")), ["in/", "in/text.gz.gz"]);
}

#[tokio::test]
async fn a_dry_run_says_everything_and_makes_nothing() {
    let place = Place::new().await;
    write(&place.path("tree/a b"), b"four");
    write(&place.path("tree").join("x".repeat(254)), b"");
    fs::create_dir(place.path("tree/empty")).unwrap();
    symlink("a", place.path("tree/link")).unwrap();
    let before = below(&place.path("tree"));
    for verb in ["run", "submit"] {
        let dry = place.run(&format!("{verb} tree --out out --dry-run")).await.with_code(1);
        assert!(dry.stdout.contains("'tree/a b' -> 'out/tree/a b.gz'\n"), "{dry:#?}");
        assert!(dry.stdout.contains("fails: output-unwritable: "), "{dry:#?}");
        for words in ["1 symbolic link (tree/link)", "would compress 1 file, 4 bytes", "1 would"] {
            assert!(dry.stderr.contains(words), "{dry:#?}");
        }
    }
    let json = place.run("run tree --out out --dry-run --json").await.with_code(1);
    let found: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!([&found["files"], &found["bytes"], &found["folders"]], [1, 4, 1]);
    assert_eq!(found["refused"][0]["cause"], "output-unwritable");
    assert_eq!(below(&place.path("tree")), before);
    let made = ["out", "runs"].map(|name| place.path(name).exists());
    assert_eq!(made, [false, false]);
    place.run("run tree/link --out tree --dry-run").await.with_code(2);
}

#[tokio::test]
async fn empty_folders_come_back_and_go_with_the_outputs() {
    for results in ["staged", "objects"] {
        let place = Place::new().await;
        write(&place.path("tree/a"), b"a");
        fs::create_dir_all(place.path("tree/empty/in it")).unwrap();
        let mode = fs::Permissions::from_mode(0o750);
        fs::set_permissions(place.path("tree/empty"), mode).unwrap();
        let how = format!("--results {results} --workers 1 -q");
        place.run(&format!("run tree --out out --name t {how}")).await.with_code(0);
        let there = below(&place.path("out"));
        assert_eq!(there, ["tree/", "tree/a.gz", "tree/empty/", "tree/empty/in it/"]);
        let at = |root: &str, name: &str| fs::metadata(place.path(root).join(name)).unwrap();
        for name in ["tree/empty", "tree/empty/in it"] {
            let (source, copy) = (at("", name), at("out", name));
            assert_eq!((source.mode(), source.mtime()), (copy.mode(), copy.mtime()), "{name}");
        }
        place.run(&format!("rm runs/t/{results} --outputs --folder-only")).await.with_code(0);
        assert_eq!(below(&place.path("out")), Vec::<String>::new());
        assert!(!place.path("runs/t").exists());
    }
}

#[tokio::test]
async fn a_flag_that_would_do_nothing_is_refused() {
    let place = Place::new().await;
    write(&place.path("in"), b"in");
    for words in [
        "run in --out o --null",
        "run in --out o --checksum",
        "run in --update --results objects",
        "run in --out o --update --overwrite",
        "run in --files-from list --out o",
        "run --tasks 2 --exclude x",
        "run --tasks 2 --dry-run",
    ] {
        expect_refusal(&place.run(words).await, 2, &[]);
    }
    let made: Vec<PathBuf> = ["o", "runs"].map(|name| place.path(name)).into();
    assert!(made.iter().all(|path| !path.exists()));
}

#[tokio::test]
async fn an_update_replaces_nothing_that_is_no_output() {
    let place = Place::new().await;
    write(&place.path("in/a"), b"a file");
    write(&place.path("out/in/a.gz"), b"MINE");
    let ran = place.run("run in --out out --name t -q --update").await.with_code(1);
    assert!(ran.stdout.contains("output-exists"), "{ran:?}");
    assert_eq!(fs::read(place.path("out/in/a.gz")).unwrap(), b"MINE");
    place.run("run in --out out --name u -q --overwrite").await.with_code(0);
    assert_eq!(crate::taken::content(&place.path("out/in/a.gz")), b"a file");
}

#[tokio::test]
async fn an_empty_list_is_nothing_to_do() {
    let place = Place::new().await;
    fs::write(place.path("list"), b"").unwrap();
    let ran = place.run("run --files-from list --out out").await.with_code(0);
    assert!(ran.stderr.contains("nothing to do"), "{ran:?}");
    assert!(!place.path("out").exists(), "{ran:?}");
    assert_eq!(fs::read_dir(place.path("runs")).map_or(0, Iterator::count), 0);
}
