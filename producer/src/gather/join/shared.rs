//! Gives tasks the object of another one's output whose input has the same content, where outputs stay objects.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use anyhow::{Context, Result};
use bagpress_broker::descriptor::{DeliveryPath, Input};
use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Done, Place, TaskResult};
use bagpress_broker::{Broker, Committed, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::label;
use bagpress_objstore::object_ref::{Bucket, Error, Lookup};
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};

use crate::check::tar_again::{InTar, TarAgain};
use crate::claim::buckets::open_bucket;
use crate::gather::again::{self, Again, Asked};
use crate::run_folder::plan::BagPlan;

/// Shares the objects of one bag.
#[derive(Debug)]
pub(crate) struct Sharer {
    broker: Broker,
    plan: BagPlan,
    bucket: Bucket,
    /// Tasks that were found to have another input than they seemed to, until they are begun again.
    given_up: HashSet<u32>,
    tar: TarAgain,
}

/// What came of one task.
enum One {
    Made(Box<TaskResult>),
    Run,
    /// Somebody has committed its outcome, which is read as any other.
    Taken,
}

impl Sharer {
    /// None if the outputs of the bag do not stay objects, or no two inputs seem to be equal.
    pub(crate) fn of(broker: &Broker, plan: &BagPlan) -> Option<Self> {
        let specification = &plan.specification;
        if plan.twins.is_none() || specification.has_files() {
            return None;
        }
        let bucket = open_bucket(broker, &subjects::bucket(&specification.bag));
        let bucket = bucket.inspect_err(|error| warn!(%error, "no object is shared")).ok()?;
        let (broker, plan, given_up) = (broker.clone(), plan.clone(), HashSet::new());
        Some(Self { broker, plan, bucket, given_up, tar: TarAgain::default() })
    }

