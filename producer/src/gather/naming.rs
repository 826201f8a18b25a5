//! Renames part files to their final names; a name that is taken or cannot be written becomes a failure.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bagpress_broker::quote;
use bagpress_broker::result::{Cause, Failed, Outcome, Place, TaskResult};
use bagpress_objstore::staging::{Parts, Placed, Placer, Plan as _};
use bagpress_objstore::{Trouble, said};
use tracing::warn;

use crate::run_folder::plan::BagPlan;

/// What became of outputs that were to get their names.
#[derive(Debug, Default)]
pub(crate) struct Placing {
    /// To be counted: done, or failed as they could not get them.
    pub(crate) counted: Vec<Arc<TaskResult>>,
    pub(crate) lost: Vec<u32>,
    pub(crate) aside: Vec<PathBuf>,
    pub(crate) moved: bool,
    /// Whose part files nobody needs once they are counted.
    pub(crate) sweep: Vec<(u32, u32)>,
}

impl Placing {
    /// Gives one output its name, or finds out why it cannot have it.
    ///
    /// # Errors
    ///
    /// What is not that output's own: nothing was decided about it.
    pub(crate) fn place(
        &mut self,
        plan: &BagPlan,
        parts: &Parts,
        names: &mut Placer<'_>,
        result: Arc<TaskResult>,
    ) -> io::Result<()> {
        let Some(done) = result.done().filter(|done| done.place != Place::Nothing) else {
            self.counted.push(result);
            return Ok(());
        };
        if plan.section(result.index).is_some() {
            return self.leave(parts, result);
        }
        if let Some(original) = plan.original(result.index)?
            && let Err(why) = original.compare(done.output_bytes, &done.output_digest)
        {
            self.sweep.push((result.index, result.round));
            self.counted.push(fails(&result, Failed::new(Cause::OriginalDiffers, why)));
            return Ok(());
        }
        let target = plan.target(result.index)?;
        let name = || quote::name(parts.root().join(&target.path));
        let (id, execution, digest) = (result.id(), &result.execution, &done.output_digest);
        let key = (result.index, result.round);
        let placed = match parts.holds(key, execution, done.output_bytes, digest) {
            Ok(true) => names.place(&id, execution, &target, digest),
            // Its worker never closed it, or says that it is something else.
            Ok(false) => Ok(Placed::Lost),
            Err(error) => Err(error),
        };
        // What another file's maker made is not the bag's own, whatever is in it.
        let own = !matches!(placed, Ok(Placed::Same));
        let why = match placed {
            Ok(Placed::Named | Placed::Same) => None,
            Ok(Placed::Instead(aside)) => {
                self.aside.push(aside);
                None
            }
            Ok(Placed::Lost) if parts.gone().is_some() => {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(Placed::Lost) => {
                warn!(index = result.index, "the output's bytes are gone, task is run again");
                self.lost.push(result.index);
                return Ok(());
            }
            Ok(Placed::Taken) => {
                let text = format!("{} exists, and was not made by this bag", name());
                Some(Failed::new(Cause::OutputExists, text))
            }
            Err(error) if parts.trouble(&error) == Trouble::Own => {
                let text = format!("{}: {}", name(), said(&error));
                Some(Failed::new(Cause::OutputUnwritable, text))
            }
            Err(error) => return Err(error),
        };
        self.moved = true;
        if why.is_some() || result.attempt > 1 {
            self.sweep.push((result.index, result.round));
        }
        let file = if own && why.is_none() { names.file_id(&target) } else { None };
        self.counted.push(match why {
            Some(why) => fails(&result, why),
            None => Arc::new(TaskResult { file, ..(*result).clone() }),
        });
        Ok(())
    }
}

impl Placing {
    /// Leaves the output of a block where it is, to be joined.
    fn leave(&mut self, parts: &Parts, result: Arc<TaskResult>) -> io::Result<()> {
        let Some(done) = result.done() else { return Ok(()) };
        let (key, execution) = (result.key(), &result.execution);
        if parts.is_there(key, execution)?
            && parts.holds(key, execution, done.output_bytes, &done.output_digest)?
        {
            self.counted.push(result);
        } else if parts.gone().is_some() {
            return Err(io::ErrorKind::NotFound.into());
        } else {
            warn!(index = result.index, "the output's bytes are gone, task is run again");
            self.lost.push(result.index);
        }
        Ok(())
    }
}

/// The outcome of an execution whose output has no place: the gatherer's own finding, in the place of what its worker
/// committed.
pub(crate) fn fails(result: &TaskResult, why: Failed) -> Arc<TaskResult> {
    warn!(index = result.index, cause = %why.cause, error = why.message, "an output has no place");
    let outcome = Outcome::Failed(why);
    Arc::new(TaskResult { outcome, descriptor: None, ..result.clone() })
}
