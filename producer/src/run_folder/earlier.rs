//! Outputs of earlier runs in the same folder, which files of this run may have: those that have the size of their inputs.
//!
//! As with twins, a size is only a hint: whoever gives a file such an output compares the whole content of both first.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use bagpress_broker::quote;
use bagpress_broker::result::{Done, FileId};
use bagpress_codec::Digest;
use serde::{Deserialize, Serialize};

use crate::run_folder::cuts::Cuts;
use crate::run_folder::folder::{EARLIER, RunFolder};
use crate::run_folder::inputs::{InputList, read_path, write_path};
use crate::run_folder::packable::Packable;
use crate::run_folder::specification::Specification;
use crate::run_folder::twins::{BYTES_MIN, Twins};

/// Outputs that are kept at hand, 400 bytes each.
pub(crate) const OUTPUTS_MAX: usize = 16 * 1024;

/// An output that an earlier run made; a line of `earlier.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EarlierOutput {
    /// Where it is, below the outputs' folder.
    #[serde(serialize_with = "write_path", deserialize_with = "read_path")]
    pub(crate) path: PathBuf,
    /// The file that the run named, as far as its ledger says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<FileId>,
    /// What it was made of, and what it is.
    pub(crate) done: Done,
}

/// The outputs of earlier runs that files of a bag may have.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// By size and digest of their inputs.
    outputs: HashMap<(u64, Digest), EarlierOutput>,
    /// The files that have such a size and wait for no other of their bag, in order.
    files: Vec<u32>,
}

impl Earlier {
    /// Those of a run whose outputs become files, if there are any. Blocks: reads the list of inputs.
    ///
    /// # Errors
    ///
    /// If a list cannot be read.
    pub(crate) fn of(
        folder: &RunFolder,
        specification: &Specification,
        inputs: Option<&InputList>,
        twins: Option<&Twins>,
        cuts: Option<&Cuts>,
    ) -> Result<Option<Arc<Self>>> {
        let context = || format!("read {}", quote::name(folder.at(EARLIER)));
        let list = folder.open(EARLIER)?.filter(|_| specification.has_files());
        let (Some(list), Some(inputs)) = (list, inputs) else { return Ok(None) };
        // A large file is run at once in blocks, and whole in a later round.
        let is_left_out = |index| {
            let is_twin = twins.is_some_and(|twins| twins.first_of(index).is_some());
            is_twin || cuts.is_some_and(|cuts| cuts.blocks(index).is_some())
        };
        let earlier = Self::read(list, inputs.packable(), is_left_out).with_context(context)?;
        Ok(Some(Arc::new(earlier)))
    }

    /// A line that cannot be right is left out: its files are run as any other.
    fn read(
        list: File,
        files: impl Iterator<Item = io::Result<Packable>>,
        is_left_out: impl Fn(u32) -> bool,
    ) -> io::Result<Self> {
        let mut earlier = Self::default();
        for line in BufReader::new(list).lines().take(OUTPUTS_MAX) {
            if let Ok(output) = serde_json::from_str::<EarlierOutput>(&line?) {
                let of = (output.done.input_bytes, output.done.input_digest);
                earlier.outputs.entry(of).or_insert(output);
            }
        }
        let mut sizes: Vec<_> = earlier.outputs.keys().map(|(bytes, _)| *bytes).collect();
        sizes.sort_unstable();
        for (index, file) in (0..).zip(files) {
            let file = file?;
            // One with a codec of its own has none of the outputs, which all are of the bag's.
            let may =
                file.is_file && !file.refused && file.codec.is_none() && file.bytes >= BYTES_MIN;
            if may && sizes.binary_search(&file.bytes).is_ok() && !is_left_out(index) {
                earlier.files.push(index);
            }
        }
        Ok(earlier)
    }

    /// Whether a file may have one of the outputs.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.files.binary_search(&index).is_ok()
    }

    /// The files that may.
    pub(crate) fn files(&self) -> impl Iterator<Item = u32> + '_ {
        self.files.iter().copied()
    }

    /// The output that was made of an input with this digest, of so many bytes.
    pub(crate) fn made_of(&self, (digest, bytes): (Digest, u64)) -> Option<&EarlierOutput> {
        self.outputs.get(&(bytes, digest))
    }
}

#[cfg(test)]
mod tests {
    use bagpress_broker::result::Place;

    use super::*;

    #[test]
    fn a_file_may_have_an_output_whose_input_had_its_size_and_junk_says_nothing() {
        let mut list = tempfile::tempfile().unwrap();
        let output = |path: &str, bytes: u64| {
            let done = Done {
                input_bytes: bytes,
                input_digest: Digest::of(path.as_bytes()),
                output_bytes: 9,
                output_digest: Digest::of(b"output"),
                place: Place::Staged,
                verified: true,
                choice: None,
                fidelity: None,
                entry_points: Vec::new(),
            };
            EarlierOutput { path: path.into(), file: None, done }
        };
        let outputs = [output("a.gz", 20_000), output("b.gz", 20_000), output("c.gz", 10)];
        for output in &outputs {
            serde_json::to_writer(&mut list, output).unwrap();
            io::Write::write_all(&mut list, b"\njunk\n").unwrap();
        }
        io::Seek::rewind(&mut list).unwrap();
        let sizes = [20_000, 10, 20_001, 20_000, 20_000, 20_000, 20_000];
        let files = (0..).zip(sizes).map(|(index, bytes)| {
            let codec = (index == 5).then(|| "zstd:3".parse().unwrap());
            Ok(Packable { bytes, refused: index == 3, is_file: index != 6, part_of: None, codec })
        });
        let earlier = Earlier::read(list, files, |index| index == 4).unwrap();
        assert_eq!(earlier.files().collect::<Vec<_>>(), [0]);
        assert!(earlier.has(0) && !earlier.has(3));
        assert_eq!(earlier.made_of((Digest::of(b"b.gz"), 20_000)), Some(&outputs[1]));
        assert_eq!(earlier.made_of((Digest::of(b"b.gz"), 20_001)), None);
    }
}