    /// Gives tasks that wait for `first` the object of its output, if it has one; some of them, where there are many.
    ///
    /// # Errors
    ///
    /// What the broker or the ledger said: it passes.
    pub(crate) async fn next(&mut self, first: u32) -> Result<Again> {
        let (plan, given_up) = (self.plan.clone(), self.given_up.clone());
        let asked = spawn_blocking(move || again::asked(&plan, first, &given_up)).await?;
        let (of_first, twins) = match asked {
            Asked::Nothing => return Ok(Again::default()),
            Asked::Run(run) => {
                self.given_up.extend(&run);
                return Ok(Again { run, ..Again::default() });
            }
            Asked::Output(of_first, twins) => (of_first, twins),
        };
        let Some(done) = of_first.done() else { return Ok(Again::default()) };
        let mut again = Again::default();
        for twin in twins {
            if again.outcomes.len() >= again::TWINS_MAX {
                break;
            }
            match self.one((&of_first, done), twin).await {
                Ok(One::Made(result)) => again.outcomes.push(*result),
                Ok(One::Run) => again.run.push(twin),
                Ok(One::Taken) => {}
                // What is made is accepted first.
                Err(_) if !again.outcomes.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        self.given_up.extend(&again.run);
        Ok(again)
    }

    async fn one(&mut self, (of_first, done): (&TaskResult, &Done), twin: u32) -> Result<One> {
        let (began, first) = (Instant::now(), of_first.index);
        let (plan, expected) = (self.plan.clone(), done.clone());
        let same = spawn_blocking(move || {
            let one_codec = plan.codec(first)? == plan.codec(twin)?;
            std::io::Result::Ok(one_codec && again::has_input_of(&plan, twin, &expected))
        });
        let same = same.await?.context("read the list of inputs")?;
        if !same {
            info!(twin, first, "its input is another after all, and it is run");
            return Ok(One::Run);
        }
        let execution = Execution::random();
        let place = match self.place((of_first, done), (twin, &execution)).await {
            Ok(Some(place)) => place,
            Ok(None) => {
                warn!(first, twin, "the output of the first is not what it was, the other is run");
                return Ok(One::Run);
            }
            Err(error) if error.is_transient() || waits(&error) => {
                return Err(error).context("share an object");
            }
            Err(error) => {
                warn!(first, twin, %error, "the output of the first is not to be had, the other is run");
                return Ok(One::Run);
            }
        };
        let made = again::outcome(&self.plan, (first, done), (twin, execution), place, began);
        self.commit(made).await
    }

    /// Where the output of a task is that has the bytes of the first one's; none if those are not there.
    async fn place(
        &mut self,
        (of_first, done): (&TaskResult, &Done),
        (twin, execution): (u32, &Execution),
    ) -> Result<Option<Place>, Error> {
        let (name, described) = (subjects::output_name(twin), self.described(twin));
        let bucket = self.bucket.name().to_owned();
        match &done.place {
            Place::Object { object, .. } => {
                let Lookup::Found(info) = self.bucket.info_from_leader(object).await? else {
                    return Ok(None);
                };
                if info.digest != done.output_digest {
                    return Ok(None);
                }
                let shared = self.bucket.share(&info, &name, described).await?;
                Ok(shared.map(|info| Place::Object { bucket, object: name, chunks: info.chunks }))
            }
            Place::Tar { .. } => {
                // A part of a tar has no chunks of its own: what was small enough for one is put once more.
                let in_tar = InTar::of(&self.plan, of_first, done);
                let Some(in_tar) = in_tar.ok().flatten() else { return Ok(None) };
                let bytes = self.tar.output(&self.bucket, &in_tar).await?;
                let right = bytes.ok().filter(|bytes| Digest::of(bytes) == done.output_digest);
                let Some(bytes) = right else { return Ok(None) };
                let token = format!("{twin}-{execution}");
                let (description, labels) = described;
                let writer = self.bucket.writer(&name, &token)?;
                let mut writer = writer.description(description).metadata(labels);
                writer.write(bytes).await?;
                let chunks = writer.commit_or_adopt().await?.info.chunks;
                Ok(Some(Place::Object { bucket, object: name, chunks }))
            }
            Place::Staged | Place::Nothing => Ok(None),
        }
    }

    /// What the object of a task is called for people, as a worker would.
    fn described(&self, twin: u32) -> (String, HashMap<String, String>) {
        let entry = self.plan.entry(twin).ok();
        label(&self.plan.specification.descriptor(twin, 0, entry.as_ref()))
    }

    /// Makes an outcome the task's, where the broker keeps outcomes; where it does not, it keeps what the object was made of. That of
    /// a pack has the name of its first file: of files in packs, the ledger alone knows.
    async fn commit(&self, made: TaskResult) -> Result<One> {
        let specification = &self.plan.specification;
        let index = made.index;
        if self.plan.may_be_packed(index) {
            return Ok(One::Made(Box::new(made)));
        }
        let entry = self.plan.entry(index).ok();
        let mut descriptor = specification.descriptor(index, made.round, entry.as_ref());
        if let (Some(first), Input::Object { bucket, object, .. }) =
            (made.twin_of, &mut descriptor.input)
            && *bucket == subjects::input_bucket(&specification.bag)
        {
            // Of its own input none was put: that of the first has the same bytes.
            *object = subjects::input_name(first);
        }
        let result = TaskResult { descriptor: Some(Box::new(descriptor)), ..made };
        if specification.delivery != DeliveryPath::Jetstream {
            if let Err(error) = self.broker.commit_if_possible(&result).await {
                debug!(%error, index, "its lineage is not kept");
            }
            return Ok(One::Made(Box::new(result)));
        }
        match self.broker.commit(&result).await.context("commit a result")? {
            Committed::Mine => Ok(One::Made(Box::new(result))),
            Committed::Other(_) | Committed::Unreadable(_) => Ok(One::Taken),
        }
    }
}

/// What passes although it is no error of the way to the broker.
fn waits(error: &Error) -> bool {
    matches!(error, Error::Full { .. } | Error::NoBucket { .. })
}
