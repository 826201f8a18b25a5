//! An output becomes that of another task: with its bytes, and never with others.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use bagpress_broker::ids::Execution;
use bagpress_broker::result::FileId;
use bagpress_codec::Digest;
use bagpress_objstore::staging::{Attributes, Own, Parts, Target};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const OUTPUT: &[u8] = b"an output";

fn target(name: &str, mtime_ns: Option<i64>) -> Target {
    let attributes = mtime_ns.map(|mtime_ns| Attributes {
        source: PathBuf::from("/in").join(name),
        mode: 0o640,
        mtime_ns,
        owner: None,
    });
    Target { path: PathBuf::from(name), attributes, replaces: None, own: Own::Nothing }
}

/// Makes `to` of `from`, where an output lies; what came of it, and the part file if there is one.
fn make(
    parts: &Parts,
    from: &Target,
    to: &Target,
    digest: &Digest,
) -> Outcome<(bool, Option<fs::Metadata>)> {
    let execution = Execution::random();
    let part = parts.part(7, 0, &execution);
    let there = fs::metadata(parts.root().join(&from.path)).ok();
    let file = there.as_ref().and_then(FileId::of);
    let made = parts.make_again(7, &execution, (&from.path, file), to, digest)?;
    if made {
        assert_eq!(fs::read(&part)?, OUTPUT);
    }
    Ok((made, fs::metadata(part).ok()))
}

fn parts(root: &tempfile::TempDir) -> Outcome<Parts> {
    let parts = Parts::open(&root.path().join("out"), &"b-1".parse()?)?;
    let one = parts.root().join("one");
    fs::write(&one, OUTPUT)?;
    fs::set_permissions(&one, fs::Permissions::from_mode(0o640))?;
    fs::File::open(&one)?.set_modified(UNIX_EPOCH + Duration::from_nanos(5))?;
    Ok(parts)
}

#[test]
fn it_is_the_same_file_only_if_both_are_to_be_alike() -> Outcome {
    let root = tempfile::tempdir()?;
    let parts = parts(&root)?;
    let (one, right) = (target("one", Some(5)), Digest::of(OUTPUT));
    let inode = fs::metadata(parts.root().join("one"))?.ino();
    let (made, alike) = make(&parts, &one, &target("two", Some(5)), &right)?;
    let alike = alike.ok_or("no part file")?;
    // Unless the file system shares blocks instead.
    assert!(made && (alike.ino() == inode || alike.nlink() == 1));
    // A file that the bag did not name is not given another name.
    let execution = Execution::random();
    assert!(parts.make_again(7, &execution, (&one.path, None), &target("two", Some(5)), &right)?);
    assert_ne!(fs::metadata(parts.part(7, 0, &execution))?.ino(), inode);
    for other in [target("two", Some(6)), target("two", None)] {
        let (made, part) = make(&parts, &one, &other, &right)?;
        assert!(made && part.is_some_and(|part| part.ino() != inode && part.nlink() == 1));
    }
    Ok(())
}

#[test]
fn other_bytes_than_the_digest_says_leave_no_part_file() -> Outcome {
    let root = tempfile::tempdir()?;
    let parts = parts(&root)?;
    for to in [target("two", Some(5)), target("two", Some(6))] {
        let (made, part) = make(&parts, &target("one", Some(5)), &to, &Digest::of(b"another"))?;
        assert!(!made && part.is_none());
    }
    let gone = target("gone", None);
    let error = make(&parts, &gone, &target("two", None), &Digest::of(OUTPUT)).unwrap_err();
    let error = error.downcast::<io::Error>()?;
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(parts.listed().is_empty());
    Ok(())
}
