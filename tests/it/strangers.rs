//! Run folders that are another user's, or that others can write to: what they say is not done, unless who runs the program
//! insists.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::another_user::{NOBODY, can_be_another};
use crate::bad_input::expect_refusal;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::expect_each_done_once;

const BAG: &str = "run in --out out --name t --workers 1 -q";
/// What a run folder is asked for, and told.
const VERBS: [&str; 7] = [
    "gather runs/t/staged -q --workers 1",
    "gather runs/t/staged -q --workers 1 --repair",
    "status runs/t/staged",
    "verify runs/t/staged",
    "cancel runs/t/staged",
    "rm runs/t/staged",
    "rm runs/t/staged --outputs --folder-only",
];

async fn place() -> Place {
    let place = Place::new().await;
    write(&place.path("in/a"), &b"bytes of a ".repeat(1000));
    write(&place.path("in/b"), &b"bytes of b ".repeat(1000));
    place
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn chown(path: &Path, owner: u32) {
    for entry in WalkDir::new(path) {
        lchown(entry.unwrap().path(), Some(owner), Some(owner)).unwrap();
    }
}

/// A finished run of `in`, that does not look so any more: gathering it runs everything anew. `targets` are what its list
/// says in place of `in/a` and `in/b`.
async fn unfinished(place: &Place, targets: [&str; 2]) -> PathBuf {
    place.run(BAG).await.with_code(0);
    let folder = place.folder("t/staged");
    for gone in ["summary.json", "summary.txt", "manifest.jsonl"] {
        fs::remove_file(folder.join(gone)).unwrap();
    }
    fs::remove_dir_all(place.path("out")).unwrap();
    fs::create_dir(place.path("out")).unwrap();
    let list = fs::read_to_string(folder.join("inputs.jsonl")).unwrap();
    let [a, b] = targets.map(|target| format!("\"target\":\"{target}\""));
    let list = list.replace("\"target\":\"in/a\"", &a).replace("\"target\":\"in/b\"", &b);
    fs::write(folder.join("inputs.jsonl"), list).unwrap();
    folder
}

#[tokio::test]
async fn a_strangers_run_folder_is_refused_by_every_verb_and_nothing_of_it_is_done() {
    if !can_be_another() {
        return;
    }
    let place = place().await;
    let evil = place.path("home/.bash_login_evil");
    fs::create_dir(place.path("home")).unwrap();
    let folder = unfinished(&place, [evil.to_str().unwrap(), "in/b"]).await;
    chown(&folder, NOBODY);
    for verb in VERBS {
        let refused = place.run(verb).await;
        let words = ["runs/t/staged belongs to user 65534, and this is user 0", "--trust-folder"];
        expect_refusal(&refused, 2, &words);
        assert!(!place.path("home/.bash_login_evil.gz").exists(), "{verb}: {refused:?}");
        assert!(folder.join("bag.json").is_file() && !folder.join("manifest.jsonl").exists());
    }
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 0);
}

