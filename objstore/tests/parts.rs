//! A part file gets its final name without replacing anything, and only with the digest it must have.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::FileId;
use bagpress_codec::Digest;
use bagpress_objstore::Trouble;
use bagpress_objstore::staging::{
    Attributes, BAD_DIR, Own, Owner, PART_DIR, Parts, Placed, Placer, Replaced, Target, mtime_ns,
    remove_parts,
};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

struct Folder {
    parts: Parts,
    id: TaskId,
    target: Target,
    _root: tempfile::TempDir,
}

impl Folder {
    fn new() -> Outcome<Self> {
        let root = tempfile::tempdir()?;
        let id = TaskId { bag: "b-1".parse()?, index: 3, round: 1 };
        let target = Target {
            path: PathBuf::from("a b/ü.gz"),
            attributes: None,
            replaces: None,
            own: Own::Nothing,
        };
        let parts = Parts::open(&root.path().join("out"), &id.bag)?;
        Ok(Self { parts, id, target, _root: root })
    }

    fn last(&self) -> PathBuf {
        self.parts.root().join(&self.target.path)
    }

    /// Leaves a part file, as CLOSE does.
    fn part(&self, output: &[u8]) -> Outcome<Execution> {
        self.part_of_round(self.id.round, output)
    }

    fn part_of_round(&self, round: u32, output: &[u8]) -> Outcome<Execution> {
        let execution = Execution::random();
        fs::write(self.parts.part(self.id.index, round, &execution), output)?;
        Ok(execution)
    }

    fn place(&self, execution: &Execution, output: &[u8]) -> io::Result<Placed> {
        Placer::new(&self.parts).place(&self.id, execution, &self.target, &Digest::of(output))
    }

    fn occupy(&self, bytes: &[u8]) -> Outcome {
        fs::create_dir_all(self.last().parent().ok_or("no folder")?)?;
        Ok(fs::write(self.last(), bytes)?)
    }

    /// What has the name now, as a ledger notes it.
    fn own_file(&self) -> Outcome<Own> {
        Ok(Own::File(FileId::of(&self.last().metadata()?).ok_or("no birth time here")?))
    }

    fn set_aside(&self) -> Outcome<Vec<Vec<u8>>> {
        let bad = self.parts.root().join(BAD_DIR);
        if !bad.exists() {
            return Ok(Vec::new());
        }
        fs::read_dir(bad)?.map(|entry| Ok(fs::read(entry?.path())?)).collect()
    }
}

#[test]
fn placing_moves_the_part_file_and_may_be_repeated() -> Outcome {
    let folder = Folder::new()?;
    let execution = folder.part(b"output")?;

    for _ in 0..3 {
        assert_eq!(folder.place(&execution, b"output")?, Placed::Named);
        assert_eq!(fs::read(folder.last())?, b"output");
        assert!(folder.parts.listed().is_empty());
    }
    assert!(folder.set_aside()?.is_empty());
    Ok(())
}

#[test]
fn a_folder_that_is_gone_before_its_next_output_is_made_again() -> Outcome {
    let folder = Folder::new()?;
    let mut names = Placer::new(&folder.parts);
    for _ in 0..2 {
        let execution = folder.part(b"output")?;
        let digest = Digest::of(b"output");
        assert_eq!(names.place(&folder.id, &execution, &folder.target, &digest)?, Placed::Named);
        assert_eq!(fs::read(folder.last())?, b"output");
        assert_eq!(names.file_id(&folder.target), FileId::of(&folder.last().metadata()?));
        fs::remove_dir_all(folder.last().parent().ok_or("no folder")?)?;
    }
    Ok(())
}

#[test]
fn a_file_with_the_right_digest_stays_whose_it_is_and_the_part_goes() -> Outcome {
    let folder = Folder::new()?;
    folder.occupy(b"output")?;
    let inode = folder.last().metadata()?.ino();
    let execution = folder.part(b"output")?;

    assert_eq!(folder.place(&execution, b"output")?, Placed::Same);

    assert_eq!(folder.last().metadata()?.ino(), inode);
    assert!(folder.parts.listed().is_empty());
    assert!(folder.set_aside()?.is_empty());
    Ok(())
}

#[test]
fn a_file_that_the_bag_named_and_is_another_now_is_set_aside_and_never_lost() -> Outcome {
    let mut folder = Folder::new()?;
    for other in [&b"somebody's work"[..], b"more of it"] {
        folder.occupy(other)?;
        folder.target.own = folder.own_file()?;
        let placed = folder.place(&folder.part(b"output")?, b"output")?;
        let Placed::Instead(aside) = placed else { return Err(format!("{placed:?}").into()) };
        assert_eq!(fs::read(aside)?, other);
        assert_eq!(fs::read(folder.last())?, b"output");
    }
    let mut aside = folder.set_aside()?;
    aside.sort();
    assert_eq!(aside, [b"more of it".to_vec(), b"somebody's work".to_vec()]);
    Ok(())
}

