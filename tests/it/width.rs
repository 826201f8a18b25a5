//! Nothing is readable more widely than the file that it was made from, at any moment, and nothing is made behind a link.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use bagpress_codec::DataKind;

use crate::another_user::{WAYS, can_be_another};
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{failure, generated};
use crate::process;

/// A group that no user of a test is in.
const STRANGERS: u32 = 54_321;
const NOBODY: u32 = 65_534;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// A closed folder with an open file, a set-user-id program, and one that a group may read.
fn tree(place: &Place) {
    for (name, mode) in [("closed/open", 0o644), ("program", 0o4755), ("group", 0o640)] {
        let path = place.path("in").join(name);
        write(&path, &generated(DataKind::Text, 1, 10_000));
        set_mode(&path, mode);
    }
    // With it its folders are made before their outputs are.
    fs::create_dir_all(place.path("in/sticky/empty")).unwrap();
    for (folder, mode) in [("in", 0o2775), ("in/closed", 0o700), ("in/sticky", 0o1777)] {
        set_mode(&place.path(folder), mode);
    }
}

async fn outputs_are_as_wide(ways: &[&str]) {
    let place = Place::new().await;
    tree(&place);
    set_mode(&place.path(""), 0o700);
    if rustix::process::geteuid().is_root() {
        chown(place.path("in/group"), Some(NOBODY), Some(STRANGERS)).unwrap();
    }
    for (number, way) in ways.iter().enumerate() {
        let words = format!("run in --out out{number} --workers 1 --name t{number} -q {way}");
        place.finish(place.unprivileged(&words)).await.with_code(0);
        let out = place.path(&format!("out{number}"));
        // Everything lies in a folder that its user alone may enter, and nothing says that a copy may lie elsewhere.
        assert_eq!(mode(&out), 0o700, "{way}");
        assert_eq!(mode(&out.join("in")), 0o775, "{way}");
        assert_eq!(mode(&out.join("in/closed")), 0o700, "{way}");
        assert_eq!(mode(&out.join("in/sticky")), 0o755, "{way}");
        assert_eq!(mode(&out.join("in/closed/open.gz")), 0o644, "{way}");
        assert_eq!(mode(&out.join("in/program.gz")), 0o755, "{way}");
        let group = fs::metadata(out.join("in/group.gz")).unwrap();
        let source = fs::metadata(place.path("in/group")).unwrap();
        let expected = if source.gid() == group.gid() { 0o640 } else { 0o600 };
        assert_eq!(group.mode() & 0o7777, expected, "{way}: group {}", group.gid());
    }
}

#[tokio::test]
async fn outputs_and_their_folders_are_as_wide_as_their_sources_when_staged() {
    outputs_are_as_wide(&WAYS[..4]).await;
}

#[tokio::test]
async fn outputs_and_their_folders_are_as_wide_as_their_sources_as_objects() {
    outputs_are_as_wide(&WAYS[4..]).await;
}

#[tokio::test]
async fn root_keeps_owner_and_group_of_what_it_compresses() {
    if !can_be_another() {
        return;
    }
    let place = Place::new().await;
    tree(&place);
    for path in ["in/group", "in/closed"] {
        chown(place.path(path), Some(NOBODY), Some(STRANGERS)).unwrap();
    }
    for transfer in ["auto", "wire"] {
        let words = format!("run in --out {transfer} --workers 1 --name {transfer} -q");
        place.run(&format!("{words} --transfer {transfer}")).await.with_code(0);
        for (path, wanted) in [("in/group.gz", 0o640), ("in/closed", 0o700)] {
            let found = fs::metadata(place.path(transfer).join(path)).unwrap();
            let owner = (found.uid(), found.gid(), found.mode() & 0o7777);
            assert_eq!(owner, (NOBODY, STRANGERS, wanted), "{transfer}: {path}");
        }
    }
}

