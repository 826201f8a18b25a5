//! One at a time: many files of one tar may be wanted at once, and all of them wait for the same task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_objstore::object_ref::Reference;
use tokio::sync::OwnedMutexGuard;

/// Who makes which object again: at most as many as are wanted at a time.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Reference, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until nobody else makes this object again.
    pub(super) async fn of(&self, object: &Reference) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever has a turn, or waits for one, has the other half.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(object.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_object_is_made_by_one_at_a_time_and_another_one_meanwhile() {
        let turns = Turns::default();
        let [one, other] =
            ["obj://b/out_0.tar", "obj://b/out_1.tar"].map(|name| name.parse().unwrap());
        let first = turns.of(&one).await;
        let mut second = Box::pin(turns.of(&one));
        assert!((&mut second).now_or_never().is_none());
        assert!(turns.of(&other).now_or_never().is_some());
        drop(first);
        assert!(second.now_or_never().is_some());
        assert!(turns.of(&other).now_or_never().is_some());
        assert_eq!(turns.0.lock().unwrap().len(), 1, "nothing is kept of what is over");
    }
}
