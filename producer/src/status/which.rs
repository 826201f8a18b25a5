//! Which task somebody means.

use std::path::{Path, absolute};

use anyhow::{Context, Result};
use bagpress_broker::quote;

use crate::error::Usage;
use crate::run_folder::folder::RunFolder;
use crate::run_folder::inputs::InputEntry;
use crate::run_folder::plan::inputs_of;
use crate::run_folder::specification::Specification;

/// The index of the task that is meant by `text`: the index itself, or a file of the bag, by its path, by its name below the
/// outputs' folder, or by that of its output. Blocks: reads the list of inputs for the latter.
///
/// # Errors
///
/// [`Usage`] if there is no such file, or no list: of a bag that was named by its id.
pub fn which(folder: Option<&RunFolder>, text: &str) -> Result<u32> {
    if let Ok(index) = text.parse() {
        return Ok(index);
    }
    let by_index = "name the run folder of a bag of files, or the task's index: 0, 1, …";
    let name = quote::name(text);
    let folder =
        folder.ok_or_else(|| Usage::error(format!("only a run folder knows {name}"), by_index))?;
    let specification = Specification::read(folder)?;
    let list = inputs_of(folder, &specification)?
        .ok_or_else(|| Usage::error(format!("the bag has no files, hence no {name}"), by_index))?;
    let (wanted, anywhere) = (Path::new(text), absolute(text).context("find the file")?);
    let is_output = |entry: &InputEntry| {
        let mut output = entry.target.as_os_str().to_owned();
        output.push(specification.codec_of(Some(entry)).extension());
        Path::new(&output) == wanted || specification.output_root(folder).join(&output) == anywhere
    };
    for (index, entry) in (0..).zip(list.entries()) {
        let entry = entry.context("read the list of inputs")?;
        if entry.path == anywhere || entry.target == wanted || is_output(&entry) {
            return Ok(index);
        }
    }
    Err(Usage::error(
        format!("no file of the bag is {name}"),
        "name it by its path, or as it is called below the folder of the outputs; `status BAG --failed` lists those that \
         failed",
    ))
}
