//! The program as a user who is not root: root may read and write everything, which hides what others meet.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use bagpress_broker::server::find_program;
use bagpress_codec::DataKind;
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::files::{expect_outputs, write};
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, failure, generated};

/// Nobody's number on most systems; no process of anybody else's needs to have it.
pub(crate) const NOBODY: u32 = 65_534;

/// The programs, where everybody may execute them: a checkout may lie below a folder that only its owner may
/// enter. It is removed with the last place that uses it.
#[derive(Debug)]
pub(crate) struct Programs(TempDir);

static PROGRAMS: LazyLock<Mutex<Weak<Programs>>> = LazyLock::new(Mutex::default);

impl Programs {
    fn shared() -> Arc<Self> {
        let mut shared = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(programs) = shared.upgrade() {
            return programs;
        }
        let folder = TempDir::with_prefix("bagpress-programs-").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let programs = Arc::new(Self(folder));
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/nats-server");
        let named = std::env::var_os("BAGPRESS_NATS_SERVER").is_some_and(|value| !value.is_empty());
        let server = find_program((!named && ours.is_file()).then_some(&ours)).unwrap().path;
        install(Path::new(env!("CARGO_BIN_EXE_bagpress")), &programs.bagpress());
        install(&fs::canonicalize(server).unwrap(), &programs.nats_server());
        *shared = Arc::downgrade(&programs);
        programs
    }

    fn bagpress(&self) -> PathBuf {
        self.0.path().join("bagpress")
    }

    fn nats_server(&self) -> PathBuf {
        self.0.path().join("nats-server")
    }
}

/// Copies a program by a process of its own: what another thread starts meanwhile would hold a copy of ours
/// open for writing, and a program that is open for writing cannot be started.
pub(crate) fn install(program: &Path, copy: &Path) {
    let mut install = Command::new("install");
    let installed = install.arg("--mode=755").arg(program).arg(copy).status().unwrap();
    assert!(installed.success(), "install {}: {installed}", program.display());
}

/// Whether a test can be two users; said where it cannot, and is left out.
#[expect(clippy::print_stderr, reason = "who runs the tests is told what was left out")]
pub(crate) fn can_be_another() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("left out: only root can be another user, too");
    }
    root
}

impl Place {
    /// The program with these words, as a user who is not root. Everything in the place is that user's from
    /// now on, with the modes that it has.
    pub(crate) fn unprivileged(&self, words: &str) -> Command {
        if is_root() {
            for entry in WalkDir::new(self.path("")).into_iter().map(Result::unwrap) {
                if entry.path_is_symlink() || entry.metadata().unwrap().uid() != NOBODY {
                    lchown(entry.path(), Some(NOBODY), Some(NOBODY)).unwrap();
                }
            }
        }
        self.as_nobody(words)
    }

    /// The same, and everything in the place stays whose it is.
    pub(crate) fn as_nobody(&self, words: &str) -> Command {
        let programs = self.keep(Programs::shared());
        let mut command = if is_root() {
            // It becomes the program: the process is the same, and is ended as any other.
            let mut command = self.command(Path::new("setpriv"), "--clear-groups");
            command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
            command.arg("--").arg(programs.bagpress()).args(words.split_whitespace());
            command
        } else {
            self.command(&programs.bagpress(), words)
        };
        command.env("BAGPRESS_NATS_SERVER", programs.nats_server());
        command
    }
}

/// Whether we may be another user, too.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Ways that a file may go there and its output back.
pub(crate) const WAYS: [&str; 6] = [
    "--results staged --transfer auto --delivery jetstream",
    "--results staged --transfer auto --delivery queue-group",
    "--results staged --transfer wire --delivery jetstream",
    "--results staged --transfer wire --delivery queue-group",
    "--results objects --delivery jetstream",
    "--results objects --delivery queue-group",
];

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
