//! One server a store.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::Error;

/// How long a store may stay locked by a server that is being killed: one whose parent was killed
/// takes some milliseconds to end.
const HELD_BY_THE_DYING: Duration = Duration::from_secs(1);

/// Locks `store`, and writes our process id into the lock for whoever is refused.
///
/// The lock belongs to the open file. Hand a clone of it to the server, and the store stays locked until
/// both have ended, in whatever way.
pub(super) async fn lock(store: &Path) -> Result<File, Error> {
    let path = store.join("lock");
    let io = |source| Error::Io { what: "lock", path: path.clone(), source };
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    let mut file = options.open(&path).map_err(io)?;
    let since = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if since.elapsed() < HELD_BY_THE_DYING => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                return Err(Error::StoreInUse { path: store.to_owned(), holder });
            }
            Err(error) => return Err(io(error.into())),
        }
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}
