//! Inputs leave the bucket, and their shares of the window become free.

use std::sync::Arc;

use bagpress_objstore::object_ref::{Bucket, Error};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tracing::warn;

use crate::publish::input::remove_input;
use crate::publish::window::{InputOf, Window};

/// Inputs that are freed at a time, of each batch of outcomes; no bytes travel.
const FREEINGS: usize = 16;

/// Frees inputs; with `keep` they stay in the bucket. Returns before they are freed, as a slow broker must not hold up the
/// caller; waits while too many are being freed.
pub(crate) async fn free(window: &Arc<Window>, bucket: &Bucket, inputs: Vec<InputOf>, keep: bool) {
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
