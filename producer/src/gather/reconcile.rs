//! What the broker forgot: which tasks wait in the queue, and which objects of done tasks are not there.

use bagpress_broker::{Broker, Error, subjects};
use bagpress_objstore::object_ref::{self, Bucket, Lookup};
use tracing::{debug, warn};

use crate::run_folder::ledger::Bits;
use crate::run_folder::plan::BagPlan;

/// The tasks that wait in the queue in the round that counts.
///
/// # Errors
///
/// If they cannot be listed now.
pub(crate) async fn waiting_tasks(broker: Broker, plan: BagPlan) -> Result<Bits, Error> {
    let mut waiting = Bits::new(plan.specification.tasks);
    let listing = broker.waiting(&plan.specification.bag, |id| {
        if plan.ledger.round(id.index) == id.round {
            waiting.set(id.index, true);
        }
    });
    listing.await?;
    Ok(waiting)
}

/// Tasks that are done and whose objects are not there, and whether they are all that there are.
pub(crate) async fn forgotten_objects(plan: BagPlan, bucket: Bucket) -> (Vec<u32>, bool) {
    let tasks = plan.specification.tasks;
    let (mut there, mut tars) = (Bits::new(tasks), Bits::new(tasks));
    let mut list = bucket.list();
    loop {
        match list.next().await {
            Ok(Some(info)) => {
                if let Some(index) = subjects::index_of_output(&info.name) {
                    there.set(index, true);
                } else if let Some(first) = subjects::first_of_tar(&info.name)
                    && !subjects::is_beside(&info.name)
                {
                    tars.set(first, true);
                }
            }
            Ok(None) => break,
            Err(error) => {
                debug!(%error, "objects not listed now");
                return (Vec::new(), !passes(&error));
            }
        }
    }
    let (ledger, mut gone) = (&plan.ledger, Vec::new());
    let mut last = None;
    for index in 0..tasks {
        if !ledger.is_decided(index) || ledger.is_failed(index) {
            continue;
        }
        let is_there = match plan.is_of_a_pack(index) {
            true => tars.get(plan.first_of(index)),
            false => there.get(index),
        };
        if is_there {
            continue;
        }
        // A replica that lags must not cost anything. The files of a tar follow each other: it is asked for once.
        let name = plan.object_of(index);
        if !matches!(&last, Some((looked, _)) if *looked == name) {
            match bucket.info_from_leader(&name).await {
                Ok(found) => last = Some((name, matches!(found, Lookup::Missing))),
                Err(error) => {
                    debug!(%error, index, "an object not looked at now");
                    if passes(&error) {
                        return (gone, false);
                    }
                    continue;
                }
            }
        }
        if last.as_ref().is_some_and(|(_, missing)| *missing) {
            gone.push(index);
        }
    }
    (gone, true)
}

/// Whether to look again is of use.
fn passes(error: &object_ref::Error) -> bool {
    error.is_transient() || matches!(error, object_ref::Error::NoBucket { .. })
}

/// What becomes of an old object that reads back with its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sound {
    /// It is removed: it is another than was committed, or was found bad before.
    Goes,
    /// It is left: it may be that of a worker that has not committed yet.
    Stays,
}

/// Removes an object, by the sequence that was read.
pub(crate) async fn remove_object(bucket: &Bucket, name: &str, sound: Sound) {
    let Ok(Lookup::Found(info)) = bucket.info_from_leader(name).await else { return };
    if sound == Sound::Stays {
        match bucket.read_back(&info).await {
            Err(error) if error.is_broken_object() => {}
            // A worker adopts it.
            _ => return,
        }
    }
    if let Err(error) = bucket.remove_exactly(&info).await {
        warn!(%error, name, "old object not removed");
    }
}
