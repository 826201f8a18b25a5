//! What all attempts of a worker share.

use std::sync::Arc;
use std::time::Duration;

use bagpress_broker::{Broker, Holder, limits};
use bagpress_objstore::Store;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::answer::Answers;
use crate::cancelled::Cancelled;
use crate::options::Options;
use crate::slots::Slots;
use crate::stats::Counts;

/// Units of the memory budget for outputs in flight that a large output takes; a small one takes one.
const LARGE: u32 = 32;
const _: () = assert!(LARGE as usize * limits::UPLOADS_PER_SLOT == limits::UNCOMMITTED_MAX);

/// What all attempts of a worker share.
#[derive(Debug)]
pub(crate) struct Context {
    store: Store,
    slots: Slots,
    answers: Answers,
    cancelled: Cancelled,
    counts: Arc<Counts>,
    drain: CancellationToken,
    /// Memory budget for outputs in flight, in units of one small output: [`limits::UNCOMMITTED_MAX`] a
    /// slot, and half as much for those that are executed.
    outputs: Semaphore,
    time_limit: Option<Duration>,
    any_codec_version: bool,
}

impl Context {
    /// Of a worker that is called `holder`; bytes go by the connection of `data`, the rest by `control`.
    pub(crate) fn new(
        options: &Options,
        (control, data): (&Broker, &Broker),
        holder: Holder,
        slots: Slots,
        counts: Arc<Counts>,
        drain: CancellationToken,
    ) -> Self {
        let units = options.slots * (limits::UNCOMMITTED_MAX + limits::UNCOMMITTED_MAX / 2);
        Self {
            store: Store::new(data, options.allowed.clone()),
            slots,
            answers: Answers::new(control, holder, drain.clone()),
            cancelled: Cancelled::new(control),
            counts,
            drain,
            outputs: Semaphore::new(units),
            time_limit: options.time_limit,
            any_codec_version: options.any_codec_version,
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    pub(crate) fn cancelled(&self) -> &Cancelled {
        &self.cancelled
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Is cancelled when the worker is to finish what it executes, and leave.
    pub(crate) fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    /// What the worker was told about the longest execution.
    pub(crate) fn time_limit(&self) -> Option<Duration> {
        self.time_limit
    }

    pub(crate) fn any_codec_version(&self) -> bool {
        self.any_codec_version
    }

    /// Waits until there is memory for the output of an input of `input_bytes`; it is taken until the
    /// permit is dropped.
    ///
    /// # Errors
    ///
    /// The worker is ending.
    pub(crate) async fn memory_for_output(
        &self,
        input_bytes: u64,
    ) -> Result<SemaphorePermit<'_>, AcquireError> {
        let small = input_bytes <= limits::CHUNK_BYTES as u64;
        self.outputs.acquire_many(if small { 1 } else { LARGE }).await
    }
}
