//! One server per store.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::store::Store;
use crate::retry::Retry;
use crate::{Error, machine};

/// Name of the lock, in the store.
const FILE: &str = "lock";
/// How long a store may stay locked by a server that is being killed: one whose parent was killed
/// takes some milliseconds to end.
const HELD_BY_THE_DYING: Duration = Duration::from_secs(1);

/// How long it may take until enough files are closed for a store to be removed.
const FILES_CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Locks the store that `open` gives, and writes our process id into the lock for processes that are refused; none if it
/// gives none.
///
/// The lock belongs to the open file. Hand a clone of it to the server, and the store stays locked until
/// both have ended, in whatever way.
pub(super) async fn lock(
    store: &Path,
    open: impl Fn(&Path) -> Result<Option<Store>, Error>,
) -> Result<Option<(Store, File)>, Error> {
    let once = || std::future::ready(lock_once(store, &open));
    let is_dying =
        |error: &Error| matches!(error, Error::StoreInUse { holder, .. } if !lives(holder));
    Retry::within(HELD_BY_THE_DYING).every(Duration::from_millis(10)).run(once, is_dying).await
}

fn lock_once(
    store: &Path,
    open: impl Fn(&Path) -> Result<Option<Store>, Error>,
) -> Result<Option<(Store, File)>, Error> {
    let path = store.join(FILE);
    let io = |source| Error::Io { what: "lock", path: path.clone(), source };
    let Some(opened) = open(store)? else { return Ok(None) };
    if let Some(mut file) = try_lock(&opened, &path).map_err(io)? {
        file.set_len(0).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        return Ok(Some((opened, file)));
    }
    let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
    Err(Error::StoreInUse { path: store.to_owned(), holder })
}

fn try_lock(store: &Store, path: &Path) -> io::Result<Option<File>> {
    let file = match store.file(FILE, OFlags::RDWR | OFlags::CREATE) {
        // Its last owner has removed the store after we had opened it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // It may have been removed since: that lock locks nothing.
    let ours = file.metadata()?;
    let same = fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino()));
    Ok(same.then_some(file))
}

/// Whether a server, or who supervises it, has the store: the kernel tells, whatever a process id says.
pub(super) fn is_held(store: &Store) -> bool {
    let Ok(file) = store.file(FILE, OFlags::RDONLY) else { return false };
    file.try_lock_shared().is_err()
}

/// Whether the holder is another process that lives. A server that we have dropped is as good as dead.
fn lives(holder: &str) -> bool {
    holder.parse().is_ok_and(|pid: u32| pid != std::process::id() && machine::lives(pid))
}

/// Removes a store, unless somebody uses it. One that is not there is no error.
///
/// # Errors
///
/// [`Error::StoreInUse`], [`Error::NotOurs`] for a link or another user's folder, or [`Error::Io`].
pub async fn remove_store(store: &Path) -> Result<(), Error> {
    // Held until all is gone: a server that starts meanwhile is refused, and a later one makes a new store.
    let Some(_held) = lock(store, Store::hold).await? else { return Ok(()) };
    // It holds each folder on the way down, while who ends with the server still has files open.
    let remove = || std::future::ready(fs::remove_dir_all(store));
    let passes = |error: &io::Error| {
        matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
    };
    let removed = Retry::within(FILES_CLOSE_WITHIN)
        .every(Duration::from_millis(10))
        .run(remove, passes)
        .await;
    removed.map_err(|source| Error::Io { what: "remove", path: store.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::DirBuilderExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    async fn make_and_lock(store: &Path) -> Result<File, Error> {
        Ok(lock(store, |path| Store::make(path).map(Some)).await?.unwrap().1)
    }

    /// Another process that holds the lock of `store` until its input ends, under the name `holder`.
    fn held_by_another(store: &Path, holder: Option<u32>) -> Child {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(store).unwrap();
        let file = File::create(store.join("lock")).unwrap();
        file.try_lock().unwrap();
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
        make_and_lock(folder.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_whose_parent_is_dead_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let other = held_by_another(folder.path(), Some(dead.id()));
        assert!(try_for(Duration::from_millis(50), folder.path()).await.is_none(), "it waits");
        let waiting = make_and_lock(folder.path());
        let (locked, ()) = tokio::join!(waiting, async { end(other) });
        locked.unwrap();
    }

    /// What `lock` says within some time, if it says something.
    async fn try_for(time: Duration, store: &Path) -> Option<Result<File, Error>> {
        tokio::time::timeout(time, make_and_lock(store)).await.ok()
    }

    #[tokio::test]
    async fn the_lock_of_a_store_that_was_removed_is_not_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let (store, path) = (folder.path().join("store"), folder.path().join("store/lock"));
        let first = make_and_lock(&store).await.unwrap();
        fs::remove_dir_all(&store).unwrap();
        let second = make_and_lock(&store).await.expect("a new store is made");
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
