//! Errors of the file system: one that is a file's own fails that file, one that is the run's ends the run, and one that
//! passes is waited for no longer than somebody wants to.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bagpress_codec::DataKind;
use rustix::process::Signal;

use crate::control::{bag_of, until_status};
use crate::files::write;
use crate::full::turned_away_for;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, failure, generated};
use crate::small_disk::OnSmallDisk;
use crate::taken::{WAYS, content, run_of};

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn an_output_that_cannot_have_its_name_fails_alone_and_the_rest_goes_on() {
    for how in WAYS {
        let (place, server) = Place::with_server().await;
        let at = format!("--server {}", server.url());
        for name in ["in/a", "in/b/x", "in/c"] {
            write(&place.path(name), name.as_bytes());
        }
        place.run(&format!("submit in --out out --name t {how} {at}")).await.with_code(0);
        // A file where a folder is needed, since then.
        write(&place.path("out/in/b"), b"in the way");
        let _worker = place.worker(&server);
        let run = run_of("t", how);
        let ended = place.run(&format!("gather {run} -q {at}")).await.with_code(1);
        assert!(ended.stdout.contains("completed       2/3, failed: 1"), "{how}: {ended:?}");
        let (cause, message) = failure(&place.path(&run), 1);
        assert_eq!(cause, "output-unwritable", "{how}: {message}");
        assert!(message.contains("out/in/b/x.gz: Not a directory"), "{how}: {message}");
        assert_eq!(content(&place.path("out/in/a.gz")), b"in/a");
        fs::remove_file(place.path("out/in/b")).unwrap();
        place.run(&format!("gather {run} -q --retry-failed {at}")).await.with_code(0);
        assert_eq!(content(&place.path("out/in/b/x.gz")), b"in/b/x");
    }
}

#[tokio::test]
async fn an_output_folder_that_is_gone_ends_the_run_and_it_goes_on_later() {
    for how in WAYS {
        let (place, server) = Place::with_server().await;
        let at = format!("--server {}", server.url());
        for name in ["in/a", "in/b"] {
            write(&place.path(name), name.as_bytes());
        }
        let run = place.spawn(&format!("run in --out out --name t -q {how} {at}"));
        let run_folder = run_of("t", how);
        let parts = place.path("out/.bagpress-part");
        place.until("it gathers", || parts.exists().then_some(())).await;
        place
            .until("the nonce is there", || {
                let bag = fs::read_dir(&parts).ok()?.next()?.ok()?;
                bag.path().join("nonce").exists().then_some(())
            })
            .await;
        fs::remove_dir_all(place.path("out")).unwrap();
        let _worker = place.worker(&server);
        let ended = run.ended(&place).await.with_code(3);
        assert!(ended.stderr.contains("out"), "{how}: {ended:?}");
        assert!(ended.stderr.contains("No such file or directory"), "{how}: {ended:?}");
        assert!(ended.stderr.contains("\nhint: "), "{how}: {ended:?}");
        place.run(&format!("gather {run_folder} -q {at}")).await.with_code(0);
        for name in ["in/a", "in/b"] {
            assert_eq!(content(&place.path("out").join(format!("{name}.gz"))), name.as_bytes());
        }
    }
}

/// A run whose objects have no room where they are to become files.
async fn blocked(place: &Place, server: &str, more: &str) -> OnSmallDisk {
    let words = format!(
        "run --tasks 8 --bytes 2MiB --results objects --out disk/out --name t -q {more} --server {server}"
    );
    let run = OnSmallDisk::start(place, "disk", 24 * MIB, &words);
    run.pid(place).await;
    place.until("the disk is there", || run.disk().join("out").exists().then_some(())).await;
    run.fill(MIB);
    run
}

