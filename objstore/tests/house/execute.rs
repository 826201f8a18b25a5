//! An execution, step by step.

use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::{Place, TaskResult};
use bagpress_broker::samples::done;
use bagpress_codec::Digest;
use bagpress_objstore::Stored;
use bagpress_objstore::staging::{Allowed, Grant, Permission, Placed, Placer, Stager, Upload};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::CHUNK;
use crate::house::{House, Outcome, target};

/// One execution of a task.
pub(crate) struct Execute {
    pub(crate) id: TaskId,
    pub(crate) execution: Execution,
    pub(crate) stager: Stager,
}

impl Execute {
    pub(crate) fn new(house: &House, index: u32) -> Self {
        Self::below(house, index, &[])
    }

    /// With folders below which files may be handed over by path.
    pub(crate) fn below(house: &House, index: u32, allowed: &[&std::path::Path]) -> Self {
        let allowed = Allowed::below(allowed.iter().map(|path| path.to_path_buf()).collect());
        Self {
            id: TaskId { bag: house.bag.clone(), index, round: 0 },
            execution: Execution::random(),
            stager: Stager::new(&house.worker, allowed),
        }
    }

    pub(crate) async fn open(&self) -> Outcome<Permission> {
        Ok(self.stager.open(&self.id, &self.execution, true).await?)
    }

    pub(crate) async fn granted(&self) -> Outcome<Grant> {
        match self.open().await? {
            Permission::Go(grant) => Ok(grant),
            other => Err(format!("not granted: {other:?}").into()),
        }
    }

    /// Sends all chunks of `output`.
    pub(crate) async fn upload(&self, output: &[u8]) -> Outcome<Upload> {
        let grant = self.granted().await?;
        let (sender, chunks) = mpsc::channel(output.len() / CHUNK + 1);
        for chunk in output.chunks(CHUNK) {
            sender.try_send(Bytes::copy_from_slice(chunk))?;
        }
        drop(sender);
        Ok(self.stager.upload(&grant, chunks).await?)
    }

    pub(crate) async fn store(&self, output: &[u8]) -> Outcome<Stored> {
        let upload = self.upload(output).await?;
        Ok(upload.close(output.len() as u64, &Digest::of(output)).await?)
    }

    pub(crate) fn part(&self, house: &House) -> std::path::PathBuf {
        house.parts.part(self.id.index, self.id.round, &self.execution)
    }

    pub(crate) fn result(&self, output: &[u8]) -> TaskResult {
        done(&self.id, &self.execution, output, Place::Staged)
    }

    pub(crate) fn place(&self, house: &House, output: &[u8]) -> std::io::Result<()> {
        let digest = Digest::of(output);
        let mut names = Placer::new(&house.parts);
        let placed = names.place(&self.id, &self.execution, &target(self.id.index), &digest)?;
        assert_eq!(placed, Placed::Named);
        Ok(())
    }
}
