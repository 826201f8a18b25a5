//! What `broker --auth` writes: readable by whom it is for, and never through somebody else's link.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::harness::Place;

const ROLES: [&str; 4] = ["admin", "producer", "worker", "observer"];

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn seeds(place: &Place) -> Vec<String> {
    let file = |role| place.path("auth").join(role).join(format!("{role}.nk"));
    ROLES.map(|role| fs::read_to_string(file(role)).unwrap()).to_vec()
}

#[tokio::test]
async fn keys_are_their_owners_alone_and_the_configuration_has_nothing_secret() {
    let place = Place::new().await;
    let written = place.run("broker --auth auth").await.with_code(0);
    assert_eq!(mode(&place.path("auth")), 0o700);
    for role in ROLES {
        assert_eq!(mode(&place.path("auth").join(role)), 0o700);
        assert_eq!(mode(&place.path("auth").join(role).join(format!("{role}.nk"))), 0o600);
    }
    let configuration = place.path("auth/server/auth.conf");
    assert_eq!((mode(&place.path("auth/server")), mode(&configuration)), (0o755, 0o644));
    let configuration = fs::read_to_string(configuration).unwrap();
    for seed in seeds(&place) {
        let shown = [&configuration, &written.stderr, &written.stdout];
        assert!(seed.starts_with("SU") && shown.iter().all(|text| !text.contains(seed.trim())));
    }
    let left = fs::read_dir(place.path("auth/server")).unwrap().count();
    assert_eq!(left, 1, "only the configuration");
}

#[tokio::test]
async fn keys_are_kept_until_their_file_is_removed() {
    let place = Place::new().await;
    place.run("broker --auth auth").await.with_code(0);
    let first = seeds(&place);
    let configuration = place.path("auth/server/auth.conf");
    let text = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, "of an older version").unwrap();
    let again = place.run("broker --auth auth").await.with_code(0);
    assert!(again.stderr.contains("kept the key of the worker"), "{again:?}");
    assert_eq!(
        (seeds(&place), fs::read_to_string(&configuration).unwrap()),
        (first.clone(), text.clone())
    );

    fs::remove_file(place.path("auth/worker/worker.nk")).unwrap();
    let rotated = place.run("broker --auth auth").await.with_code(0);
    assert!(rotated.stderr.contains("new key of the worker"), "{rotated:?}");
    let second = seeds(&place);
    let same: Vec<_> = first.iter().zip(&second).map(|(a, b)| a == b).collect();
    assert_eq!(same, [true, true, false, true]);
    assert_ne!(fs::read_to_string(&configuration).unwrap(), text);
}

#[tokio::test]
async fn planted_links_and_opened_keys_are_refused() {
    let place = Place::new().await;
    let elsewhere = place.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let precious = place.path("precious");
    fs::write(&precious, "mine").unwrap();

    symlink(&elsewhere, place.path("linked")).unwrap();
    place.run("broker --auth linked").await.with_code(3);
    for planted in ["server", "worker"] {
        let folder = place.path(&format!("with-{planted}"));
        fs::create_dir(&folder).unwrap();
        symlink(&elsewhere, folder.join(planted)).unwrap();
        place.run(&format!("broker --auth with-{planted}")).await.with_code(3);
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);

    place.run("broker --auth auth").await.with_code(0);
    let key = place.path("auth/worker/worker.nk");
    fs::remove_file(&key).unwrap();
    symlink(&precious, &key).unwrap();
    place.run("broker --auth auth").await.with_code(3);
    fs::remove_file(&key).unwrap();
    // The configuration is put in place of a link, not through it.
    let configuration = place.path("auth/server/auth.conf");
    fs::remove_file(&configuration).unwrap();
    symlink(&precious, &configuration).unwrap();
    place.run("broker --auth auth").await.with_code(0);
    assert!(fs::symlink_metadata(&configuration).unwrap().is_file());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let opened = place.run("broker --auth auth").await.with_code(3);
    assert!(opened.stderr.contains("chmod go="), "{opened:?}");
    fs::write(&key, "no seed").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let broken = place.run("broker --auth auth").await.with_code(3);
    assert!(broken.stderr.contains("remove it to get a new one"), "{broken:?}");
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "what is left out is said")]
async fn a_folder_that_others_can_write_or_own_gets_no_keys() {
    let place = Place::new().await;
    let folder = place.path("open");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = place.run("broker --auth open").await.with_code(3);
    assert!(refused.stderr.contains("others have access"), "{refused:?}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);

    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: a folder of another user; it needs root");
        return;
    }
    let theirs = place.path("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65_534), None).unwrap();
    let refused = place.run("broker --auth theirs").await.with_code(3);
    assert!(refused.stderr.contains("belongs to another user"), "{refused:?}");
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 0);
}
