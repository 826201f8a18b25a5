//! No name leads out of a held directory, and no link is followed.

use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

/// `house/` with `in/file`, and links to what lies outside.
fn house() -> (tempfile::TempDir, Dir) {
    let place = tempfile::tempdir().unwrap();
    let path = |name| place.path().join(name);
    fs::create_dir_all(path("house/in")).unwrap();
    fs::create_dir(path("secret")).unwrap();
    fs::write(path("secret/file"), b"secret").unwrap();
    fs::write(path("house/in/file"), b"ours").unwrap();
    symlink(path("secret"), path("house/out")).unwrap();
    symlink(path("secret/file"), path("house/in/link")).unwrap();
    symlink("in", path("house/inner")).unwrap();
    symlink(path("secret/made"), path("house/dangling")).unwrap();
    let dir = Dir::open(&path("house")).unwrap();
    (place, dir)
}

type Way = fn(&Dir, &Path, OFlags, Mode) -> io::Result<OwnedFd>;
const WAYS: [Way; 2] = [Dir::open_at, Dir::walk_to];

#[test]
fn no_link_is_followed_and_no_name_leads_out() {
    let (place, dir) = house();
    for way in WAYS {
        let read = |path: &str| {
            way(&dir, Path::new(path), OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())
        };
        assert!(read("in/file").is_ok());
        for path in ["out/file", "in/link", "inner/file"] {
            let error = Errno::from_io_error(&read(path).unwrap_err()).unwrap();
            assert!(matches!(error, Errno::LOOP | Errno::NOTDIR), "{path}: {error}");
        }
    }
    let absolute = place.path().join("secret/file");
    for path in [Path::new("../secret/file"), Path::new("in/../../secret/file"), &absolute] {
        assert_eq!(dir.file(path).unwrap_err().raw_os_error(), Some(Errno::XDEV.raw_os_error()));
        assert!(dir.create(path).is_err() && dir.make_dir(path).is_err());
        assert!(dir.remove_file(path).is_err() && dir.remove_all(path).is_err());
    }
    assert_eq!(fs::read(absolute).unwrap(), b"secret");
}

#[test]
fn nothing_is_made_through_a_link() {
    let (place, dir) = house();
    for path in ["dangling", "in/link", "out/made"].map(Path::new) {
        dir.create(path).unwrap_err();
        assert!(dir.write(path).is_err());
    }
    dir.make_dir(Path::new("out/folder")).unwrap_err();
    assert_eq!(fs::read_dir(place.path().join("secret")).unwrap().count(), 1);
    let made = dir.create(Path::new("in/new")).unwrap();
    assert_eq!(made.metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let (place, dir) = house();
    let fifo = place.path().join("house/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RWXU).unwrap();
    for path in ["fifo", "in", "in/link", "out"].map(Path::new) {
        assert!(dir.file(path).unwrap().is_none(), "{}", path.display());
    }
    assert!(dir.write(Path::new("fifo")).is_err());
}

#[test]
fn what_is_removed_is_beneath_and_links_are_not_followed() {
    let (place, dir) = house();
    dir.make_dir(Path::new("in/deep")).unwrap();
    symlink(place.path().join("secret"), place.path().join("house/in/deep/out")).unwrap();
    dir.remove_all(Path::new("out")).unwrap_err();
    dir.remove_all(Path::new("in")).unwrap();
    assert!(!place.path().join("house/in").exists());
    assert_eq!(fs::read(place.path().join("secret/file")).unwrap(), b"secret");
    dir.remove_all(Path::new("in")).expect("one that is not there is no error");
}
