//! A tree with everything in it that is ordinary somewhere, given to the program by a user who is not root: it ends by
//! itself, what can be read comes back byte for byte, and the rest is named with its cause.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use bagpress_broker::testing::NatsServer;
use bagpress_codec::DataKind;
use rustix::fs::{CWD, FileType, Mode, makedev, mkfifoat, mknodat};
use walkdir::WalkDir;

use crate::another_user::WAYS;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{generated, outcomes};
use crate::taken::run_of;

/// What each input fails with that does.
type Failures = BTreeMap<PathBuf, &'static str>;

fn set_time(path: &Path, time: SystemTime) {
    File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Makes the tree; `sparse` bytes are in a file of holes.
fn everything(root: &Path, sparse: u64) -> Failures {
    let mut fails = Failures::new();
    let name = |bytes: &[u8]| root.join(OsStr::from_bytes(bytes));
    for bytes in [
        &b"not utf-8 \xff\xfe"[..],
        b"two\nlines",
        b"x\nerror: 0 of 4 tasks failed",
        b"\x1b[31mred",
        b"-rf",
        b"--out",
        b" a space first",
        b"ends in a dot.",
        b"already.gz",
        b".hidden",
        b"'quoted\"",
    ] {
        write(&name(bytes), bytes);
    }
    write(&name(&[b'n'; 252]), b"the longest name that .gz fits behind");
    write(&name(&[b'N'; 255]), b"too long with it");
    fails.insert(name(&[b'N'; 255]), "output-unwritable");

    write(&root.join("deep/er/and/deeper/file"), &generated(DataKind::Text, 1, 300_000));
    write(&root.join("more than two chunks"), &generated(DataKind::Random, 2, 1_200_000));
    write(&root.join("no byte"), b"");
    for (mode, file) in
        [(0o444, "read only"), (0o600, "mine"), (0o4755, "a program"), (0o000, "nobody's")]
    {
        write(&root.join(file), file.as_bytes());
        set_mode(&root.join(file), mode);
    }
    fails.insert(root.join("nobody's"), "input-unreadable");
    write(&root.join("closed/inside"), b"never seen");
    fails.insert(root.join("closed"), "input-unreadable");
    fs::create_dir_all(root.join("empty/and empty")).unwrap();

    fs::hard_link(root.join("more than two chunks"), root.join("hard link")).unwrap();
    symlink("deep", root.join("link to a folder")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("loop b", root.join("loop a")).unwrap();
    symlink("loop a", root.join("loop b")).unwrap();
    mkfifoat(CWD, root.join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    drop(UnixListener::bind(root.join("socket")).unwrap());
    if rustix::process::geteuid().is_root() {
        let zero = makedev(1, 5);
        mknodat(CWD, root.join("zero"), FileType::CharacterDevice, Mode::RUSR, zero).unwrap();
    }

    File::create(root.join("sparse")).unwrap().set_len(sparse).unwrap();
    for (file, seconds) in [("before 1970", -2_000_000_000_i64), ("after 2106", (1 << 32) + 1_000)]
    {
        write(&root.join(file), file.as_bytes());
        let by = Duration::new(seconds.unsigned_abs(), 123_456_789);
        let epoch = SystemTime::UNIX_EPOCH;
        set_time(&root.join(file), if seconds < 0 { epoch - by } else { epoch + by });
    }
    for file in CHANGES {
        write(&root.join(file), b"as it was when the bag was made\n");
        fails.insert(root.join(file), "input-changed");
    }
    set_mode(&root.join("closed"), 0o000);
    fails
}

/// Files that change behind the bag's back.
const CHANGES: [&str; 3] = ["grows", "shrinks", "is written anew"];

fn change(root: &Path) {
    use std::io::Write as _;
    File::options().append(true).open(root.join("grows")).unwrap().write_all(b"more\n").unwrap();
    File::options().write(true).open(root.join("shrinks")).unwrap().set_len(3).unwrap();
    fs::remove_file(root.join("is written anew")).unwrap();
    fs::write(root.join("is written anew"), b"AS IT WAS WHEN THE BAG WAS MADE\n").unwrap();
}

/// Fails unless `gzip -dc` gives every readable file again, with its mode and time, and nothing else is there.
fn expect_whole(tree: &Path, out: &Path, fails: &Failures) {
    let mut outputs = 0;
    for entry in WalkDir::new(tree).into_iter().map(Result::unwrap) {
        let refused = fails.keys().any(|path| entry.path().starts_with(path));
        let target = out.join(entry.path().strip_prefix(tree).unwrap());
        if entry.file_type().is_dir() && !refused {
            assert!(target.is_dir(), "{}", target.display());
        }
        if !entry.file_type().is_file() || refused {
            continue;
        }
        outputs += 1;
        let mut output = target.into_os_string();
        output.push(".gz");
        let script = r#"gzip -dc <"$1" | cmp - "$2""#;
        let arguments = [output.as_os_str(), entry.path().as_os_str()];
        let same = Command::new("sh").args(["-c", script, "sh"]).args(arguments).status().unwrap();
        assert!(same.success(), "{}", entry.path().display());
        let (source, made) = (entry.metadata().unwrap(), fs::metadata(&output).unwrap());
        assert_eq!(source.mode() & 0o777, made.mode() & 0o7777, "{}", entry.path().display());
        assert_eq!(source.mtime(), made.mtime(), "{}", entry.path().display());
        assert_eq!(source.mtime_nsec(), made.mtime_nsec(), "{}", entry.path().display());
    }
    let files = WalkDir::new(out).into_iter().map(Result::unwrap);
    assert_eq!(files.filter(|entry| entry.file_type().is_file()).count(), outputs);
}

async fn everything_comes_back_or_is_named(ways: &[&str], sparse: u64) {
    for way in ways {
        let place = Place::new().await;
        let server = NatsServer::start().await;
        let at = format!("--server {}", server.url());
        place.run(&format!("broker --init --max-file 2GiB {at}")).await.with_code(0);
        let tree = place.path("tree");
        let mut fails = everything(&tree, sparse);
        let words = format!("submit tree --out out --name t --codec gzip:1 {way} {at}");
        let submitted = place.finish(place.unprivileged(&words)).await.with_code(0);
        for kind in ["4 symbolic links", "1 FIFO", "1 socket"] {
            assert!(submitted.stderr.contains(kind), "{way}: {kind}: {submitted:?}");
        }
        change(&tree);
        if way.contains("objects") && way.contains("jetstream") {
            // They were put into their bucket as they were.
            fails.retain(|_, cause| *cause != "input-changed");
        }
        let run = run_of("t", way);
        let worker = place.unprivileged(&format!("worker --slots 2 --allow / {at}"));
        let _worker = place.start(worker);
        let gather = place.unprivileged(&format!("gather {run} -q {at}"));
        let gathered = place.start(gather).ended_within(Duration::from_mins(5), &place).await;
        let gathered = gathered.with_code(1);
        assert!(!gathered.stdout.contains('\u{1b}'), "{way}: {gathered:?}");

        let failed = outcomes(&place.path(&run)).into_iter().filter_map(|outcome| {
            let failed = &outcome["outcome"]["failed"];
            Some((failed["cause"].as_str()?.to_owned(), failed["message"].as_str()?.to_owned()))
        });
        let failed: Vec<_> = failed.collect();
        let told = fs::read_to_string(place.path(&run).join("failed.txt")).unwrap();
        assert_eq!(
            (failed.len(), told.lines().count()),
            (fails.len(), fails.len()),
            "{way}: {told}"
        );
        for (path, cause) in &fails {
            let name = path.file_name().unwrap().to_str().unwrap();
            let name = &name[name.len().saturating_sub(100)..];
            let named =
                |text: &str| text.contains(name) || text.contains(&name.replace('\'', r"'\''"));
            let said = failed.iter().any(|(c, message)| c == cause && named(message));
            assert!(said, "{way}: {name} {cause}: {failed:?}");
            assert!(told.lines().any(|line| line.contains(cause)), "{way}: {name}: {told}");
        }
        // What was changed was changed before it was read, or the bucket has it as it was.
        if !way.contains("objects") || !way.contains("jetstream") {
            expect_whole(&tree, &place.path("out/tree"), &fails);
        }
    }
}

#[tokio::test]
async fn a_tree_with_everything_comes_back_or_is_named_by_path() {
    everything_comes_back_or_is_named(&WAYS[..1], 5 << 30).await;
}

#[tokio::test]
async fn a_tree_with_everything_comes_back_or_is_named_by_wire_and_by_offers() {
    everything_comes_back_or_is_named(&WAYS[1..4], 20 << 20).await;
}

#[tokio::test]
async fn a_tree_with_everything_comes_back_or_is_named_as_objects() {
    everything_comes_back_or_is_named(&WAYS[4..], 20 << 20).await;
}
