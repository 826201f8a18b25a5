//! A pack at its worker: its files, opened one after another by the slot that compresses them, and their outputs.

mod objects;
mod open_file;
mod staged;

use bagpress_broker::descriptor::{Pack, TaskDescriptor};
use bagpress_broker::ids::Execution;
use bagpress_broker::result::Failed;
use bagpress_codec::Digest;
use tokio::task::AbortHandle;

use self::objects::TarOutputs;
pub use self::open_file::OpenFile;
pub(crate) use self::staged::InputsFrom;
use self::staged::StagedOutputs;
use crate::StoreError;
use crate::object_ref::Bucket;
use crate::staging::{Grant, Stager};
use crate::stored::Stored;

/// Leave to execute a pack.
pub struct PackReady {
    /// How each of its files is opened; none of those that have their outcome, or of which there is no input.
    pub files: Vec<Option<OpenFile>>,
    /// Where the outputs go.
    pub outputs: PackOutputs,
    /// What fetches inputs that are not read in place.
    pub fetching: Vec<AbortHandle>,
}

impl std::fmt::Debug for PackReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackReady").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

/// The outputs of a pack, until they are closed.
#[derive(Debug)]
pub struct PackOutputs(To);

#[derive(Debug)]
enum To {
    Staged(Box<StagedOutputs>),
    Tar(Box<TarOutputs>),
}

impl PackReady {
    /// A staged pack that was granted.
    pub(crate) fn staged(stager: &Stager, from: InputsFrom, grant: Grant) -> Self {
        let (files, outputs, fetching) = StagedOutputs::open(stager, from, grant);
        Self { files, outputs: PackOutputs(To::Staged(Box::new(outputs))), fetching }
    }

    /// A pack whose inputs are one object of `inputs`, and whose outputs become one of `outputs`.
    ///
    /// # Errors
    ///
    /// Why its inputs cannot be had.
    pub(crate) async fn tar(
        (inputs, object): (&Bucket, &str),
        outputs: Bucket,
        task: &TaskDescriptor,
        pack: Pack,
        execution: &Execution,
    ) -> Result<Self, Failed> {
        let (files, outputs) =
            TarOutputs::open((inputs, object), outputs, task, pack, execution).await?;
        let outputs = PackOutputs(To::Tar(Box::new(outputs)));
        Ok(Self { files, outputs, fetching: Vec::new() })
    }
}

impl PackOutputs {
    /// Makes the outputs durable of which `made` has size and digest; nothing is left of the others.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: transient. After a lost answer the outputs may be there; they are swept, or adopted.
    pub async fn close(self, made: &[Option<(u64, Digest)>]) -> Result<Stored, StoreError> {
        match self.0 {
            To::Staged(outputs) => outputs.close(made).await,
            To::Tar(outputs) => outputs.close(made).await,
        }
    }

    /// Gives up what was written and never closed, since the pack is given back, or none of its files has an output. If there was
    /// no room, the gatherer learns how much there was.
    pub async fn abandon(self, failed: Option<&Failed>) {
        match self.0 {
            To::Staged(outputs) => outputs.abandon(failed).await,
            // Nothing was written.
            To::Tar(_) => {}
        }
    }
}
