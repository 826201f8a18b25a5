//! One server a store.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{Error, machine};

/// How long a store may stay locked by a server that is being killed: one whose parent was killed
/// takes some milliseconds to end.
const HELD_BY_THE_DYING: Duration = Duration::from_secs(1);

/// Makes `store` if need be, locks it, and writes our process id into the lock for whoever is refused.
///
/// The lock belongs to the open file. Hand a clone of it to the server, and the store stays locked until
/// both have ended, in whatever way.
pub(super) async fn lock(store: &Path) -> Result<File, Error> {
    let path = store.join("lock");
    let io = |source| Error::Io { what: "lock", path: path.clone(), source };
    let since = Instant::now();
    loop {
        let tried = try_lock(store, &path).map_err(io)?;
        if let Some(mut file) = tried {
            file.set_len(0).map_err(io)?;
            writeln!(file, "{}", std::process::id()).map_err(io)?;
            return Ok(file);
        }
        let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
        if lives(&holder) || since.elapsed() > HELD_BY_THE_DYING {
            return Err(Error::StoreInUse { path: store.to_owned(), holder });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn try_lock(store: &Path, path: &Path) -> io::Result<Option<File>> {
    fs::create_dir_all(store)?;
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).read(true).write(true).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // Its last owner may have removed the store after we had opened the file: that lock locks nothing.
    let ours = file.metadata()?;
    let same = fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino()));
    Ok(same.then_some(file))
}

/// Whether the holder is another process that lives. A server that we have dropped is as good as dead.
fn lives(holder: &str) -> bool {
    holder.parse().is_ok_and(|pid: u32| pid != std::process::id() && machine::lives(pid))
}

/// Removes a store, unless somebody uses it. One that is not there is no error.
///
/// # Errors
///
/// [`Error::StoreInUse`], or [`Error::Io`].
pub async fn remove_store(store: &Path) -> Result<(), Error> {
    if !store.exists() {
        return Ok(());
    }
    // Held until all is gone: who comes meanwhile is refused, and who comes after makes a new one.
    let _lock = lock(store).await?;
    fs::remove_dir_all(store).map_err(|source| Error::Io {
        what: "remove",
        path: store.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Another process that holds the lock of `store` until its input ends, under the name `holder`.
    fn held_by_another(store: &Path, holder: Option<u32>) -> Child {
        fs::create_dir_all(store).unwrap();
        let file = File::create(store.join("lock")).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut command = Command::new("cat");
        let child = command.stdin(Stdio::piped()).stdout(file).spawn().unwrap();
        fs::write(store.join("lock"), holder.unwrap_or(child.id()).to_string()).unwrap();
        child
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn who_finds_a_store_in_use_by_the_living_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let other = held_by_another(folder.path(), None);
        // At once: a lock that is given back a moment later must not be waited for.
        let refused = try_for(Duration::ZERO, folder.path()).await;
        assert!(
            matches!(&refused, Some(Err(Error::StoreInUse { holder, .. })) if *holder == other.id().to_string()),
            "{refused:?}"
        );
        end(other);
        lock(folder.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_whose_parent_is_dead_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let other = held_by_another(folder.path(), Some(dead.id()));
        assert!(try_for(Duration::from_millis(50), folder.path()).await.is_none(), "it waits");
        let waiting = lock(folder.path());
        let (locked, ()) = tokio::join!(waiting, async { end(other) });
        locked.unwrap();
    }

    /// What `lock` says within some time, if it says something.
    async fn try_for(time: Duration, store: &Path) -> Option<Result<File, Error>> {
        tokio::time::timeout(time, lock(store)).await.ok()
    }

    #[tokio::test]
    async fn the_lock_of_a_store_that_was_removed_is_not_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let (store, path) = (folder.path().join("store"), folder.path().join("store/lock"));
        let first = lock(&store).await.unwrap();
        fs::remove_dir_all(&store).unwrap();
        let second = lock(&store).await.expect("a new store is made");
        assert_ne!(first.metadata().unwrap().ino(), second.metadata().unwrap().ino());
        assert_eq!(fs::metadata(path).unwrap().ino(), second.metadata().unwrap().ino());
    }

    #[tokio::test]
    async fn a_store_in_use_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let other = held_by_another(&store, None);
        assert!(matches!(remove_store(&store).await, Err(Error::StoreInUse { .. })));
        assert!(store.exists());
        end(other);
        remove_store(&store).await.unwrap();
        assert!(!store.exists());
        remove_store(&store).await.expect("one that is not there is no error");
    }
}
