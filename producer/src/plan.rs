//! What the receiver of uploads must know of its bag.

use std::io;
use std::sync::Arc;

use bagpress_broker::descriptor::Transfer;
use bagpress_broker::result::TaskResult;
use bagpress_objstore::staging::{InputFile, Plan, Target};

use crate::inputs::InputList;
use crate::ledger::Ledger;
use crate::spec::Specification;

/// Specification, list of inputs and ledger of one run.
#[derive(Debug, Clone)]
pub struct BagPlan {
    /// The specification.
    pub specification: Arc<Specification>,
    /// The files of a bag of files.
    pub inputs: Option<Arc<InputList>>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
}

impl Plan for BagPlan {
    fn decided(&self, index: u32, round: u32) -> Option<TaskResult> {
        self.ledger.outcome(index, round)
    }

    fn target(&self, index: u32) -> io::Result<Target> {
        self.specification.target(self.inputs.as_deref(), index)
    }

    fn input(&self, index: u32) -> io::Result<InputFile> {
        let inputs = self.inputs.as_ref();
        let inputs = inputs.ok_or_else(|| io::Error::other("the bag's inputs are no files"))?;
        inputs.get(index).map(InputFile::from)
    }

    fn by_path(&self) -> bool {
        self.specification.transfer == Transfer::Auto
    }
}
