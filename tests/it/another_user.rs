//! Being another user: root may read and write everything, which hides what others meet.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use bagpress_broker::server::find_program;
use tempfile::TempDir;

/// Nobody's number on most systems; no process of anybody else's needs to have it.
pub(crate) const NOBODY: u32 = 65_534;

/// The programs, where everybody may execute them: a checkout may lie below a folder that only its owner may
/// enter. It is removed with the last place that uses it.
#[derive(Debug)]
pub(crate) struct Programs(TempDir);

static PROGRAMS: LazyLock<Mutex<Weak<Programs>>> = LazyLock::new(Mutex::default);

impl Programs {
    pub(crate) fn shared() -> Arc<Self> {
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

    pub(crate) fn bagpress(&self) -> PathBuf {
        self.0.path().join("bagpress")
    }

    pub(crate) fn nats_server(&self) -> PathBuf {
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