#[test]
fn what_the_bag_did_not_make_is_never_touched_whatever_it_is() -> Outcome {
    let folder = Folder::new()?;
    let (last, execution) = (folder.last(), folder.part(b"output")?);
    let outside = folder.parts.root().join("outside");
    fs::write(&outside, b"output")?;
    let make: [&dyn Fn() -> Outcome; 4] = [
        &|| folder.occupy(b"somebody's work"),
        &|| Ok(fs::create_dir(&last)?),
        &|| Ok(std::os::unix::fs::symlink(&outside, &last)?),
        // Opening it would wait without end.
        &|| Ok(rustix::fs::mkfifoat(rustix::fs::CWD, &last, rustix::fs::Mode::RUSR)?),
    ];
    for make in make {
        make()?;
        let before = last.symlink_metadata()?;
        // As little if another file had the name before, or nothing but a file would be the bag's own.
        let other = Own::File(FileId { inode: before.ino(), born_ns: 1 });
        for own in [Own::Nothing, other, Own::Everything] {
            if own == Own::Everything && before.is_file() {
                continue;
            }
            let target = Target { own, ..folder.target.clone() };
            let digest = Digest::of(b"output");
            let mut names = Placer::new(&folder.parts);
            let placed = names.place(&folder.id, &execution, &target, &digest)?;
            assert_eq!(placed, Placed::Taken, "{before:?}");
        }
        assert_eq!(last.symlink_metadata()?.ino(), before.ino());
        if before.is_dir() { fs::remove_dir(&last)? } else { fs::remove_file(&last)? }
    }
    assert!(folder.set_aside()?.is_empty());
    assert_eq!(folder.place(&execution, b"output")?, Placed::Named);
    Ok(())
}

#[test]
fn exactly_the_file_that_is_to_be_replaced_is_replaced() -> Outcome {
    let mut folder = Folder::new()?;
    folder.occupy(b"an older output")?;
    folder.target.replaces = Some(Replaced::of(&folder.last().metadata()?));
    let execution = folder.part(b"output")?;
    for _ in 0..2 {
        assert_eq!(folder.place(&execution, b"output")?, Placed::Named);
        assert_eq!(fs::read(folder.last())?, b"output");
    }
    // What is there now is not what was to be replaced.
    let execution = folder.part(b"newer")?;
    assert_eq!(folder.place(&execution, b"newer")?, Placed::Taken);
    assert_eq!(fs::read(folder.last())?, b"output");
    assert!(folder.set_aside()?.is_empty());
    Ok(())
}

#[test]
fn a_name_that_cannot_be_had_is_an_error_and_the_output_stays() -> Outcome {
    let mut folder = Folder::new()?;
    let execution = folder.part(b"output")?;
    fs::write(folder.parts.root().join("file"), b"a file where a folder is needed")?;
    for path in ["a".repeat(256), format!("{}/x", "b".repeat(256)), "file/x".to_owned()] {
        folder.target.path = PathBuf::from(path);
        let error = folder.place(&execution, b"output").unwrap_err();
        assert_eq!(folder.parts.trouble(&error), Trouble::Own, "{error}");
    }
    assert_eq!(folder.parts.listed().len(), 1);
    fs::remove_dir_all(folder.parts.root())?;
    folder.target.path = PathBuf::from("x");
    assert_eq!(folder.place(&execution, b"output").ok(), Some(Placed::Lost));
    assert_eq!(folder.parts.trouble(&io::ErrorKind::NotFound.into()), Trouble::Run);
    Ok(())
}

#[test]
fn bytes_that_are_in_neither_place_are_lost_and_nothing_is_touched() -> Outcome {
    let folder = Folder::new()?;
    assert_eq!(folder.place(&Execution::random(), b"output")?, Placed::Lost);

    folder.occupy(b"somebody's work")?;
    assert_eq!(folder.place(&Execution::random(), b"output")?, Placed::Lost);
    assert_eq!(fs::read(folder.last())?, b"somebody's work");
    Ok(())
}

#[test]
fn a_sweep_removes_the_parts_of_this_and_earlier_rounds_of_one_task() -> Outcome {
    let folder = Folder::new()?;
    let (now, earlier) = (folder.part(b"x")?, folder.part_of_round(0, b"x")?);
    let later = folder.part_of_round(2, b"x")?;
    let other = folder.parts.part(33, 0, &Execution::random());
    fs::write(&other, b"x")?;

    folder.parts.sweep(&[(3, 1)]);

    let part = |round, execution| folder.parts.part(3, round, execution);
    assert!(!part(1, &now).exists() && !part(0, &earlier).exists());
    assert!(part(2, &later).exists() && other.exists());
    folder.parts.remove()?;
    assert!(!folder.parts.root().join(PART_DIR).exists());
    folder.parts.remove()?;
    Ok(())
}

