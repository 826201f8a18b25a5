//! A folder to run the program in, and its processes. Every wait has an end, and says what it was for.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use bagpress_broker::testing::{NatsServer, eventually};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use walkdir::WalkDir;

use crate::another_user::{NOBODY, Programs, is_root};
use crate::process;

/// Nothing in these tests takes this long on a machine that is busy with something else.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// Tests that run at a time: each has a server, workers and a gatherer.
static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(5)));

/// A folder of one test, in which the program is run. Dropping it removes it.
pub(crate) struct Place {
    folder: TempDir,
    started: AtomicU32,
    programs: OnceLock<Arc<Programs>>,
    _permit: OwnedSemaphorePermit,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; none if a signal killed it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let permit = PLACES.clone().acquire_owned().await.unwrap();
        let folder = TempDir::with_prefix("bagpress-it-").unwrap();
        let (started, programs) = (AtomicU32::new(0), OnceLock::new());
        Self { folder, started, programs, _permit: permit }
    }

    /// A place, and a server with the streams.
    pub(crate) async fn with_server() -> (Self, NatsServer) {
        let (place, server) = Self::with_bare_server().await;
        let init = format!("broker --init --max-file 2GiB --server {}", server.url());
        place.run(&init).await.with_code(0);
        (place, server)
    }

    /// A place, and a server without the streams.
    pub(crate) async fn with_bare_server() -> (Self, NatsServer) {
        // In this order everywhere: a test that waits for a server holds no place that another test needs first.
        let place = Self::new().await;
        (place, NatsServer::start().await)
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// A run's folder.
    pub(crate) fn folder(&self, run: &str) -> PathBuf {
        self.path("runs").join(run)
    }

    /// The program with these words; nothing of what somebody exported reaches it, except which
    /// nats-server the tests use.
    pub(crate) fn command(&self, program: &Path, words: &str) -> Command {
        let mut command = Command::new(program);
        command.args(words.split_whitespace()).current_dir(self.folder.path());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("BAGPRESS_") && text != "BAGPRESS_NATS_SERVER" {
                command.env_remove(&name);
            }
        }
        command
    }

    pub(crate) fn bagpress(&self, words: &str) -> Command {
        self.command(Path::new(env!("CARGO_BIN_EXE_bagpress")), words)
    }

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
        let programs = self.programs.get_or_init(Programs::shared);
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

    /// Runs the program to its end.
    pub(crate) async fn run(&self, words: &str) -> Ended {
        self.finish(self.bagpress(words)).await
    }

    /// Runs a command to its end.
    pub(crate) async fn finish(&self, command: Command) -> Ended {
        self.start(command).ended(self).await
    }

    /// Starts the program; it is killed when its handle is dropped.
    pub(crate) fn spawn(&self, words: &str) -> Running {
        self.start(self.bagpress(words))
    }

    pub(crate) fn start(&self, mut command: Command) -> Running {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let stdout = self.path(&format!("{number}.stdout.log"));
        let stderr = self.path(&format!("{number}.stderr.log"));
        let what = format!("{command:?}");
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        Running { child, what, stdout, stderr }
    }

    /// Starts a worker of one slot.
    pub(crate) fn worker(&self, server: &NatsServer) -> Running {
        self.spawn(&format!("worker --slots 1 --server {}", server.url()))
    }

    /// Waits until `condition` gives something.
    pub(crate) async fn until<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        self.until_within(SOON, what, condition).await
    }

    /// The same for what may take longer than anything else here.
    async fn until_within<T>(
        &self,
        within: Duration,
        what: &str,
        mut condition: impl FnMut() -> Option<T>,
    ) -> T {
        let since = Instant::now();
        let found = eventually(what, 2 * within, || {
            let late = since.elapsed() > within;
            std::future::ready(match condition() {
                Some(found) => Some(Some(found)),
                None => late.then_some(None),
            })
        });
        found
            .await
            .unwrap_or_else(|| panic!("waited {within:?} in vain until {what}\n{}", self.tails()))
    }

    /// Waits until every one of these processes is gone.
    pub(crate) async fn until_gone(&self, pids: &[u32]) {
        self.until(&format!("processes {pids:?} are gone"), || {
            pids.iter().all(|pid| !process::is_alive(*pid)).then_some(())
        })
        .await;
    }

    /// The ends of all logs of this place.
    fn tails(&self) -> String {
        let mut tails = String::new();
        for path in self.logs() {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let mut tail: VecDeque<_> = VecDeque::new();
            for line in text.lines() {
                tail.push_back(line);
                if tail.len() > 12 {
                    tail.pop_front();
                }
            }
            writeln!(tails, "--- {}", path.display()).unwrap();
            for line in tail {
                writeln!(tails, "{line}").unwrap();
            }
        }
        tails
    }

    fn logs(&self) -> Vec<PathBuf> {
        let entries = WalkDir::new(self.folder.path()).sort_by_file_name().into_iter();
        let paths = entries.filter_map(Result::ok).map(walkdir::DirEntry::into_path);
        paths.filter(|path| path.extension().is_some_and(|e| e == "log")).collect()
    }

    /// Fails if a log has a warning that no word of `announced` explains.
    pub(crate) fn expect_no_warnings(&self, announced: &[&str]) {
        for path in self.logs() {
            let text = fs::read_to_string(&path).unwrap_or_default();
            for line in text.lines() {
                let loud = line.contains(r#""level":"WARN""#)
                    || line.contains(r#""level":"ERROR""#)
                    || line.trim_start().starts_with("WARN ")
                    || line.trim_start().starts_with("ERROR ");
                let known = announced.iter().any(|word| line.contains(word));
                assert!(!loud || known, "{}: {line}", path.display());
            }
        }
    }
}

impl Ended {
    /// Itself, if it ended with this exit code.
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}

/// A process in the background. Dropping it kills it, and what it started dies with it.
pub(crate) struct Running {
    child: Child,
    what: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits for its end.
    pub(crate) async fn ended(self, place: &Place) -> Ended {
        self.ended_within(SOON, place).await
    }

    /// The same for what has more to do than anything else here.
    pub(crate) async fn ended_within(mut self, within: Duration, place: &Place) -> Ended {
        let what = format!("{} ends", self.what);
        let status = place.until_within(within, &what, || self.child.try_wait().unwrap()).await;
        Ended {
            code: status.code(),
            stdout: String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned(),
            stderr: String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that is stopped must go on to die.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
            && matches!(self.child.try_wait(), Ok(None))
        {
            kill_process(pid, Signal::KILL).ok();
        }
        self.child.wait().ok();
    }
}
