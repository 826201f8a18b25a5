//! Inputs leave the bucket, and their shares of the window become free.

use std::sync::Arc;

use bagpress_objstore::object_ref::{Bucket, Error};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tracing::warn;

use crate::publish::input::remove_input;
use crate::publish::publisher::Publisher;
use crate::publish::window::{InputOf, Window};

/// Inputs that are freed at a time, of each batch of outcomes; no bytes travel.
const FREEINGS: usize = 16;

impl Publisher {
    /// Frees the inputs that are in the bucket and are not wanted there.
    pub(crate) async fn free_stored(&self, unwanted: impl Fn(InputOf) -> bool) {
        self.free(self.shared.window.stored_where(unwanted)).await;
    }

    /// Frees the inputs of tasks that need them no more, or not now; that of a pack once any of its files does, as its result
    /// is there then.
    pub(crate) async fn free_inputs(&self, indices: impl Iterator<Item = u32>) {
        if self.shared.inputs.is_none() {
            return;
        }
        let plan = &self.shared.plan;
        let of = |index| {
            let pack = plan.is_of_a_pack(index).then(|| InputOf::Pack(plan.first_of(index)));
            pack.unwrap_or(InputOf::Task(index))
        };
        let mut inputs: Vec<_> = indices.map(of).collect();
        inputs.sort_unstable();
        inputs.dedup();
        self.free(inputs).await;
    }

    pub(super) async fn free(&self, inputs: Vec<InputOf>) {
        let Some(bucket) = &self.shared.inputs else { return };
        let keep = self.shared.plan.specification.keep_inputs;
        free(&self.shared.window, bucket, inputs, keep).await;
    }

    /// Removes the input bucket, when no task needs it any more.
    pub(crate) async fn remove_inputs(&self) {
        let Some(bucket) = &self.shared.inputs else { return };
        let freed = self.shared.window.all_freed().await;
        if !self.shared.plan.specification.keep_inputs
            && let Err(error) = bucket.delete().await
        {
            warn!(%error, "input bucket not removed");
        }
        drop(freed);
    }
}

/// Frees inputs; with `keep` they stay in the bucket. Returns before they are freed, as a slow broker must not hold up the
/// caller; waits while too many are being freed.
async fn free(window: &Arc<Window>, bucket: &Bucket, inputs: Vec<InputOf>, keep: bool) {
    if inputs.is_empty() {
        return;
    }
    let Some(freeings) = window.begin_freeing(&inputs).await else { return };
    let (window, bucket) = (window.clone(), bucket.clone());
    tokio::spawn(async move {
        let freeing: Vec<BoxFuture<'_, ()>> =
            inputs.iter().map(|of| free_input(&window, &bucket, *of, keep).boxed()).collect();
        stream::iter(freeing).buffer_unordered(FREEINGS).collect::<Vec<()>>().await;
        drop(freeings);
    });
}

async fn free_input(window: &Window, bucket: &Bucket, of: InputOf, keep: bool) {
    let (stored, name) = (window.take(of), of.name());
    if !keep
        && let Err(error) =
            remove_input(bucket, &name, stored.as_ref().map(|stored| &stored.info)).await
        && !matches!(error, Error::NoBucket { .. })
    {
        warn!(%error, name, "input not freed");
    }
    drop(stored); // and its share of the window with it
    window.end_freeing(of);
}
