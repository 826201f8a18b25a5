//! The window that bounds the inputs in the bucket: which wait for it, which are in it, which are about to leave it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bagpress_broker::{limits, subjects};
use bagpress_objstore::object_ref::Info;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};

/// Bytes that one permit of the window stands for, and hence the least that an input takes of it: thousands of small ones would lie in more
/// blocks of the server's store than it keeps at hand.
const UNIT_BYTES: u64 = 512 * 1024;
/// Most inputs that are about to be freed.
const FREEINGS_MAX: u32 = 4_096;

/// An input in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum InputOf {
    /// Of one task.
    Task(u32),
    /// Of the pack that this file begins.
    Pack(u32),
}

impl InputOf {
    /// Its name in the bucket.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Task(index) => subjects::input_name(index),
            Self::Pack(first) => subjects::input_tar_name(first),
        }
    }
}

/// Bounds the inputs in the bucket to [`limits::INPUT_WINDOW_BYTES`].
#[derive(Debug)]
pub(crate) struct Window {
    room: Arc<Semaphore>,
    /// Inputs that wait for room.
    waiting: AtomicUsize,
    /// Whether they stop waiting, and publishing ends with them.
    gives_way: watch::Sender<bool>,
    /// Inputs in the bucket.
    stored: Mutex<HashMap<InputOf, Stored>>,
    /// Inputs that are about to be freed, and how often: they are not put again before they are gone.
    being_freed: Mutex<HashMap<InputOf, u32>>,
    /// An input was freed.
    freed: Notify,
    freeings: Arc<Semaphore>,
}

/// An input's part of the window; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    _permits: OwnedSemaphorePermit,
}

/// An input in the bucket.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) info: Info,
    _share: Share,
}

/// Inputs that are being freed; dropping it makes room for more of them.
#[derive(Debug)]
pub(crate) struct Freeings {
    _permits: OwnedSemaphorePermit,
}

impl Window {
    pub(crate) fn new() -> Self {
        let units = usize::try_from(limits::INPUT_WINDOW_BYTES / UNIT_BYTES).unwrap_or(1);
        Self {
            room: Arc::new(Semaphore::new(units)),
            waiting: AtomicUsize::new(0),
            gives_way: watch::Sender::new(false),
            stored: Mutex::default(),
            being_freed: Mutex::default(),
            freed: Notify::new(),
            freeings: Arc::new(Semaphore::new(FREEINGS_MAX as usize)),
        }
    }

    /// Ends the waiting for room, if anything waits: only then does publishing end early.
    pub(crate) fn give_way(&self) {
        if self.waiting.load(Relaxed) > 0 {
            self.gives_way.send_replace(true);
        }
    }

    /// Whether it gave way since it was last [opened](Self::open).
    pub(crate) fn gave_way(&self) -> bool {
        *self.gives_way.borrow()
    }

    /// Lets inputs wait for room again.
    pub(crate) fn open(&self) {
        self.gives_way.send_replace(false);
    }

    /// Waits until there is room for an input of `bytes`; none if the window gives way first. An input larger than
    /// the window takes all of it.
    ///
    /// Gives up what an earlier round of it had, and waits first until that is gone from the bucket: it would be
    /// adopted, and removed then.
    pub(crate) async fn enter(&self, of: InputOf, bytes: u64) -> Option<Share> {
        drop(self.take(of));
        loop {
            // Before the look: a notice between the two is not missed.
            let freed = self.freed.notified();
            if !self.being_freed().contains_key(&of) {
                break;
            }
            freed.await;
        }
        let units = (bytes / UNIT_BYTES + 1).min(limits::INPUT_WINDOW_BYTES / UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let mut gives_way = self.gives_way.subscribe();
        self.waiting.fetch_add(1, Relaxed);
        let permits = tokio::select! {
            biased;
            permits = self.room.clone().acquire_many_owned(units) => permits.ok(),
            _ = gives_way.wait_for(|gives_way| *gives_way) => None,
        };
        self.waiting.fetch_sub(1, Relaxed);
        permits.map(|permits| Share { _permits: permits })
    }

    /// Waits as long, and gives way like one that waits for room; whether it did.
    pub(crate) async fn pause(&self, how_long: Duration) -> bool {
        self.unless_it_gives_way(tokio::time::sleep(how_long)).await.is_none()
    }

    /// Does what takes long, and gives it up like one that waits for room; none if it did.
    pub(crate) async fn unless_it_gives_way<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut gives_way = self.gives_way.subscribe();
        self.waiting.fetch_add(1, Relaxed);
        let done = tokio::select! {
            biased;
            _ = gives_way.wait_for(|gives_way| *gives_way) => None,
            done = work => Some(done),
        };
        self.waiting.fetch_sub(1, Relaxed);
        done
    }

    /// Notes that an input is in the bucket.
    pub(crate) fn note(&self, of: InputOf, info: Info, share: Share) {
        self.stored().insert(of, Stored { info, _share: share });
    }

    /// Takes an input out; its share is free once the returned value is dropped.
    pub(crate) fn take(&self, of: InputOf) -> Option<Stored> {
        self.stored().remove(&of)
    }

