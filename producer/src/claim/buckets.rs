//! The buckets of a bag: opened, made if they are not there, and enlarged for inputs that grew.

use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::{Broker, limits, subjects};
use bagpress_objstore::object_ref::{Bucket, Error, Settings};
use tokio::task::spawn_blocking;

use crate::run_folder::plan::BagPlan;

/// A bucket that is there.
///
/// # Errors
///
/// If no bucket can have that name.
pub(crate) fn open_bucket(broker: &Broker, name: &str) -> Result<Bucket> {
    Ok(Bucket::new(broker.client_handle(), broker.context_handle(), name)?)
}

/// The bag's output bucket, made if it is not there.
///
/// # Errors
///
/// If the server has no room for it, or does not answer.
pub(crate) async fn output_bucket(broker: &Broker, plan: &BagPlan) -> Result<Bucket> {
    let specification = &plan.specification;
    let name = subjects::bucket(&specification.bag);
    let description = format!("Outputs of bag {}", specification.bag);
    let (grown, _) = growth(plan).await?;
    let needed = specification.bucket_bytes() + grown + grown / 1024;
    if grown > 0 {
        open_bucket(broker, &name)?.grow_to(needed).await.context("enlarge the bag's bucket")?;
    }
    let settings = Settings {
        description: &description,
        max_bytes: needed,
        bag: Some(&specification.bag),
        ttl: specification.ttl_s.map(Duration::from_secs),
    };
    let make = async || {
        let (client, context) = (broker.client_handle(), broker.context_handle());
        Box::pin(Bucket::create_with(client, context, &name, &settings)).await
    };
    let bucket = match make().await {
        // Who made it again for an object that was lost knew only what is done.
        Err(Error::Unfit { field: "max_bytes", .. }) => {
            open_bucket(broker, &name)?
                .grow_to(needed)
                .await
                .context("enlarge the bag's bucket")?;
            make().await
        }
        other => other,
    };
    bucket.with_context(|| format!("create the bag's bucket; it needs at most {needed} bytes"))
}

/// [`BagPlan::growth`], on a thread that may wait for the list of inputs.
async fn growth(plan: &BagPlan) -> Result<(u64, u64)> {
    let plan = plan.clone();
    Ok(spawn_blocking(move || plan.growth()).await?)
}

/// The bag's input bucket, made if it is not there.
pub(crate) async fn input_bucket(broker: &Broker, plan: &BagPlan, largest: u64) -> Result<Bucket> {
    let specification = &plan.specification;
    let (more, largest_now) = growth(plan).await?;
    let most = limits::INPUT_WINDOW_BYTES.max(largest).max(largest_now);
    let needed = if specification.keep_inputs {
        specification.bucket_bytes() + more
    } else {
        most + most / 8 + (64 << 20)
    };
    let bag = &specification.bag;
    let (name, description) = (subjects::input_bucket(bag), format!("Inputs of bag {bag}"));
    if more > 0 {
        let enlarged = open_bucket(broker, &name)?.grow_to(needed).await;
        enlarged.context("enlarge the input bucket")?;
    }
    let (client, context) = (broker.client_handle(), broker.context_handle());
    let made = Bucket::create(client, context, &name, &description, needed, bag);
    Box::pin(made).await.context("make the input bucket")
}
