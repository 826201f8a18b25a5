//! The program as a user who is not root: root may read and write everything, which hides what others meet.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bagpress_codec::DataKind;

use crate::another_user::WAYS;
use crate::files::{expect_outputs, write};
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, failure, generated};

/// Gives a file of these bytes this mode.
fn file_of_mode(path: &Path, bytes: &[u8], mode: u32) {
    write(path, bytes);
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

async fn an_unreadable_file(ways: &[&str]) {
    let place = Place::new().await;
    for (index, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let bytes = generated(DataKind::Text, u32::try_from(index).unwrap(), 40_000);
        file_of_mode(&place.path("in").join(name), &bytes, if name == "b" { 0 } else { 0o644 });
    }
    for (number, way) in ways.iter().enumerate() {
        let words = format!("run in --out out{number} --workers 2 --name t{number} -q {way}");
        let ran = place.finish(place.unprivileged(&words)).await.with_code(1);
        assert!(ran.stderr.contains("1 of 4 tasks failed"), "{way}: {ran:?}");
        let results = if way.contains("objects") { "objects" } else { "staged" };
        let (cause, message) = failure(&place.folder(&format!("t{number}/{results}")), 1);
        assert_eq!(cause, "input-unreadable", "{way}: {message}");
        assert!(message.contains("in/b"), "{way}: {message}");
        let out = place.path(&format!("out{number}/in"));
        let mut names: Vec<_> =
            fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a.gz", "c.gz", "d.gz"], "{way}");
    }
}

#[tokio::test]
async fn an_unreadable_file_fails_alone_by_name_when_staged() {
    an_unreadable_file(&WAYS[..4]).await;
}

#[tokio::test]
async fn an_unreadable_file_fails_alone_by_name_as_objects() {
    an_unreadable_file(&WAYS[4..]).await;
}

async fn read_only_inputs(ways: &[&str]) {
    let place = Place::new().await;
    let modes = [0o444, 0o400, 0o440, 0o644, 0o555];
    for (index, mode) in modes.into_iter().enumerate() {
        // One chunk, and more than two.
        for bytes in [30_000, 1_200_000] {
            let name = format!("in/{mode:o}-{bytes}");
            let bytes = generated(DataKind::Random, u32::try_from(index).unwrap(), bytes);
            file_of_mode(&place.path(&name), &bytes, mode);
        }
    }
    for (number, way) in ways.iter().enumerate() {
        let words = format!("run in --out out{number} --workers 2 --name t{number} -q {way}");
        let ran = place.finish(place.unprivileged(&format!("{words} --deadline 40s"))).await;
        assert_eq!(ran.code, Some(0), "{way}: {ran:?}");
        let results = if way.contains("objects") { "objects" } else { "staged" };
        expect_each_done_once(&place.folder(&format!("t{number}/{results}")), 10);
        expect_outputs(&place.path("in"), &place.path(&format!("out{number}/in")));
    }
}

#[tokio::test]
async fn read_only_inputs_give_outputs_with_their_modes_when_staged() {
    read_only_inputs(&WAYS[..4]).await;
}

#[tokio::test]
async fn read_only_inputs_give_outputs_with_their_modes_as_objects() {
    read_only_inputs(&WAYS[4..]).await;
}

#[tokio::test]
async fn the_program_of_these_tests_may_not_do_everything() {
    let place = Place::new().await;
    fs::create_dir(place.path("closed")).unwrap();
    let mut command = place.unprivileged("run --tasks 1 --bytes 1KiB --runs closed");
    fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    command.env_remove("BAGPRESS_RUNS");
    let ran = place.finish(command).await;
    assert!(ran.code != Some(0) && ran.stderr.contains("Permission denied"), "{ran:?}");
}
