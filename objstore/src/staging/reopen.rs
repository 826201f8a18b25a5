//! The worker's side: an upload that its gatherer does not know is opened anew.

use bagpress_broker::ids::{Execution, TaskId};

use super::client::{Permission, Stager};
use crate::StoreError;

impl Stager {
    /// Asks leave again for an execution that has been done. Its gatherer is another one than the one that gave it, or had
    /// to forget it for others.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: transient, unless the output can never be written.
    pub(super) async fn open_again(
        &self,
        id: &TaskId,
        execution: &Execution,
    ) -> Result<(), StoreError> {
        match self.open(id, execution, false).await? {
            // What was to be answered is answered so again.
            Permission::Go(_) | Permission::HaveIt(_) => Ok(()),
            Permission::Wait(reason) => Err(StoreError::Full(reason)),
            Permission::Absent => Err(StoreError::Absent),
            Permission::Refused(failed) => Err(StoreError::Output(failed)),
        }
    }
}