#[tokio::test]
async fn roots_run_folder_is_refused_for_others_too() {
    if !can_be_another() {
        return;
    }
    let place = place().await;
    place.run(BAG).await.with_code(0);
    let folder = place.folder("t/staged");
    let gather = "gather runs/t/staged -q --workers 1";
    lchown(place.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    let closed = place.finish(place.as_nobody(gather)).await;
    expect_refusal(&closed, 2, &["runs/t/staged cannot be opened: Permission denied"]);
    // As somebody makes it who shares it.
    for entry in WalkDir::new(place.path("runs")) {
        let entry = entry.unwrap();
        chmod(entry.path(), if entry.file_type().is_dir() { 0o755 } else { 0o644 });
    }
    let refused = place.finish(place.as_nobody(gather)).await;
    expect_refusal(&refused, 2, &["belongs to user 0, and this is user 65534", "--trust-folder"]);
    let status = place.as_nobody("status runs/t/staged --trust-folder");
    let status = place.finish(status).await.with_code(0);
    assert!(status.stdout.contains("finished"), "{status:?}");
    expect_each_done_once(&folder, 2);
}

#[tokio::test]
async fn who_insists_gathers_and_removes_the_run_folder_of_another_user() {
    if !can_be_another() {
        return;
    }
    let place = place().await;
    let folder = unfinished(&place, ["in/a", "in/b"]).await;
    chown(&folder, NOBODY);
    place.run(&format!("{} --trust-folder", VERBS[0])).await.with_code(0);
    expect_each_done_once(&folder, 2);
    place.run("verify runs/t/staged --trust-folder").await.with_code(0);
    place.run("rm runs/t/staged --outputs --trust-folder").await.with_code(0);
    assert!(!folder.exists() && !place.path("out/in").exists());
}

#[tokio::test]
async fn a_target_that_leads_out_of_the_outputs_folder_is_refused_by_who_insists_too() {
    let place = place().await;
    fs::create_dir(place.path("home")).unwrap();
    let absolute = place.path("home/.bash_login_evil");
    for target in [absolute.to_str().unwrap(), "../home/.bash_login_evil", "in/../../home/evil"] {
        let folder = unfinished(&place, [target, "in/b"]).await;
        for verb in [VERBS[0], VERBS[1]] {
            let refused = place.run(&format!("{verb} --trust-folder --deadline 20s")).await;
            assert!(refused.code.is_some_and(|code| code != 0), "{target}: {refused:?}");
            assert!(refused.stderr.contains("leads out of the outputs' folder"), "{refused:?}");
        }
        assert_eq!(fs::read_dir(place.path("home")).unwrap().count(), 0, "{target}");
        fs::remove_dir_all(folder).unwrap();
    }
    // A folder that is made, too.
    let folder = unfinished(&place, ["in/a", "in/b"]).await;
    let line = r#"{"target":"../home/made","mode":511,"mtime_ns":0}"#;
    fs::write(folder.join("folders.jsonl"), format!("{line}\n")).unwrap();
    let refused = place.run(VERBS[0]).await;
    assert!(refused.stderr.contains("leads out of the outputs' folder"), "{refused:?}");
    assert_eq!(fs::read_dir(place.path("home")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_others_can_write_to_is_not_believed_and_named_with_what_helps() {
    let place = place().await;
    place.run(BAG).await.with_code(0);
    let folder = place.folder("t/staged");
    write(&folder.join("attempts.jsonl"), b"");
    chmod(&folder.join("attempts.jsonl"), 0o600);
    for (file, verb) in [
        ("bag.json", "status runs/t/staged"),
        ("manifest.jsonl", "status runs/t/staged"),
        ("manifest.jsonl", "gather runs/t/staged -q --workers 1"),
        ("manifest.jsonl", "verify runs/t/staged"),
        ("attempts.jsonl", "status runs/t/staged"),
        ("server.txt", "rm runs/t/staged --dry-run"),
        (".lock", "gather runs/t/staged -q --workers 1"),
        (".lock", "rm runs/t/staged"),
        ("inputs.jsonl", "verify runs/t/staged"),
        ("inputs.jsonl", "rm runs/t/staged --outputs"),
    ] {
        for (mode, said) in [(0o666, "0666"), (0o620, "0620")] {
            chmod(&folder.join(file), mode);
            let refused = place.run(verb).await;
            let path = format!("runs/t/staged/{file}");
            let helps = format!("chmod -R go-w {path}, or insist with --trust-folder");
            expect_refusal(&refused, 2, &[&format!("{path} (mode {said})"), &helps]);
            chmod(&folder.join(file), 0o600);
        }
    }
    chmod(&folder, 0o770);
    let refused = place.run("gather runs/t/staged -q --workers 1").await;
    expect_refusal(&refused, 2, &["others can write to runs/t/staged (mode 0770)"]);
    place.run("status runs/t/staged --trust-folder").await.with_code(0);
    chmod(&folder, 0o700);
    expect_each_done_once(&folder, 2);
    place.run("verify runs/t/staged").await.with_code(0);
}

#[tokio::test]
async fn a_run_folder_is_its_owners_alone_whatever_the_umask() {
    let place = place().await;
    for umask in ["000", "002", "077"] {
        let program = env!("CARGO_BIN_EXE_bagpress");
        let run = format!("run in --out o{umask} --name t{umask} --workers 1 -q");
        let mut command = place.command(Path::new("sh"), "-c");
        command.arg(format!("umask {umask}; exec {program} {run}"));
        place.finish(command).await.with_code(0);
        let run = format!("t{umask}");
        for folder in [place.folder(&run), place.folder(&run).join("staged")] {
            let mode = fs::metadata(&folder).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        }
        for entry in fs::read_dir(place.folder(&run).join("staged")).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o022, 0, "{umask}: {}", entry.path().display());
        }
        let runs = fs::metadata(place.path("runs")).unwrap().permissions().mode();
        assert_eq!(runs & 0o022, 0);
        place.run(&format!("verify runs/{run}/staged")).await.with_code(0);
    }
}

#[tokio::test]
async fn where_everybody_can_put_another_run_folder_none_is_made_or_read() {
    let place = place().await;
    place.run(BAG).await.with_code(0);
    let again = "run --tasks 1 --bytes 1KiB --name u --workers 1 -q";
    chmod(&place.path("runs"), 0o777);
    for words in [again, "gather runs/t/staged -q --workers 1", "status runs/t/staged"] {
        let refused = place.run(words).await;
        expect_refusal(&refused, 2, &["everybody can write to", "chmod o-w"]);
    }
    assert!(!place.path("runs/u").exists());
    chmod(&place.path("runs"), 0o1777);
    // A folder of all runs that is reached by a link of the user's own is fine.
    std::os::unix::fs::symlink("runs", place.path("linked")).unwrap();
    place.run(&format!("{again} --runs linked")).await.with_code(0);
    place.run("status linked/u/staged").await.with_code(0);
    place.run("rm linked/u/staged").await.with_code(0);
    assert!(!place.path("runs/u").exists());
    if !can_be_another() {
        return;
    }
    // Somebody was there first, and keeps the folder in which ours would lie.
    fs::create_dir(place.path("runs/u")).unwrap();
    chmod(&place.path("runs/u"), 0o755);
    chown(&place.path("runs/u"), NOBODY);
    expect_refusal(&place.run(again).await, 2, &["runs/u belongs to user 65534"]);
    assert_eq!(fs::read_dir(place.path("runs/u")).unwrap().count(), 0);
}
