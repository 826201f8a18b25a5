//! The tree that the bucket of a bag keeps of its files, read again: without it, outputs come back as new files under the names of labels.

use anyhow::Result;
use bagpress_broker::{BagState, Broker, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::object_ref::{Bucket, Error};

use crate::run_folder::plan::BagPlan;

/// What became of the tree of a bag.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TreeIs {
    /// It is what the bag's line says, or there is to be none: the bag is not finished, or not one of files that are objects.
    Sound,
    /// The line of a finished bag knows none: an earlier version gathered it, or it could not be put.
    NeverPut,
    /// Which object it is, and what is wrong with it.
    Bad(String, String),
}

/// Reads the tree of a bag whose outputs stayed in `bucket`, and compares it with the digest that is in the bag's line.
///
/// # Errors
///
/// If the broker does not answer.
pub(super) async fn look_at_tree(
    broker: &Broker,
    plan: &BagPlan,
    bucket: &Bucket,
) -> Result<TreeIs> {
    if plan.inputs.is_none() || plan.specification.restores() {
        return Ok(TreeIs::Sound);
    }
    let line = broker.find_bag(&plan.specification.bag).await?.line;
    let Some(line) = line.filter(|line| line.state == BagState::Finished) else {
        return Ok(TreeIs::Sound);
    };
    let Some(recorded) = line.tree else { return Ok(TreeIs::NeverPut) };
    match read_back(bucket, &recorded).await {
        Ok(None) => Ok(TreeIs::Sound),
        Ok(Some(why)) => Ok(TreeIs::Bad(name(bucket), why)),
        Err(error) if error.is_transient() => Err(error.into()),
        Err(error) => Ok(TreeIs::Bad(name(bucket), error.to_string())),
    }
}

fn name(bucket: &Bucket) -> String {
    format!("obj://{}/{}", bucket.name(), subjects::TREE)
}

/// What is wrong with a tree that is there.
async fn read_back(bucket: &Bucket, recorded: &Digest) -> Result<Option<String>, Error> {
    let info = bucket.check_present_from_leader(subjects::TREE).await?;
    if info.digest != *recorded {
        let found = info.digest;
        return Ok(Some(format!("its digest is {found}, and the bag recorded {recorded}")));
    }
    bucket.read_back(&info).await?;
    Ok(None)
}
