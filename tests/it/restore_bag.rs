//! A bag of objects is restored by its id, from what the broker knows of it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bagpress_codec::{DataKind, Digest};

use crate::control::bag_of;
use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, generated};
use crate::objects::at;

fn expect_refusal(place: &Place, ended: &crate::harness::Ended, said: &[&str]) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for said in said {
        assert!(ended.stderr.contains(said), "{said}: {ended:?}");
    }
    assert!(!place.path("back").exists(), "{ended:?}");
}

/// Modes and times that no new file or folder has.
const MODES: [(&str, u32, bool); 4] = [
    ("a.txt", 0o640, true),
    ("deep/er/b.gz", 0o400, true),
    ("deep", 0o711, false),
    ("none", 0o510, true),
];

fn time() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_400_000_000, 123_456_789)
}

/// Gives a tree an empty folder, and modes and times.
fn dress(tree: &Path) {
    fs::create_dir(tree.join("none")).unwrap();
    for (name, mode, timed) in MODES {
        let path = tree.join(name);
        if timed {
            File::open(&path).unwrap().set_modified(time()).unwrap();
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn expect_dressed(tree: &Path) {
    for (name, mode, timed) in MODES {
        let found = fs::metadata(tree.join(name)).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{name}");
        assert!(!timed || found.modified().unwrap() == time(), "{name}");
    }
}

#[tokio::test]
async fn a_bag_on_a_broker_comes_back_under_the_names_of_its_files_without_its_run_folder() {
    for delivery in DELIVERIES {
        let (place, server) = Place::with_server().await;
        let (at, _worker) = (at(&server), place.worker(&server));
        let text = generated(DataKind::Text, 1, 300_000);
        let files = [("a.txt", &text[..]), ("deep/er/b.gz", b"named as if"), ("deep/empty", b"")];
        for (name, bytes) in files {
            write(&place.path("in/tree").join(name), bytes);
        }
        dress(&place.path("in/tree"));
        let how = format!("--results objects --delivery {delivery} --codec zstd:5 --pack 1 -q");
        place.run(&format!("run in --name t {how} {at}")).await.with_code(0);
        let bag = bag_of(&place, "t/objects");
        let lines = place.run("results runs/t/objects").await.with_code(0).stdout;
        fs::write(place.path("lines"), lines).unwrap();
        for gone in ["in", "runs/t"] {
            fs::remove_dir_all(place.path(gone)).unwrap();
        }
        let restore = format!("restore {bag} --out back --name r {at}");
        let dry = place.run(&format!("{restore} --dry-run")).await.with_code(0);
        assert!(dry.stdout.contains("back/in/tree/deep/er/b.gz"), "{dry:?}");
        place.run(&format!("{restore} -q")).await.with_code(0);
        expect_each_done_once(&place.folder("r/staged"), 3);
        let list = fs::read_to_string(place.folder("r/staged").join("inputs.jsonl")).unwrap();
        for (name, bytes) in files {
            let back = place.path("back/in/tree").join(name);
            assert!(fs::read(back).unwrap() == bytes, "{delivery} {name}");
            let original = format!(
                "\"original\":{{\"bytes\":{},\"digest\":\"{}\"}}",
                bytes.len(),
                Digest::of(bytes)
            );
            assert!(list.contains(&original), "{delivery}: {list}");
        }
        expect_dressed(&place.path("back/in/tree"));
        // A line of `results` is a reference.
        place.run(&format!("object get --refs lines --out got {at}")).await.with_code(0);
        assert!(place.path("got/out_2.bin").is_file(), "{delivery}");
        // The same by references: what they were made of is compared too.
        let listed = place.run(&format!("object ls bag-{bag} {at} --json")).await.with_code(0);
        fs::write(place.path("refs"), &listed.stdout).unwrap();
        let words = format!("restore --refs refs --out by-refs --name s -q {at}");
        place.run(&words).await.with_code(0);
        let list = fs::read_to_string(place.folder("s/staged").join("inputs.jsonl")).unwrap();
        assert!(list.contains("\"original\""), "{delivery}: {list}");
    }
}

#[tokio::test]
async fn what_a_bag_has_lost_fails_by_name_and_the_rest_of_it_comes_back() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    for name in ["a", "b", "c"] {
        write(&place.path("in").join(name), name.as_bytes());
    }
    fs::remove_file(place.path("in/c")).unwrap();
    fs::create_dir(place.path("in/c")).unwrap();
    place.run(&format!("run in --results objects --name t -q {at}")).await.with_code(0);
    let bag = bag_of(&place, "t/objects");
    place.run(&format!("object free obj://bag-{bag}/out_0.bin {at}")).await.with_code(0);
    let ended = place.run(&format!("restore {bag} --out back --name r -q {at}")).await.with_code(1);
    assert!(ended.stderr.contains("will fail: obj://bag-"), "{ended:?}");
    let failed = fs::read_to_string(place.folder("r/staged").join("failed.txt")).unwrap();
    assert!(failed.contains("input-missing") && failed.contains("freed by"), "{failed}");
    assert_eq!(fs::read(place.path("back/in/b")).unwrap(), b"b");
    place.run(&format!("rm {bag} {at}")).await.with_code(0);
    let removed = place.run(&format!("restore {bag} --out more {at}")).await.with_code(2);
    assert!(removed.stderr.contains("was removed, with its objects"), "{removed:?}");
    // By its reference too it is said what became of it, and not that nobody knows its codec.
    let object = format!("restore obj://bag-{bag}/out_1.bin --out more -q {at}");
    let freed = place.run(&object).await.with_code(1);
    assert!(freed.stderr.contains(&format!("freed: bag {bag} was removed")), "{freed:?}");
}

#[tokio::test]
async fn a_bag_that_a_broker_cannot_restore_is_refused_with_the_next_step() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    for number in 0..4 {
        write(&place.path(&format!("in/{number}")), &[number]);
    }
    let restore =
        async |bag: &str, more: &str| place.run(&format!("restore {bag} --out back {more}")).await;
    expect_refusal(&place, &restore("none-abcdefgh", "").await, &["there is no file", "--server"]);
    let unknown = restore("none-abcdefgh", &at).await;
    expect_refusal(&place, &unknown, &["has no bag none-abcdefgh", "bagpress status"]);
    let no_id = restore("tt-nope1234", &at).await;
    expect_refusal(&place, &no_id, &["no bag of that id is known", "bagpress status --server URL"]);
    let range = restore("none-abcdefgh", &format!("--range 0..4 {at}")).await;
    expect_refusal(&place, &range, &["none-abcdefgh is the id of a bag", "name the run folder"]);
    let range = restore("obj://b/o", &format!("--range 0..4 {at}")).await;
    expect_refusal(&place, &range, &["obj://b/o is an object on a server", "object get"]);
    let two = restore("none-abcdefgh in", &at).await;
    expect_refusal(&place, &two, &["other things are named"]);
    let submit = format!("submit in --results objects --name late {at}");
    place.run(&submit).await.with_code(0);
    let late = restore(&bag_of(&place, "late/objects"), &at).await;
    expect_refusal(&place, &late, &["is not finished", "object ls bag-late-"]);
    let _worker = place.worker(&server);
    place.run(&format!("run in --out out --name files -q {at}")).await.with_code(0);
    let staged = restore(&bag_of(&place, "files/staged"), &at).await;
    expect_refusal(&place, &staged, &["are files, and no objects", "restore runs/files/staged"]);
    fs::write(place.path("files-abcdefgh"), b"a file by such a name").unwrap();
    let file = restore("files-abcdefgh", &at).await;
    expect_refusal(&place, &file, &["is not known to be compressed"]);
}
