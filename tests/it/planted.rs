//! Links and FIFOs that somebody has put where we read, write and remove: none is followed, and none is waited for.

use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::another_user::{NOBODY, can_be_another, is_root};
use crate::files::write;
use crate::harness::Place;

const RUN: &str = "run --tasks 2 --bytes 1KiB --workers 1 -q --name";

#[tokio::test]
async fn no_link_in_a_run_folder_is_written_through() {
    let place = Place::new().await;
    let dotfile = place.path("home/.profile");
    write(&dotfile, b"mine");
    let planted = [
        ".lock",
        "server.txt",
        "server.part",
        "bag.part",
        "manifest.jsonl",
        "attempts.jsonl",
        "failed.txt",
        "summary.txt",
        "summary.json",
        "summary.part",
        "logs/producer.log",
        "logs/worker_0.log",
        "results/stats_0.json",
        "logs",
        "results",
        ".broker",
    ];
    for (number, planted) in planted.into_iter().enumerate() {
        let folder = place.folder(&format!("t{number}/staged"));
        let link = folder.join(planted);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let is_folder = ["logs", "results", ".broker"].contains(&planted);
        symlink(if is_folder { place.path("home") } else { dotfile.clone() }, &link).unwrap();
        // A gatherer that offers tasks reads what came of earlier offers.
        let how = if planted == "attempts.jsonl" { "--delivery queue-group" } else { "" };
        let ran = place.run(&format!("{RUN} t{number} {how}")).await;
        assert_eq!(fs::read(&dotfile).unwrap(), b"mine", "{planted}: {ran:?}");
        assert_eq!(fs::read_dir(place.path("home")).unwrap().count(), 1, "{planted}: {ran:?}");
        match ran.code {
            Some(0) => assert!(!link.is_symlink(), "{planted}: {ran:?}"),
            code => assert!(code == Some(2) && ran.stderr.contains(planted), "{planted}: {ran:?}"),
        }
    }
}

#[tokio::test]
async fn no_fifo_in_a_run_folder_is_waited_for() {
    let place = Place::new().await;
    place.run(&format!("{RUN} t")).await.with_code(0);
    for (planted, verb) in
        [("bag.json", "rm"), ("manifest.jsonl", "status"), ("server.txt", "rm"), (".lock", "rm")]
    {
        let path = place.folder("t/staged").join(planted);
        let aside = place.path("aside");
        fs::rename(&path, &aside).unwrap();
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let ran = place.run(&format!("{verb} runs/t/staged")).await.with_code(2);
        assert!(ran.stderr.contains(planted) && ran.stderr.contains("not a file"), "{ran:?}");
        fs::rename(&aside, &path).unwrap();
    }
    place.run("rm runs/t/staged").await.with_code(0);
}

/// What a finished run leaves behind whose outputs are in `out`, as somebody else may write it.
async fn finished(place: &Place, name: &str) {
    write(&place.path("in/a"), b"bytes of a");
    let run = format!("run in --out out-{name} --name {name} --workers 1 -q");
    place.run(&run).await.with_code(0);
}

fn bag_of(folder: &Path) -> String {
    let text = fs::read(folder.join("bag.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    json["bag"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_sweep_removes_nothing_that_strangers_or_links_lead_to() {
    let place = Place::new().await;
    for name in ["evil", "linked", "ours"] {
        finished(&place, name).await;
        let parts = place.path(&format!("out-{name}/.bagpress-part"));
        let parts = parts.join(bag_of(&place.folder(&format!("{name}/staged"))));
        write(&parts.join("0.0-x"), b"left");
        write(&place.folder(&format!("{name}/staged")).join(".broker/server.conf"), b"left");
    }
    // A run that is elsewhere, and a link to it; a store and part files that are links.
    fs::rename(place.path("runs/linked/staged"), place.path("elsewhere")).unwrap();
    symlink(place.path("elsewhere"), place.path("runs/linked/staged")).unwrap();
    finished(&place, "store").await;
    write(&place.path("victim/file"), b"mine");
    symlink(place.path("victim"), place.folder("store/staged").join(".broker")).unwrap();
    finished(&place, "parts").await;
    let bag = bag_of(&place.folder("parts/staged"));
    write(&place.path("victim").join(&bag).join("file"), b"mine");
    symlink(place.path("victim"), place.path("out-parts/.bagpress-part")).unwrap();
    if can_be_another() {
        lchown(place.folder("evil/staged"), Some(NOBODY), Some(NOBODY)).unwrap();
    }

    let swept = place.run("rm --orphans").await.with_code(0);
    assert!(place.path("victim/file").is_file() && !place.path("victim/lock").exists());
    assert!(place.path("victim").join(bag).join("file").is_file(), "{swept:?}");
    assert!(place.path("elsewhere/.broker/server.conf").is_file(), "{swept:?}");
    assert!(place.path("out-linked/.bagpress-part").is_dir(), "{swept:?}");
    for skipped in ["linked/staged: a link leads to it", "store/staged"] {
        assert!(swept.stderr.contains(&format!("skipped: runs/{skipped}")), "{swept:?}");
    }
    if is_root() {
        assert!(place.path("out-evil/.bagpress-part").is_dir(), "{swept:?}");
        assert!(place.folder("evil/staged/.broker/server.conf").is_file(), "{swept:?}");
        let words = "skipped: runs/evil/staged: runs/evil/staged belongs to user 65534";
        assert!(swept.stderr.contains(words), "{swept:?}");
    }
    assert!(!place.path("out-ours/.bagpress-part").exists(), "{swept:?}");
    assert!(!place.folder("ours/staged/.broker").exists(), "{swept:?}");
}

#[tokio::test]
async fn rm_removes_no_output_and_no_folder_that_a_link_leads_to() {
    let place = Place::new().await;
    finished(&place, "t").await;
    fs::rename(place.path("out-t/in"), place.path("victim")).unwrap();
    symlink(place.path("victim"), place.path("out-t/in")).unwrap();
    let stats = place.folder("t/staged/results/more");
    symlink(place.path("victim"), stats).unwrap();
    let removed = place.run("rm runs/t/staged --outputs").await.with_code(0);
    assert!(place.path("victim/a.gz").is_file(), "{removed:?}");
    assert!(removed.stderr.contains("kept: ") && removed.stderr.contains("in/a.gz"), "{removed:?}");
    assert!(!place.path("runs/t").exists());
}

#[tokio::test]
async fn what_lies_in_the_place_of_an_output_is_neither_followed_nor_waited_for() {
    let place = Place::new().await;
    finished(&place, "t").await;
    let output = place.path("out-t/in/a.gz");
    let aside = place.path("aside.gz");
    fs::rename(&output, &aside).unwrap();
    symlink(&aside, &output).unwrap();
    let linked = place.run("verify runs/t/staged").await.with_code(1);
    assert!(linked.stdout.contains("a.gz: it is not a file"), "{linked:?}");
    fs::remove_file(&output).unwrap();
    mkfifoat(CWD, &output, Mode::RUSR | Mode::WUSR).unwrap();
    let waits = place.run("verify runs/t/staged").await.with_code(1);
    assert!(waits.stdout.contains("a.gz: it is not a file"), "{waits:?}");
    let removed = place.run("rm runs/t/staged --outputs").await.with_code(0);
    assert!(removed.stderr.contains("a.gz: it is not a file"), "{removed:?}");
    assert!(output.exists());
}