#[tokio::test]
async fn a_folder_for_outputs_is_open_where_all_that_is_read_is() {
    let place = Place::new().await;
    write(&place.path("in/file"), b"for everybody");
    set_mode(&place.path(""), 0o755);
    let open = place.path("").ancestors().all(|above| mode(above) & 0o001 != 0);
    place.run("run in --out out --workers 1 --name t -q").await.with_code(0);
    assert_eq!(mode(&place.path("out")) & 0o005 != 0, open);
    // However many files of a closed folder are named, one by one.
    for index in 0..40 {
        write(&place.path(&format!("closed/{index}")), b"for nobody else");
    }
    set_mode(&place.path("closed"), 0o700);
    let names: Vec<_> = (0..40).map(|index| format!("closed/{index}")).collect();
    let words = format!("run {} --out copies --workers 1 --name v -q", names.join(" "));
    place.run(&words).await.with_code(0);
    assert_eq!(mode(&place.path("copies")), 0o700);
    // One that was there is its owner's to open and close.
    fs::create_dir(place.path("mine")).unwrap();
    set_mode(&place.path("mine"), 0o711);
    set_mode(&place.path(""), 0o700);
    place.run("run in --out mine --workers 1 --name u -q").await.with_code(0);
    assert_eq!(mode(&place.path("mine")), 0o711);
}

#[tokio::test]
async fn a_link_in_the_place_of_an_output_folder_leads_no_output_elsewhere() {
    for transfer in ["auto", "wire"] {
        let place = Place::new().await;
        write(&place.path("doc/a"), b"one");
        write(&place.path("doc/deep/b"), b"another");
        for folder in ["out", "elsewhere", "out/doc"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        symlink(place.path("elsewhere"), place.path("out/doc/deep")).unwrap();
        let words = format!("run doc --out out --workers 1 --name t -q --transfer {transfer}");
        let ran = place.run(&words).await.with_code(1);
        assert!(ran.stderr.contains("1 of 2 tasks failed"), "{ran:?}");
        let (cause, message) = failure(&place.folder("t/staged"), 1);
        assert_eq!(cause, "output-unwritable", "{message}");
        assert!(message.contains("symbolic link"), "{message}");
        assert_eq!(fs::read_dir(place.path("elsewhere")).unwrap().count(), 0);
        assert!(place.path("out/doc/a.gz").is_file());
    }
}

#[tokio::test]
async fn inputs_behind_links_that_their_user_named_are_read() {
    let place = Place::new().await;
    write(&place.path("data/real/file"), b"as it is");
    symlink(place.path("data"), place.path("link")).unwrap();
    symlink("real/file", place.path("data/file-link")).unwrap();
    fs::write(place.path("list"), "link/real/file\n").unwrap();
    for (name, inputs, output) in [
        ("folder", "link/real", "real/file.gz"),
        ("itself", "link", "link/real/file.gz"),
        ("file", "data/file-link", "file-link.gz"),
        ("list", "--files-from list", "link/real/file.gz"),
    ] {
        for transfer in ["auto", "wire"] {
            let out = format!("{name}-{transfer}");
            let words = format!("run {inputs} --out {out} --workers 1 --name {out} -q");
            place.run(&format!("{words} --transfer {transfer}")).await.with_code(0);
            assert!(place.path(&out).join(output).is_file(), "{out}");
        }
    }
}

#[tokio::test]
async fn local_workers_may_read_the_inputs_and_write_the_outputs_and_nothing_else() {
    let place = Place::new().await;
    write(&place.path("in/file"), &generated(DataKind::Random, 1, 1_000));
    write(&place.path("beside/file"), b"not for them");
    // Data that takes a while, so that there are workers to be looked at.
    for index in 0..64 {
        let data = generated(DataKind::Text, index, 2 << 20);
        write(&place.path(&format!("in/{index}")), &data);
    }
    let running = place.spawn("run in --out out --workers 2 --name t -q --codec gzip:9");
    let worker = place
        .until("a worker", || {
            process::children(running.pid()).into_iter().find(process::Child::is_worker)
        })
        .await;
    let words = fs::read(format!("/proc/{}/cmdline", worker.pid)).unwrap();
    let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let allowed: Vec<_> = words
        .windows(2)
        .filter(|pair| pair[0].starts_with("--allow"))
        .map(|pair| format!("{} {}", pair[0], pair[1]))
        .collect();
    let read = format!("--allow-read {}", place.path("in").display());
    let write = format!("--allow-write {}", place.path("out").display());
    assert_eq!(allowed, [read, write]);
    running.ended(&place).await.with_code(0);
}
