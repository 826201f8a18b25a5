//! Large files as a user who is not root: the join has files of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use bagpress_codec::DataKind;

use crate::another_user::{NOBODY, is_root};
use crate::blocks::{RUN, expect_done, in_time, killed_in, large_of, part_files};
use crate::files::expect_outputs;
use crate::harness::Place;
use crate::ledger::{generated, outcomes};

/// Whose the files are that a user makes who is not root.
fn user() -> u32 {
    if is_root() { NOBODY } else { rustix::process::geteuid().as_raw() }
}

#[tokio::test]
async fn the_files_of_a_join_are_its_users_alone_and_a_run_goes_on_with_them() {
    let run = format!("run in {RUN} --workers 2 --transfer auto");
    let place = in_time(async || {
        let place = Place::new().await;
        large_of(&place, 24);
        // Inputs that their owner may read, and nobody may write.
        fs::set_permissions(place.path("in/large"), fs::Permissions::from_mode(0o400)).unwrap();
        let begun = place.start(place.unprivileged(&run));
        let folder = place.folder("t/staged");
        let is_noted = || part_files(&place).iter().any(|file| file.ends_with("joined.0"));
        let middle = || outcomes(&folder).len() >= 4 && is_noted();
        killed_in(&place, begun, middle).await.then_some(place)
    })
    .await;
    let folder = place.folder("t/staged");
    let names: Vec<_> = part_files(&place)
        .iter()
        .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let joined = names.iter().any(|name| name.starts_with("0.0-"));
    assert!(joined && names.iter().any(|name| name == "joined.0"), "{names:?}");
    for file in part_files(&place) {
        let of_file = fs::metadata(&file).unwrap();
        assert_eq!((of_file.uid(), of_file.mode() & 0o777), (user(), 0o600), "{file:?}");
        let of_folder = fs::metadata(file.parent().unwrap()).unwrap();
        assert_eq!((of_folder.uid(), of_folder.mode() & 0o777), (user(), 0o700), "{file:?}");
    }
    place.finish(place.as_nobody(&run)).await.with_code(0);
    expect_done(&folder, 1);
    assert!(outcomes(&folder).iter().all(|outcome| outcome["round"] == 0));
    expect_outputs(&place.path("in"), &place.path("out/in"));
    let output = fs::metadata(place.path("out/in/large.gz")).unwrap();
    assert_eq!((output.uid(), output.mode() & 0o777), (user(), 0o400));
    assert_eq!(part_files(&place), [""; 0].map(std::path::PathBuf::from));
    place.finish(place.as_nobody("verify runs/t/staged --inputs")).await.with_code(0);
}

#[tokio::test]
async fn an_out_folder_that_its_user_cannot_write_to_is_an_error_before_a_block_is_executed() {
    let place = Place::new().await;
    large_of(&place, 3);
    crate::files::write(&place.path("in/small"), &generated(DataKind::Text, 1, 100));
    fs::create_dir(place.path("out")).unwrap();
    let command = place.unprivileged(&format!("run in {RUN} --workers 2"));
    fs::set_permissions(place.path("out"), fs::Permissions::from_mode(0o555)).unwrap();
    let ran = place.finish(command).await;
    assert!(ran.code.is_some_and(|code| code > 1), "{ran:?}");
    let said =
        ran.stderr.lines().any(|line| line.contains("out") && line.contains("Permission denied"));
    assert!(said, "{ran:?}");
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 0);
    let ledger = place.folder("t/staged").join("manifest.jsonl");
    let lines = fs::read_to_string(&ledger).unwrap_or_default();
    assert_eq!(lines, "", "{ran:?}");

    // Once it may, the same run goes on.
    fs::set_permissions(place.path("out"), fs::Permissions::from_mode(0o755)).unwrap();
    place.finish(place.as_nobody(&format!("run in {RUN} --workers 2"))).await.with_code(0);
    expect_outputs(&place.path("in"), &place.path("out/in"));
}