    /// The inputs in the bucket for which `wanted` holds.
    pub(crate) fn stored_where(&self, wanted: impl Fn(InputOf) -> bool) -> Vec<InputOf> {
        self.stored().keys().copied().filter(|of| wanted(*of)).collect()
    }

    /// Notes that inputs are about to be freed; waits while too many are.
    pub(crate) async fn begin_freeing(&self, inputs: &[InputOf]) -> Option<Freeings> {
        let most = u32::try_from(inputs.len()).unwrap_or(u32::MAX).min(FREEINGS_MAX);
        let permits = self.freeings.clone().acquire_many_owned(most).await.ok()?;
        let mut being_freed = self.being_freed();
        for of in inputs {
            *being_freed.entry(*of).or_default() += 1;
        }
        Some(Freeings { _permits: permits })
    }

    /// Notes that an input was freed.
    pub(crate) fn end_freeing(&self, of: InputOf) {
        let mut being_freed = self.being_freed();
        let left = being_freed.remove(&of).unwrap_or_default().saturating_sub(1);
        if left > 0 {
            being_freed.insert(of, left);
        } else {
            self.freed.notify_waiters();
        }
    }

    /// Waits until nothing is being freed, and lets nothing more be until the returned permit is dropped.
    pub(crate) async fn all_freed(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.freeings.acquire_many(FREEINGS_MAX).await.ok()
    }

    fn stored(&self) -> MutexGuard<'_, HashMap<InputOf, Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn being_freed(&self) -> MutexGuard<'_, HashMap<InputOf, u32>> {
        self.being_freed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bagpress_codec::Digest;
    use futures::FutureExt;
    use futures::poll;

    use super::InputOf::{Pack, Task};
    use super::*;

    fn info() -> Info {
        Info {
            bucket: "b".to_owned(),
            name: "n".to_owned(),
            token: "t".to_owned(),
            bytes: 0,
            chunks: 0,
            digest: Digest::of(b""),
            sequence: 1,
            description: String::new(),
            metadata: HashMap::new(),
            modified: None,
        }
    }

    #[tokio::test]
    async fn an_input_larger_than_the_window_takes_all_of_it_and_the_next_one_waits() {
        let window = Window::new();
        let share = window.enter(Task(0), u64::MAX).now_or_never().flatten().unwrap();
        window.note(Task(0), info(), share);
        let mut next = Box::pin(window.enter(Task(1), 1));
        assert!(poll!(&mut next).is_pending());
        assert_eq!(window.stored_where(|_| true), [Task(0)]);
        let stored = window.take(Task(0));
        assert!(poll!(&mut next).is_pending(), "it is in the bucket until it is removed there");
        drop(stored);
        assert!(next.now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn publishing_gives_way_only_if_something_waits_for_room() {
        let window = Window::new();
        window.give_way();
        assert!(!window.gave_way());
        let all = window.enter(Task(0), u64::MAX).now_or_never().flatten().unwrap();
        let mut next = Box::pin(window.enter(Task(1), 1));
        assert!(poll!(&mut next).is_pending());
        window.give_way();
        assert!(window.gave_way());
        assert!(next.now_or_never().is_some_and(|share| share.is_none()));
        window.open();
        drop(all);
        assert!(!window.gave_way());
        assert!(window.enter(Task(1), 1).now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn an_input_is_not_put_again_before_each_freeing_of_it_has_ended() {
        let window = Window::new();
        let freeings = [
            window.begin_freeing(&[Task(3)]).now_or_never().flatten().unwrap(),
            window.begin_freeing(&[Task(3), Task(4)]).now_or_never().flatten().unwrap(),
        ];
        let mut again = Box::pin(window.enter(Task(3), 1));
        assert!(poll!(&mut again).is_pending());
        window.end_freeing(Task(4));
        window.end_freeing(Task(3));
        assert!(poll!(&mut again).is_pending(), "it is being freed twice");
        assert!(window.all_freed().now_or_never().is_none());
        window.end_freeing(Task(3));
        assert!(again.now_or_never().flatten().is_some());
        drop(freeings);
        assert!(window.all_freed().now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn the_input_of_a_pack_is_another_than_that_of_its_first_file() {
        let window = Window::new();
        let freeing = window.begin_freeing(&[Pack(3)]).now_or_never().flatten().unwrap();
        let share = window.enter(Task(3), 1).now_or_never().flatten().unwrap();
        window.note(Task(3), info(), share);
        assert!(window.take(Pack(3)).is_none());
        window.end_freeing(Pack(3));
        drop(freeing);
        assert_eq!(window.stored_where(|_| true), [Task(3)]);
        assert_ne!(Pack(3).name(), Task(3).name());
    }

    #[tokio::test]
    async fn a_new_round_does_not_wait_for_the_share_of_the_one_before() {
        let window = Window::new();
        let share = window.enter(Task(0), u64::MAX).now_or_never().flatten().unwrap();
        window.note(Task(0), info(), share);
        assert!(window.enter(Task(0), u64::MAX).now_or_never().flatten().is_some());
        assert_eq!(window.stored_where(|_| true), []);
    }
}