#[tokio::test]
async fn whoever_waits_for_room_hears_deadline_stall_timeout_cancel_and_signals() {
    let (place, server) = Place::with_server().await;
    let url = server.url();
    let waits = |run: &OnSmallDisk| run.stderr().contains("disk full").then_some(());
    for (more, says) in
        [("--deadline 4s", "past its deadline"), ("--stall-timeout 4s", "no outcome for 4s")]
    {
        let run = blocked(&place, url, more).await;
        let worker = place.worker(&server);
        place.until("it waits for room", || waits(&run)).await;
        let ended = run.ended(&place).await.with_code(4);
        assert!(ended.stderr.contains(says), "{more}: {ended:?}");
        assert!(ended.stderr.contains("continues"), "{more}: {ended:?}");
        drop(worker);
        forget(&place, url).await;
    }
    for by_signal in [true, false] {
        let run = blocked(&place, url, "").await;
        let worker = place.worker(&server);
        place.until("it waits for room", || waits(&run)).await;
        let bag = bag_of(&place, "t/objects");
        let status = format!("{bag} --server {url}");
        until_status(&place, "status says why", &status, |bag| {
            bag["why"].as_str()?.contains("disk full").then_some(())
        })
        .await;
        let since = Instant::now();
        let code = if by_signal {
            let pid = run.pid(&place).await;
            crate::process::signal(pid, Signal::TERM);
            143
        } else {
            place.run(&format!("cancel {bag} --server {url}")).await.with_code(0);
            1
        };
        run.ended(&place).await.with_code(code);
        assert!(since.elapsed() < Duration::from_secs(20), "{by_signal}: {:?}", since.elapsed());
        drop(worker);
        forget(&place, url).await;
    }
}

/// Removes the run, for the next one of its name.
async fn forget(place: &Place, url: &str) {
    place.run(&format!("rm runs/t/objects --force --server {url}")).await.with_code(0);
    for left in ["disk", "disk.kept"] {
        fs::remove_dir_all(place.path(left)).ok();
    }
}

/// One large file on a disk with less room than it takes: the others are done meanwhile, how much is needed is said, and
/// nobody compresses it again and again.
async fn a_file_that_does_not_fit(how: &str) {
    let (place, server) = Place::with_server().await;
    let url = server.url();
    write(&place.path("in/large"), &generated(DataKind::Random, 1, 40 << 20));
    for number in 0..20 {
        write(&place.path("in").join(format!("small{number:02}")), b"small");
    }
    let words = format!("run in --out disk/out --name t -q --codec gzip:1 {how} --server {url}");
    let run = OnSmallDisk::start(&place, "disk", 64 * MIB, &words);
    run.pid(&place).await;
    place.until("the disk is there", || run.disk().join("out").exists().then_some(())).await;
    run.fill(24 * MIB);
    let worker = format!("worker --slots 1 --allow / --server {url}");
    // By path it must see the disk.
    let by_path = how.contains("auto");
    let _worker = if by_path { run.beside(&place, &worker) } else { place.spawn(&worker) };
    let said = || {
        let stderr = run.stderr();
        let notice = stderr.lines().find(|line| line.contains("disk full"))?.to_owned();
        let numbers: Vec<u64> = notice.split(' ').filter_map(|word| word.parse().ok()).collect();
        numbers.iter().any(|number| *number > 20 * MIB).then_some(notice)
    };
    let notice = place.until("it says how much is needed", said).await;
    if !how.contains("objects") {
        assert!(notice.contains("large.gz"), "{how}: {notice}");
        let folder = place.path(&run_of("t", how));
        place
            .until("the small ones are done", || {
                (crate::ledger::outcomes(&folder).len() == 20).then_some(())
            })
            .await;
    }
    let staged = !how.contains("objects");
    if staged {
        turned_away_for(&server, "needed for in/large.gz", 3).await;
    }
    run.make_room();
    run.ended(&place).await.with_code(0);
    expect_each_done_once(&place.path(&run_of("t", how)), 21);
    // As long as there was no room, nobody compressed it again: it was given back before anything was executed.
    let given_back = fs::read_to_string(place.path(&run_of("t", how)).join("attempts.jsonl"));
    let given_back = given_back.unwrap_or_default();
    // A small one may have come in the moment in which the large one had taken the last of the room.
    let of_the_large_one = given_back.lines().filter(|line| line.contains("\"index\":0,"));
    let (early, late): (Vec<_>, Vec<_>) =
        of_the_large_one.partition(|line| line.contains("needed for in/large.gz"));
    assert!(!staged || early.len() >= 3, "{how}: {given_back}");
    assert!(late.len() <= 3, "{how}: {given_back}");
    let in_place = late.iter().any(|line| line.contains("write the part file: No space left"));
    assert_eq!(in_place, by_path, "{how}: {given_back}");
    assert!(
        content(&place.path("disk.kept/out/in/large.gz"))
            == generated(DataKind::Random, 1, 40 << 20)
    );
}

