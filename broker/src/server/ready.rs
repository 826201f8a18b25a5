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

/// Where the server of `store` listens that another process of this machine runs, if one does.
#[must_use]
pub fn running(store: &Path) -> Option<String> {
    ports_files(store).iter().find_map(|path| {
        let name = path.file_stem()?.to_str()?;
        let pid: u32 = name.rsplit_once('_')?.1.parse().ok()?;
        crate::machine::lives(pid).then(|| listening(store, pid)).flatten()
    })
}

/// What a server that was killed has left in `store` of its life: its ports file and its configuration.
/// Nothing, while a process lives that may be that server.
#[must_use]
pub fn leftovers(store: &Path) -> Vec<PathBuf> {
    if running(store).is_some() {
        return Vec::new();
    }
    let mut left = ports_files(store);
    left.extend(Some(store.join(super::config::FILE)).filter(|path| path.is_file()));
    left
}

/// All ports files below `store`: the last server's, if it was killed, and ours.
pub(crate) fn ports_files(store: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(store) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "ports")).collect()
}
