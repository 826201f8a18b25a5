//! When a server that was started can be used.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Child;
use tokio::time;

use super::log::Log;
use crate::{Error, limits};

/// Waits until the server listens and JetStream answers, and says where.
///
/// The server is ready when its ports file is there: it writes it last of all.
pub(crate) async fn ready(child: &mut Child, store: &Path, log: &Log) -> Result<String, Error> {
    let within = limits::SERVER_READY_WITHIN;
    let not_ready = |why: String| Error::NotReady { why, log_tail: log.tail() };
    let Some(pid) = child.id() else { return Err(not_ready("it ended at once".to_owned())) };
    tokio::select! {
        biased;
        ended = child.wait() => Err(not_ready(match ended {
            Ok(status) => format!("it ended at once: {status}"),
            Err(error) => format!("it cannot be waited for: {error}"),
        })),
        ready = time::timeout(within, answering(store, pid)) => {
            ready.map_err(|_| not_ready(format!("no answer after {within:?}")))
        }
    }
}

async fn answering(store: &Path, pid: u32) -> String {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(url) = listening(store, pid)
            && jetstream_answers(&url).await
        {
            return url;
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// The first address of the ports file that process `pid` wrote.
fn listening(store: &Path, pid: u32) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    // The server names the file after itself, whatever its program is called.
    let end = format!("_{pid}.ports");
    let mut files = ports_files(store).into_iter();
    let file = files.find(|path| path.to_string_lossy().ends_with(&end))?;
    // One that is half written does not parse, and is read again.
    let ports: Ports = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    ports.nats.into_iter().next()
}

async fn jetstream_answers(url: &str) -> bool {
    let Ok(client) = async_nats::connect(url).await else { return false };
    async_nats::jetstream::new(client).query_account().await.is_ok()
}

/// All ports files below `store`: the last server's, if it was killed, and ours.
pub(crate) fn ports_files(store: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(store) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "ports")).collect()
}
