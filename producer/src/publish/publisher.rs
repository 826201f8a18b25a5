//! Who publishes, and what that needs: the buckets, the window, and where tasks are handed in.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::Result;
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::{Broker, limits};
use bagpress_objstore::object_ref::Bucket;
use tokio::sync::Semaphore;

use crate::claim::buckets::input_bucket;
use crate::deliver::dispatch::HandIn;
use crate::object::Reconstruct;
use crate::object::lineage::Lineage;
use crate::publish::awaited::Awaited;
use crate::publish::obstacle::Obstacle;
use crate::publish::window::Window;
use crate::run_folder::plan::BagPlan;

/// Chunks of inputs in flight at a time, so that large inputs hold no more memory than small ones.
const CHUNKS_IN_FLIGHT: usize = 4 * limits::WINDOW_MAX;

/// Publishes the tasks of one bag. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) broker: Broker,
    pub(super) plan: BagPlan,
    /// Where tasks are handed in that are offered; none where they wait in the stream.
    pub(super) hand_in: Option<HandIn>,
    pub(super) inputs: Option<Bucket>,
    pub(super) window: Arc<Window>,
    /// Objects that are inputs and not there yet.
    pub(super) awaited: Awaited,
    /// Makes those again that are lost.
    pub(super) lineage: Lineage,
    pub(super) chunks: Semaphore,
    /// Somebody found no input bucket. The gatherer makes it again, if the bag is still theirs.
    pub(super) inputs_gone: AtomicBool,
    pub(super) first: OnceLock<Instant>,
    pub(super) obstacle: Obstacle,
}

impl Publisher {
    /// Publishes for `plan`'s bag; makes its input bucket if it needs one.
    ///
    /// # Errors
    ///
    /// If the server has no room for the bucket, or does not answer.
    pub(crate) async fn new(
        broker: &Broker,
        plan: &BagPlan,
        hand_in: Option<HandIn>,
    ) -> Result<Self> {
        let specification = &plan.specification;
        let inputs = match (specification.data.largest_put(), specification.results) {
            (Some(largest), ResultPath::Objects) => {
                Some(input_bucket(broker, plan, largest).await?)
            }
            _ => None,
        };
        // Each task may have to be preceded by as many others as lie one behind the other.
        let few = Reconstruct::default();
        let tasks = few.tasks.max(specification.tasks.saturating_mul(few.depth));
        let reconstruct = Reconstruct { tasks, ..few };
        let shared = Shared {
            broker: broker.clone(),
            plan: plan.clone(),
            hand_in,
            inputs,
            window: Arc::new(Window::new()),
            awaited: Awaited::default(),
            lineage: Lineage::new(broker, reconstruct),
            chunks: Semaphore::new(CHUNKS_IN_FLIGHT),
            inputs_gone: AtomicBool::new(false),
            first: OnceLock::new(),
            obstacle: Obstacle::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether the input bucket was found to be gone since this was last called: the broker forgot it.
    pub(crate) fn misses_inputs(&self) -> bool {
        self.shared.inputs_gone.swap(false, Relaxed)
    }

    /// Makes the input bucket again, if a broker forgot it; publishing that waits for it goes on.
    ///
    /// # Errors
    ///
    /// As [`Publisher::new`].
    pub(crate) async fn remake_inputs(&self) -> Result<()> {
        let plan = &self.shared.plan;
        let largest = plan.specification.data.largest_put();
        if let (Some(_), Some(largest)) = (&self.shared.inputs, largest) {
            input_bucket(&self.shared.broker, plan, largest).await?;
        }
        Ok(())
    }

    /// When the first task was published by this process.
    #[must_use]
    pub(crate) fn first(&self) -> Option<Instant> {
        self.shared.first.get().copied()
    }

    /// Why publishing waits, if it does.
    #[must_use]
    pub(crate) fn waiting(&self) -> Option<String> {
        self.shared.obstacle.get()
    }

    /// Which inputs are absent, if nothing but them is waited for.
    #[must_use]
    pub(crate) fn absent(&self) -> Option<String> {
        self.shared.awaited.why.get()
    }

    /// Ends the publishing early if it waits for the input window: nothing of what the broker forgot is freed there,
    /// and it can be published again only when this publishing has ended.
    pub(crate) fn give_way(&self) {
        self.shared.window.give_way();
    }

    /// Whether it ended early, with tasks that nobody has published yet.
    pub(crate) fn gave_way(&self) -> bool {
        self.shared.window.gave_way()
    }
}
