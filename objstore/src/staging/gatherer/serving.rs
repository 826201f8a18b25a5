//! What the uploads of a bag are served with.

use std::sync::Arc;

use super::answers::Answers;
use super::disk::Disk;
use super::durability::Durability;
use super::ledger_reader::LedgerReader;
use super::outputs::Outputs;

/// Where outputs go, who knows what is decided, and the way back to who asks. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub(super) outputs: Arc<Outputs>,
    pub(super) ledger: LedgerReader,
    pub(super) disk: Disk,
    pub(super) durability: Arc<Durability>,
    pub(super) answers: Answers,
}
