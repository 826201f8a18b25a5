//! A real nats-server for each test.

pub mod read_back;
pub mod samples;

use std::fmt::Display;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ids::Pool;
use crate::server::config::NEWEST_SETTINGS;
use crate::server::log::Log;
use crate::server::ready::ready;
use crate::server::store::Store;
use crate::server::{Config, Durability, Program, find_program};
use crate::{Address, Broker, Role, Sizes, version_at_least};

/// A process that was killed or stopped is so long before.
const SIGNALLED_WITHIN: Duration = Duration::from_secs(10);
/// The pinned server of the checkout that these tests were built in.
const OF_THE_CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/bin/nats-server");

/// Servers that one test program runs at a time.
static SERVERS: LazyLock<std::sync::Arc<Semaphore>> =
    LazyLock::new(|| std::sync::Arc::new(Semaphore::new(4)));

/// A nats-server with JetStream on a free loopback port. Dropping it kills the process and deletes its
/// store.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    program: Program,
    folder: TempDir,
    url: String,
    extra: String,
    _permit: std::sync::Arc<OwnedSemaphorePermit>,
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl NatsServer {
    /// Starts a server.
    ///
    /// # Panics
    ///
    /// If there is none, with what to install; if it does not become ready.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a server with further lines of configuration.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(extra: &str) -> Self {
        let permit = SERVERS.clone().acquire_owned().await.unwrap_or_else(|e| fail(&e));
        let program = program();
        let folder = TempDir::with_prefix("bagpress-nats-").unwrap_or_else(|e| fail(&e));
        let (child, url) = spawn(&program, folder.path(), "127.0.0.1:-1", extra).await;
        let extra = extra.to_owned();
        Self { child, program, folder, url, extra, _permit: permit.into() }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    ///
    /// # Panics
    ///
    /// If it was waited for.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_else(|| fail(&"the server has ended"))
    }

    /// Its log, from its first start on.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("server.log"));
        log.unwrap_or_else(|e| fail(&e))
    }

    /// A connection, with the streams made.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn broker(&self, role: Role) -> Broker {
        let broker = Broker::connect(&Address::plain(&self.url), role).await;
        let broker = broker.unwrap_or_else(|e| fail(&e));
        let sizes = Sizes { max_file: Some(8 << 30), replicas: 1 };
        let ensured = Box::pin(broker.ensure(&Pool::default(), sizes)).await;
        ensured.unwrap_or_else(|e| fail(&e));
        broker
    }

    /// Kills it, without a word, and starts it again on the same port and store.
    ///
    /// # Panics
    ///
    /// If it does not become ready again.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        let listen = self.url.trim_start_matches("nats://").to_owned();
        let folder = self.folder.path();
        (self.child, self.url) = spawn(&self.program, folder, &listen, &self.extra).await;
    }

    /// Kills it, forgets everything that it stored, and starts it again on the same port.
    ///
    /// # Panics
    ///
    /// As [`kill_and_restart`](Self::kill_and_restart).
    pub async fn forget_and_restart(&mut self) {
        self.kill();
        let store = self.folder.path().join("jetstream");
        std::fs::remove_dir_all(store).unwrap_or_else(|e| fail(&e));
        self.kill_and_restart().await;
    }

    /// Sends its process a signal, such as SIGUSR2: lame duck mode.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn send(&self, signal: Signal) {
        self.signal(signal);
    }

    /// Three servers that are one cluster, with streams in three copies. They count as one.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn cluster() -> [Self; 3] {
        let permit = SERVERS.clone().acquire_owned().await.unwrap_or_else(|e| fail(&e));
        let permit = std::sync::Arc::new(permit);
        let program = program();
        // Taken all at once, so that they differ.
        let taken = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| fail(&e)));
        let routes = taken.each_ref().map(|l| l.local_addr().unwrap_or_else(|e| fail(&e)));
        drop(taken);
        let all = routes.map(|route| format!("nats://{route}")).join(", ");
        let start = async |route: SocketAddr| {
            let extra = format!("cluster {{ name: bag, listen: \"{route}\", routes: [{all}] }}");
            let folder = TempDir::with_prefix("bagpress-nats-").unwrap_or_else(|e| fail(&e));
            let (child, url) = spawn(&program, folder.path(), "127.0.0.1:-1", &extra).await;
            Self { child, program: program.clone(), folder, url, extra, _permit: permit.clone() }
        };
        let (a, b, c) = tokio::join!(start(routes[0]), start(routes[1]), start(routes[2]));
        [a, b, c]
    }

    /// The name that the server gives itself in a cluster.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        let log = self.log();
        let said = log.lines().filter_map(|line| line.split_once("Name:"));
        said.map(|(_, said)| said.trim()).any(|said| said == name)
    }

    /// Stops its process (SIGSTOP): connections stay, and nothing answers once this returns.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn stop_process(&self) {
        self.signal(Signal::STOP);
        // Its threads stop one by one; the kernel tells the parent when the last one has.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let since = Instant::now();
        while waitid(WaitId::Pid(self.process()), stopped).unwrap_or_else(|e| fail(&e)).is_none() {
            if since.elapsed() > SIGNALLED_WITHIN {
                fail(&"the server does not stop");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets its process go on (SIGCONT).
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn continue_process(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).unwrap_or_else(|e| fail(&e));
    }

    fn process(&self) -> Pid {
        let pid = Pid::from_raw(self.pid().cast_signed());
        pid.unwrap_or_else(|| fail(&"the server has no process id"))
    }

    /// Kills it, and waits until it is gone: it must not write into a store that is being deleted.
    pub fn kill(&mut self) {
        // It may be gone already.
        self.child.start_kill().ok();
        let since = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && since.elapsed() < SIGNALLED_WITHIN {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The server that `make` names, the one of the checkout, or any that fits.
fn program() -> Program {
    let named = std::env::var_os("BAGPRESS_NATS_SERVER").is_some_and(|value| !value.is_empty());
    let ours = Path::new(OF_THE_CHECKOUT);
    let explicit = (!named && ours.is_file()).then_some(ours);
    let found = find_program(explicit).and_then(|program| program.version().map(|_| program));
    found.unwrap_or_else(|error| fail(&format!("{error}; {}", error.hint().unwrap_or_default())))
}

async fn spawn(program: &Program, store: &Path, listen: &str, extra: &str) -> (Child, String) {
    let version = program.version().unwrap_or_else(|e| fail(&e));
    let config = Config {
        store: store.to_owned(),
        inside: false,
        listen: listen.to_owned(),
        durability: Durability::Default,
        newest_settings: version_at_least(&version, NEWEST_SETTINGS),
        token: None,
        extra: extra.to_owned(),
    };
    let folder = Store::make(store).unwrap_or_else(|e| fail(&e));
    let config = config.write(&folder).unwrap_or_else(|e| fail(&e));
    let (log, output) = Log::open(&folder).unwrap_or_else(|e| fail(&e));
    let mut command = Command::new(&program.path);
    command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let mut child = command.kill_on_drop(true).spawn().unwrap_or_else(|e| fail(&e));
    // The three of a cluster answer once they have chosen a leader. That takes 10 s, and as long again for each choice that a busy
    // machine is late for.
    let mut choices = if extra.contains("cluster {") { 4 } else { 1 };
    loop {
        match ready(&mut child, store, None, &log).await {
            Ok(ready) => return (child, ready.url),
            Err(error) if choices == 1 => fail(&error),
            Err(_) => choices -= 1,
        }
    }
}

/// Waits until `condition` gives something.
///
/// # Panics
///
/// After `within`, with `what` it waited for.
pub async fn eventually<T, F>(what: &str, within: Duration, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let since = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        if since.elapsed() > within {
            fail(&format!("waited {within:?} in vain until {what}"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[expect(clippy::panic, reason = "a test that cannot go on must say why and end")]
fn fail(why: &dyn Display) -> ! {
    panic!("{why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    async fn answers(client: &async_nats::Client) -> bool {
        let asked = client.request("$JS.API.INFO", "".into());
        tokio::time::timeout(Duration::from_millis(200), asked).await.is_ok_and(|a| a.is_ok())
    }

    #[tokio::test]
    async fn a_killed_server_comes_back_with_its_port_and_its_store() {
        let mut server = NatsServer::start().await;
        let (url, pid) = (server.url().to_owned(), server.pid());
        Box::pin(server.broker(Role::Admin)).await;
        server.kill_and_restart().await;
        assert_eq!(server.url(), url);
        assert_ne!(server.pid(), pid);
        let broker = Broker::connect(&Address::plain(&url), Role::Producer).await.unwrap();
        broker.require(&Pool::default()).await.unwrap();
        assert_eq!(server.log().matches("Server is ready").count(), 2);
    }

    #[tokio::test]
    async fn a_stopped_server_does_not_answer_until_it_goes_on() {
        let server = NatsServer::start().await;
        let client = async_nats::connect(server.url()).await.unwrap();
        server.stop_process();
        assert!(!answers(&client).await);
        server.continue_process();
        eventually("it answers again", SOON, async || answers(&client).await.then_some(())).await;
    }

    #[tokio::test]
    async fn further_lines_are_obeyed() {
        let server = NatsServer::start_with("max_payload: 4096").await;
        let client = async_nats::connect(server.url()).await.unwrap();
        assert_eq!(client.server_info().max_payload, 4_096);
    }

    #[tokio::test]
    async fn dropping_leaves_no_process_and_no_folder() {
        let server = NatsServer::start().await;
        let pid = Pid::from_raw(server.pid().cast_signed()).unwrap();
        let folder = server.folder.path().to_owned();
        assert!(folder.join("jetstream").is_dir());
        drop(server);
        assert!(rustix::process::test_kill_process(pid).is_err());
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn waiting_in_vain_says_for_what() {
        let waiting = tokio::spawn(async {
            let never = async || None::<()>;
            eventually("pigs fly", Duration::from_millis(20), never).await;
        });
        let panic = waiting.await.unwrap_err().into_panic();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("pigs fly"), "{text}");
    }
}
