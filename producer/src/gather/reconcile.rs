//! What the broker forgot: which tasks wait in the queue, and which objects of done tasks are not there.

use std::collections::HashMap;
use std::io;

use bagpress_broker::result::Place;
use bagpress_broker::{Broker, Error, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::object_ref::{self, Bucket, Lookup};
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use crate::object::by;
use crate::run_folder::ledger::Bits;
use crate::run_folder::plan::BagPlan;

/// The tasks that wait in the queue in the round that counts.
///
/// # Errors
///
/// If they cannot be listed now.
pub(crate) async fn waiting_tasks(broker: Broker, plan: BagPlan) -> Result<Bits, Error> {
    let mut waiting = Bits::new(plan.tasks());
    let listing = broker.waiting(&plan.specification.bag, |id| {
        if plan.ledger.round(id.index) == id.round {
            waiting.set(id.index, true);
        }
    });
    listing.await?;
    Ok(waiting)
}

/// The objects of a bucket that may have outputs.
struct Listed {
    own: Bits,
    /// Tars of packs, by name, with their digests: one may have the name of its pack, and others second names.
    tars: HashMap<String, Digest>,
}

/// An object that an outcome is in.
struct Wanted {
    index: u32,
    name: String,
    /// Of a tar. Another tar of the name has other files, or has them elsewhere.
    digest: Option<Digest>,
}

impl Wanted {
    /// Whether its bytes are gone, by what has its name.
    fn is_gone(&self, found: &Lookup) -> bool {
        match found {
            Lookup::Missing => true,
            Lookup::Found(info) => self.digest.is_some_and(|digest| digest != info.digest),
            Lookup::Deleted { .. } | Lookup::Malformed { .. } => false,
        }
    }
}

impl Listed {
    async fn of(bucket: &Bucket, tasks: u32) -> Result<Self, object_ref::Error> {
        let mut listed = Self { own: Bits::new(tasks), tars: HashMap::new() };
        let mut list = bucket.list();
        while let Some(info) = list.next().await? {
            if let Some(index) = subjects::index_of_output(&info.name) {
                listed.own.set(index, true);
            } else if subjects::first_of_tar(&info.name).is_some() {
                listed.tars.insert(info.name, info.digest);
            }
        }
        Ok(listed)
    }

    /// The objects of tasks that are done and of which none is listed. Blocks, where files are in packs: which tar one is in
    /// is known in the ledger alone.
    fn unlisted(&self, plan: &BagPlan) -> io::Result<Vec<Wanted>> {
        let (ledger, mut unlisted, mut in_tars) = (&plan.ledger, Vec::new(), false);
        for index in 0..plan.specification.tasks {
            if !ledger.is_decided(index) || ledger.is_failed(index) {
                continue;
            }
            if plan.is_of_a_pack(index) {
                in_tars = true;
            } else if !self.own.get(index) {
                unlisted.push(Wanted { index, name: plan.object_of(index), digest: None });
            }
        }
        if in_tars {
            ledger.outcomes(|result| {
                let index = result.index;
                match result.done().map(|done| &done.place) {
                    Some(Place::Tar { object, digest, .. })
                        if self.tars.get(object) != Some(digest) =>
                    {
                        let (name, digest) = (object.clone(), Some(*digest));
                        unlisted.push(Wanted { index, name, digest });
                    }
                    // It has the output of another file, which its pack was delivered without.
                    Some(Place::Object { .. })
                        if plan.is_of_a_pack(index) && !self.own.get(index) =>
                    {
                        let name = subjects::output_name(index);
                        unlisted.push(Wanted { index, name, digest: None });
                    }
                    _ => {}
                }
            })?;
        }
        Ok(unlisted)
    }
}

/// Tasks that are done and whose objects are not there, and whether they are all that there are.
pub(crate) async fn forgotten_objects(plan: BagPlan, bucket: Bucket) -> (Vec<u32>, bool) {
    let listed = match Listed::of(&bucket, plan.specification.tasks).await {
        Ok(listed) => listed,
        Err(error) => {
            debug!(%error, "objects not listed now");
            return (Vec::new(), !passes(&error));
        }
    };
    let unlisted = match spawn_blocking(move || listed.unlisted(&plan)).await {
        Ok(Ok(unlisted)) => unlisted,
        Ok(Err(error)) => {
            debug!(%error, "the ledger is not read now");
            return (Vec::new(), false);
        }
        Err(error) => {
            warn!(%error, "objects not looked for");
            return (Vec::new(), true);
        }
    };
    let (mut gone, mut looked) = (Vec::new(), HashMap::new());
    for wanted in unlisted {
        if !looked.contains_key(&wanted.name) {
            // A replica that lags must not cost anything.
            match bucket.info_from_leader(&wanted.name).await {
                Ok(found) => {
                    looked.insert(wanted.name.clone(), found);
                }
                Err(error) => {
                    debug!(%error, index = wanted.index, "an object not looked at now");
                    if passes(&error) {
                        return (gone, false);
                    }
                    continue;
                }
            }
        }
        if looked.get(&wanted.name).is_some_and(|found| wanted.is_gone(found)) {
            gone.push(wanted.index);
        }
    }
    gone.sort_unstable();
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
    if let Err(error) = bucket.remove_for_its_task(&info, &by()).await {
        warn!(%error, name, "old object not removed");
    }
}
