//! Submitting a bag that is gathered later.

mod earlier;
mod in_tars;
mod names_of_bag;
pub(crate) mod of_bag;
mod originals;
mod out_folder;
pub(crate) mod planned;
pub(crate) mod prepare;
pub(crate) mod preview;
pub(crate) mod references;
pub(crate) mod request;
pub(crate) mod resolve;
pub(crate) mod restore;
mod specify;
mod tree;
mod twins;

use anyhow::Result;
use bagpress_broker::descriptor::DeliveryPath;
use bagpress_broker::{BagLine, BagState, Broker, limits};

use crate::claim::buckets::output_bucket;
use crate::claim::lease::BagLease;
use crate::claim::line::{begun_line, line_of};
use crate::claim::requirements::require;
use crate::error::Cancelled;
use crate::publish::Publisher;
use crate::run_folder::folder::RunFolder;
use crate::run_folder::lock::GatherLock;
use crate::run_folder::plan::{BagPlan, open_plan};
use crate::run_folder::specification::Specification;

/// Publishes a bag. One whose tasks its gatherer offers is only noted.
///
/// # Errors
///
/// If the bag cannot be published.
pub async fn submit(
    broker: &Broker,
    folder: &RunFolder,
    lock: &GatherLock,
    specification: Specification,
) -> Result<()> {
    let streams = require(broker, &specification).await?;
    let plan = open_plan(folder, specification)?;
    let offered = plan.specification.delivery == DeliveryPath::QueueGroup;
    if offered && !streams {
        // Nothing is kept of it but the run folder.
        return Ok(());
    }
    let lease = BagLease::take(broker, lock, begun_line(&plan), false).await?;
    let submitting = async {
        // Its gatherer, which is not there yet, keeps the tasks of a bag that is offered.
        if offered { Ok(()) } else { publish(broker, &plan).await }
    };
    let mut submitting = std::pin::pin!(submitting);
    let mut renewals = tokio::time::interval(limits::GATHERER_RENEWAL);
    let submitted = loop {
        tokio::select! {
            submitted = &mut submitting => break submitted,
            lost = lease.ended() => break Err(lost.error(&begun_line(&plan))),
            _ = renewals.tick() => lease.renew(begun_line(&plan)),
        }
    };
    let state = match &submitted {
        Err(error) if error.is::<Cancelled>() => BagState::Cancelled,
        Err(_) => BagState::Submitting,
        Ok(()) => BagState::Running,
    };
    if state == BagState::Cancelled {
        broker.purge_tasks(&plan.specification.bag).await?;
    }
    lease.release(BagLine { state, ..line_of(&plan, 0) }).await?;
    submitted
}

async fn publish(broker: &Broker, plan: &BagPlan) -> Result<()> {
    if plan.specification.has_objects() {
        output_bucket(broker, plan).await?;
    }
    let publisher = Publisher::new(broker, plan, None).await?;
    // What is not there yet its gatherer publishes.
    publisher.publish_what_is_there(true, |_| true).await
}
