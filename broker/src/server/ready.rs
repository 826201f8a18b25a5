//! When a server that was started can be used.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Child;
use tokio::time;

use super::log::Log;
use super::store::Store;
use super::token;
use super::{config, lock};
use crate::{Address, Error, Login, SERVER_VERSION_MIN, Secret, limits, version_at_least};

/// A server that answers.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Where it listens.
    pub(crate) url: String,
    /// Its version. Of one that is too old, nothing else was asked.
    pub(crate) version: String,
}

/// Waits until the server listens and JetStream answers.
///
/// The server is ready when its ports file is there: it writes it last of all.
pub(crate) async fn ready(
    child: &mut Child,
    store: &Path,
    token: Option<&Secret>,
    log: &Log,
) -> Result<Ready, Error> {
    let within = limits::SERVER_READY_WITHIN;
    // What it died of comes first: it is the last of many lines of its log.
    let not_ready = |how: String| {
        let why = log.cause().map_or_else(|| how.clone(), |cause| format!("{cause} ({how})"));
        Error::NotReady { why, log_tail: log.tail() }
    };
    let Some(pid) = child.id() else { return Err(not_ready("it ended at once".to_owned())) };
    tokio::select! {
        biased;
        ended = child.wait() => Err(not_ready(match ended {
            Ok(status) => format!("it ended at once: {status}"),
            Err(error) => format!("it cannot be waited for: {error}"),
        })),
        ready = time::timeout(within, answering(store, pid, token)) => {
            ready.map_err(|_| not_ready(format!("no answer after {within:?}")))
        }
    }
}

async fn answering(store: &Path, pid: u32, token: Option<&Secret>) -> Ready {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(url) = listening(store, pid)
            && let Some(version) = jetstream_answers(&url, token).await
        {
            return Ready { url, version };
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

/// The version of the server at an address, once its JetStream answers, or if it is too old for us to ask that.
async fn jetstream_answers(url: &str, token: Option<&Secret>) -> Option<String> {
    let options = match token {
        Some(token) => async_nats::ConnectOptions::with_token(token.reveal().to_owned()),
        None => async_nats::ConnectOptions::new(),
    };
    let client = options.connect(url).await.ok()?;
    let version = client.server_info().version;
    if version_at_least(&version, SERVER_VERSION_MIN) {
        async_nats::jetstream::new(client).query_account().await.ok()?;
    }
    Some(version)
}

/// Where the server of `store` is that another process of this machine runs, and what lets us in, if one does.
///
/// # Errors
///
/// [`Error::NotOurs`]: nothing is taken from a folder that others can write to.
pub fn running(store: &Path) -> Result<Option<Address>, Error> {
    let Some(store) = Store::open(store)? else { return Ok(None) };
    let alive = ports_files(store.path()).into_iter().find_map(|path| {
        let pid: u32 = path.file_stem()?.to_str()?.rsplit_once('_')?.1.parse().ok()?;
        crate::machine::lives(pid).then(|| listening(store.path(), pid)).flatten()
    });
    // Another process may have got the id of a server that was killed, and its port: nobody is to be told a
    // token there. The lock is only tried where one lives, so that looking keeps no server from starting.
    let Some(url) = alive.filter(|_| lock::is_held(&store)) else { return Ok(None) };
    let token = Some(store.path().join(token::FILE)).filter(|path| path.is_file());
    Ok(Some(token.into_iter().fold(Address::plain(&url), of_token)))
}

/// An address whose token is in a file.
pub(super) fn of_token(address: Address, file: PathBuf) -> Address {
    address.with_login(Login::TokenFile(file))
}

/// What a server that was killed has left in `store` of its life: its ports file, its configuration and its
/// token. Nothing, while a process lives that may be that server.
///
/// # Errors
///
/// As [`running`].
pub fn leftovers(store: &Path) -> Result<Vec<PathBuf>, Error> {
    if running(store)?.is_some() {
        return Ok(Vec::new());
    }
    let mut left = ports_files(store);
    let named = [config::FILE, token::FILE].map(|name| store.join(name));
    left.extend(named.into_iter().filter(|path| path.is_file()));
    Ok(left)
}

/// All ports files below `store`: the last server's, if it was killed, and ours.
pub(crate) fn ports_files(store: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(store) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "ports")).collect()
}
