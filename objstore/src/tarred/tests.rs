use std::process::Command;

use bagpress_broker::limits::{CHUNK_BYTES, PACK_BYTES_MAX};
use proptest::prelude::*;

use super::*;

fn member(place: u32, name: impl Into<PathBuf>) -> Member {
    Member { place, name: name.into(), mode: 0o640, mtime: 1_764_000_000 }
}

fn odd(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

/// Names of every kind that a bag has: short, at the end of a header's field, long, and no text.
fn names() -> Vec<PathBuf> {
    let long =
        |bytes: usize| PathBuf::from(format!("{}/{}", "d".repeat(60), "n".repeat(bytes - 61)));
    vec![
        "a".into(),
        long(99),
        long(100),
        long(101),
        long(255),
        long(TAR_NAME_BYTES_MAX),
        odd(b"caf\xe9/\xff\xfe"),
        odd(&[b"\xe9".repeat(150), b"/x".to_vec()].concat()),
        "-n\n--out 'quoted' \"name\"\\".into(),
        "größe/深い/🗜".into(),
    ]
}

fn content(place: usize) -> Vec<u8> {
    vec![u8::try_from(place).unwrap(); [0, 1, 511, 512, 513, 70_000][place % 6]]
}

fn written(names: &[PathBuf]) -> (Bytes, Vec<u64>) {
    let mut writer = Writer::default();
    let members = names.iter().enumerate().map(|(place, name)| {
        let member = member(u32::try_from(place).unwrap(), name);
        writer.add(&member, &content(place)).unwrap()
    });
    let at = members.collect();
    (writer.finish(), at)
}

#[test]
fn what_was_put_into_a_tar_is_read_from_it_whatever_its_name() {
    let names = names();
    let (tar, at) = written(&names);
    let found = read(&tar).unwrap();
    assert_eq!(found.len(), names.len());
    for (place, found) in found.iter().enumerate() {
        assert_eq!(found.member, member(u32::try_from(place).unwrap(), &names[place]));
        assert_eq!(found.content, content(place), "{place}");
        assert_eq!(found.at, at[place], "{place}");
        let range = slice(&tar, at[place], content(place).len() as u64).unwrap();
        assert_eq!(range, content(place));
        let head = head(&found.member, content(place).len() as u64).unwrap();
        assert_eq!(slice(&tar, at[place] - head.len() as u64, head.len() as u64).unwrap(), head);
    }
}

#[test]
fn equal_files_give_equal_bytes_and_a_tar_says_nothing_else() {
    let (one, other) = (written(&names()).0, written(&names()).0);
    assert_eq!(one, other);
    let mut writer = Writer::default();
    let early = Member { mtime: 0, mode: 0o107_777, ..member(3, "n") };
    assert_eq!(writer.add(&early, b"x").unwrap(), 512);
    let tar = writer.finish();
    assert_eq!(tar.len(), 512 + 512 + 1024);
    let found = read(&tar).unwrap();
    assert_eq!((found[0].member.place, found[0].member.mode), (3, 0o777));
    let header = Header::from_byte_slice(&tar[..512]);
    assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
    assert_eq!(
        (header.username_bytes(), header.groupname_bytes()),
        (Some(&b""[..]), Some(&b""[..]))
    );
}

#[test]
fn a_tar_without_files_is_one() {
    assert_eq!(read(&Writer::default().finish()).unwrap(), []);
}

#[test]
fn a_name_that_leads_elsewhere_is_in_no_tar() {
    let long = "x/".repeat(60);
    for name in [
        "",
        "/",
        "/a",
        "..",
        "../a",
        "a/../b",
        "a/..",
        ".",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "a\0b",
        &format!("{long}../../a"),
        &format!("/{long}a"),
        &"n".repeat(TAR_NAME_BYTES_MAX + 1),
    ] {
        assert!(!Writer::takes(Path::new(name)), "{name:?}");
        assert!(Writer::default().add(&member(0, name), b"").is_err(), "{name:?}");
    }
}

#[test]
fn files_have_one_place_each_and_in_order() {
    let mut writer = Writer::default();
    writer.add(&member(5, "a"), b"").unwrap();
    for place in [5, 4, PACK_FILES_MAX] {
        assert!(writer.add(&member(place, "b"), b"").is_err(), "{place}");
    }
    writer.add(&member(PACK_FILES_MAX - 1, "b"), b"").unwrap();
}

#[test]
fn the_largest_pack_is_within_the_bound_and_nothing_beyond_it_is_written_or_read() {
    let name = |place: u32| odd(format!("{place:0TAR_NAME_BYTES_MAX$}").as_bytes());
    let most = CHUNK_BYTES / PACK_FILES_MAX as usize;
    // Each has the largest filling.
    let bytes = most - most % 512 - 511;
    let mut writer = Writer::default();
    for place in 0..PACK_FILES_MAX {
        writer.add(&member(place, name(place)), &vec![7; bytes]).unwrap();
    }
    let tar = writer.finish();
    let each = (tar.len() as u64 - TAR_END_BYTES) / u64::from(PACK_FILES_MAX) - bytes as u64;
    assert_eq!(each, TAR_EACH_BYTES - 1, "a filling has at most 511 bytes");
    assert!(tar.len() as u64 <= TAR_BYTES_MAX);
    assert_eq!(read(&tar).unwrap().len(), PACK_FILES_MAX as usize);
    let too_long = Bytes::from(vec![0; usize::try_from(TAR_BYTES_MAX).unwrap() + 1]);
    assert!(read(&too_long).is_err());
    let mut writer = Writer::default();
    let whole = vec![0; usize::try_from(PACK_BYTES_MAX).unwrap()];
    writer.add(&member(0, "a"), &whole).unwrap();
    assert!(writer.add(&member(1, "b"), &whole).is_err());
}

/// A tar of one header, with what `change` does to it.
fn hostile(change: impl Fn(&mut Header), content: &[u8]) -> Bytes {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_path("a").unwrap();
    header.set_device_minor(0).unwrap();
    change(&mut header);
    header.set_cksum();
    let filling = content.len().next_multiple_of(512) - content.len();
    let parts = [&header.as_bytes()[..], content, &vec![0; filling + 1024]];
    parts.concat().into()
}

#[test]
fn a_tar_that_lies_is_refused() {
    assert_eq!(read(&hostile(|_| {}, b"x")).unwrap().len(), 1);
    let sizes = [2_000, 1 << 20, 1 << 40, u64::MAX];
    for size in sizes {
        assert!(read(&hostile(|header| header.set_size(size), b"x")).is_err(), "{size}");
    }
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::Fifo,
        EntryType::Char,
        EntryType::GNUSparse,
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XGlobalHeader,
        EntryType::XHeader,
        EntryType::new(b'V'),
    ] {
        let tar = hostile(|header| header.set_entry_type(kind), b"13 path=/etc\n");
        let read = read(&tar);
        // A long name without a file behind it names nothing.
        assert!(read.as_ref().map_or(true, Vec::is_empty), "{kind:?}: {read:?}");
    }
    let named = |name: &'static [u8]| {
        hostile(move |header| header.as_old_mut().name[..name.len()].copy_from_slice(name), b"x")
    };
    for name in [&b"../a"[..], b"/a", b"a/../../b", b"a/."] {
        assert!(read(&named(name)).is_err(), "{name:?}");
    }
    assert!(read(&hostile(|header| header.set_device_minor(64).unwrap(), b"x")).is_err());
    let flipped = {
        let mut tar = hostile(|_| {}, b"x").to_vec();
        tar[0] ^= 1;
        tar
    };
    assert!(read(&flipped.into()).is_err(), "its checksum is wrong");
}

