//! A real nats-server for each test.

use std::fmt::Display;
use std::future::Future;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ids::Pool;
use crate::server::{Config, Durability, Program, find_program};
use crate::{Address, Broker, Role, Sizes};

/// Servers that one test program runs at a time.
static SERVERS: LazyLock<std::sync::Arc<Semaphore>> =
    LazyLock::new(|| std::sync::Arc::new(Semaphore::new(2)));

/// A nats-server with JetStream on a free loopback port. Dropping it kills the process and deletes its
/// store.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    program: Program,
    folder: TempDir,
    url: String,
    extra: String,
    _permit: OwnedSemaphorePermit,
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
        let program = find_program(None).unwrap_or_else(|error| {
            fail(&format!("{error}; {}", error.hint().unwrap_or_default()))
        });
        let folder = TempDir::with_prefix("bagpress-nats-").unwrap_or_else(|e| fail(&e));
        let (child, url) = spawn(&program, folder.path(), "127.0.0.1:-1", extra);
        let extra = extra.to_owned();
        let mut server = Self { child, program, folder, url, extra, _permit: permit };
        server.ready().await;
        server
    }

    async fn ready(&mut self) {
        self.url = eventually("the server listens", Duration::from_secs(20), async || {
            let pid = self.child.id();
            super::server::listening_at(self.folder.path(), pid)
        })
        .await;
        let url = self.url.clone();
        eventually("JetStream answers", Duration::from_secs(20), async || {
            let client = async_nats::connect(&url).await.ok()?;
            async_nats::jetstream::new(client).query_account().await.ok()
        })
        .await;
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
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
        broker.ensure(&Pool::default(), sizes).await.unwrap_or_else(|e| fail(&e));
        broker
    }

    /// Kills it, without a word, and starts it again on the same port and store.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        let listen = self.url.trim_start_matches("nats://").to_owned();
        let (child, _) = spawn(&self.program, self.folder.path(), &listen, &self.extra);
        self.child = child;
        self.ready().await;
    }

    fn kill(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(program: &Program, store: &Path, listen: &str, extra: &str) -> (Child, String) {
    let config = Config {
        store: store.to_owned(),
        listen: listen.to_owned(),
        durability: Durability::Default,
        version: program.version.clone(),
        extra: extra.to_owned(),
    };
    let path = store.join("server.conf");
    std::fs::write(&path, config.text()).unwrap_or_else(|e| fail(&e));
    let log = std::fs::File::create(store.join("server.log")).unwrap_or_else(|e| fail(&e));
    let child = Command::new(&program.path)
        .arg("--config")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|e| fail(&e));
    (child, String::new())
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
