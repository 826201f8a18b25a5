//! The files of a bag that are cut, for who only looks.

use std::sync::Arc;

use anyhow::Result;

use crate::run_folder::cuts::Cuts;
use crate::run_folder::folder::RunFolder;
use crate::run_folder::plan::{cuts_of, inputs_of};
use crate::run_folder::specification::Specification;

/// Which files of a bag are cut, if any are. Blocks: reads the list of inputs.
///
/// # Errors
///
/// If the list cannot be read.
pub(super) fn cut_of(
    folder: &RunFolder,
    specification: &Specification,
) -> Result<Option<Arc<Cuts>>> {
    let inputs = specification.block.map(|_| inputs_of(folder, specification)).transpose()?;
    cuts_of(folder, specification, inputs.flatten().as_deref())
}