#[tokio::test]
async fn a_file_that_does_not_fit_waits_for_room_by_path() {
    a_file_that_does_not_fit("--transfer auto").await;
}

#[tokio::test]
async fn a_file_that_does_not_fit_waits_for_room_by_wire() {
    a_file_that_does_not_fit("--transfer wire").await;
}

#[tokio::test]
async fn a_file_that_does_not_fit_waits_for_room_by_offers() {
    a_file_that_does_not_fit("--transfer auto --delivery queue-group").await;
}

#[tokio::test]
async fn an_object_that_does_not_fit_waits_for_room() {
    a_file_that_does_not_fit("--results objects").await;
}

#[tokio::test]
async fn a_small_disk_has_room_for_small_files() {
    let (place, server) = Place::with_server().await;
    write(&place.path("in/a"), b"five!");
    let _worker = place.worker(&server);
    for (name, how) in [("s", "--transfer wire"), ("o", "--results objects")] {
        let words =
            format!("run in --out {name}/out --name {name} -q {how} --server {}", server.url());
        let run = OnSmallDisk::start(&place, name, 10 * MIB, &words);
        run.ended(&place).await.with_code(0);
    }
}

/// A file system that cannot rename without replacing, as NFS: the kernel itself says so to the whole program.
const NO_RENAME2: &str = r#"
import ctypes, os, struct, sys
number = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 22), (0x06, 0, 0, 0x7FFF0000)]
program = b"".join(struct.pack("HBBI", *step) for step in code)
filters = ctypes.create_string_buffer(program, len(program))
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
prog = Program(len(code), ctypes.cast(filters, ctypes.c_void_p))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(prog), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[tokio::test]
async fn a_file_system_that_cannot_rename_without_replacing_is_good_enough() {
    for how in WAYS {
        let place = Place::new().await;
        for name in ["in/a", "in/b"] {
            write(&place.path(name), name.as_bytes());
        }
        let program = env!("CARGO_BIN_EXE_bagpress");
        let words = format!("run in --out out --name t -q --workers 1 {how}");
        let mut command = place.command(Path::new("python3"), "");
        command.args(["-c", NO_RENAME2, program]).args(words.split_whitespace());
        place.finish(command).await.with_code(0);
        for name in ["in/a", "in/b"] {
            assert_eq!(content(&place.path("out").join(format!("{name}.gz"))), name.as_bytes());
        }
        assert!(!place.path("out/.bagpress-part").exists());
    }
}

#[tokio::test]
async fn too_many_open_files_pass() {
    for how in WAYS {
        let place = Place::new().await;
        for number in 0..200 {
            write(&place.path("in").join(format!("{number:03}")), format!("{number}").as_bytes());
        }
        let words = format!("run in --out out --name t -q --workers 1 --transfer wire {how}");
        let mut command = place.command(Path::new("prlimit"), "--nofile=24:24");
        command.arg(env!("CARGO_BIN_EXE_bagpress")).args(words.split_whitespace());
        place.finish(command).await.with_code(0);
        expect_each_done_once(&place.path(&run_of("t", how)), 200);
    }
}