#[test]
fn each_bag_of_a_folder_has_part_files_and_a_nonce_of_its_own() -> Outcome {
    let folder = Folder::new()?;
    let root = folder.parts.root();
    let other = Parts::open(root, &"b-2".parse()?)?;
    assert_eq!(fs::read_to_string(folder.parts.nonce().0)?, folder.parts.nonce().1);
    let execution = folder.part(b"output")?;
    fs::write(other.part(folder.id.index, folder.id.round, &execution), b"the other's")?;

    other.sweep(&[(folder.id.index, folder.id.round)]);
    assert!(other.listed().is_empty());
    assert_eq!(remove_parts(folder.parts.outputs(), &"b-2".parse()?)?, 1, "its nonce");
    other.remove()?;

    assert_eq!(fs::read_dir(root.join(PART_DIR))?.count(), 1);
    assert_eq!(folder.place(&execution, b"output")?, Placed::Named);
    assert_eq!(fs::read(folder.last())?, b"output");
    folder.parts.remove()?;
    assert!(!root.join(PART_DIR).exists());
    Ok(())
}

#[test]
fn a_bag_begins_while_others_end_in_the_same_folder() -> Outcome {
    let root = tempfile::tempdir()?;
    std::thread::scope(|scope| {
        let bags = ["b-1", "b-2", "b-3"].map(|bag| {
            let root = root.path();
            scope.spawn(move || {
                let bag = bag.parse().map_err(io::Error::other)?;
                for _ in 0..500 {
                    let parts = Parts::open(root, &bag)?;
                    let part = parts.part(0, 0, &Execution::random());
                    fs::write(&part, b"output")?;
                    assert_eq!(parts.listed().len(), 1);
                    assert_eq!(remove_parts(parts.outputs(), &bag)?, 2);
                }
                Ok::<_, io::Error>(())
            })
        });
        bags.into_iter().try_for_each(|bag| bag.join().expect("a bag"))
    })?;
    assert!(!root.path().join(PART_DIR).exists());
    Ok(())
}

#[test]
fn an_output_has_the_mode_and_time_of_its_source() -> Outcome {
    let folder = Folder::new()?;
    for (mode, mtime) in [(0o4755, 1_700_000_000_123_456_789), (0o400, -1_500_000_000)] {
        let part = folder.parts.part(3, 1, &folder.part(b"output")?);
        let source = PathBuf::from("/source");
        let owner = Some(Owner::of(&part.metadata()?));
        let attributes = Some(Attributes { source, mode, mtime_ns: mtime, owner });
        folder.parts.apply_metadata(&part, &Target { attributes, ..folder.target.clone() })?;
        let metadata = part.metadata()?;
        assert_eq!(metadata.permissions().mode() & 0o7777, mode & 0o777);
        assert_eq!(mtime_ns(&metadata), mtime);
    }
    Ok(())
}

#[test]
fn a_part_file_is_begun_anew() -> Outcome {
    let folder = Folder::new()?;
    let part = folder.parts.part(3, 1, &folder.part(b"longer than it")?);
    io::Write::write_all(&mut folder.parts.create(&part)?, b"short")?;
    assert_eq!(fs::read(part)?, b"short");
    Ok(())
}

#[test]
fn each_opening_has_a_nonce_of_its_own() -> Outcome {
    let folder = Folder::new()?;
    let again = Parts::open(folder.parts.root(), &folder.id.bag)?;
    assert_ne!(folder.parts.nonce().1, again.nonce().1);
    assert_eq!(fs::read_to_string(again.nonce().0)?, again.nonce().1);
    // The nonce is no part file.
    assert!(again.listed().is_empty());
    Ok(())
}

#[test]
fn a_full_disk_is_named_with_both_numbers() -> Outcome {
    let folder = Folder::new()?;
    assert_eq!(folder.parts.full(0), None);
    let why = folder.parts.full(u64::MAX / 2).expect("full");
    assert!(why.contains("bytes free") && why.contains("needed"), "{why}");
    Ok(())
}

#[test]
fn a_time_before_1970_is_kept() -> Outcome {
    let folder = Folder::new()?;
    let part = folder.parts.part(3, 1, &folder.part(b"output")?);
    File::options().append(true).open(&part)?.set_modified(UNIX_EPOCH - Duration::from_secs(5))?;
    assert_eq!(mtime_ns(&part.metadata()?), -5_000_000_000);
    Ok(())
}