proptest! {
    /// Whatever there is, reading ends, and takes no more than the tar has.
    #[test]
    fn no_tar_makes_reading_it_fail_otherwise_than_by_an_error(
        cut in 0_usize..80_000, flips in proptest::collection::vec((0_usize..80_000, any::<u8>()), 0..6)
    ) {
        let mut tar = written(&names()).0.to_vec();
        for (at, bits) in flips {
            let at = at % tar.len();
            tar[at] ^= bits;
        }
        tar.truncate(tar.len().saturating_sub(cut % 4_000));
        let tar = Bytes::from(tar);
        if let Ok(found) = read(&tar) {
            prop_assert!(found.iter().map(|found| found.content.len()).sum::<usize>() <= tar.len());
            prop_assert!(found.iter().all(|found| Writer::takes(&found.member.name)));
        }
    }
}

#[test]
fn the_tar_of_the_system_lists_and_extracts_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pack.tar");
    let names = names();
    // Longer ones are more than a file system takes as one component.
    let names: Vec<_> = names.into_iter().filter(|name| name.as_os_str().len() <= 255).collect();
    std::fs::write(&file, written(&names).0).unwrap();
    let extracted = Command::new("tar").arg("-xf").arg(&file).current_dir(folder.path()).output();
    let extracted = extracted.unwrap();
    assert!(extracted.status.success() && extracted.stderr.is_empty(), "{extracted:?}");
    for (place, name) in names.iter().enumerate() {
        let path = folder.path().join(name);
        assert_eq!(std::fs::read(&path).unwrap(), content(place), "{name:?}");
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mtime(&metadata), 1_764_000_000);
    }
    let listed = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    assert_eq!(listed.stdout.split(|byte| *byte == b'\n').count(), names.len() + 1);
}
