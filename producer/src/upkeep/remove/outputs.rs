//! Removing the outputs that a bag made, from a folder that other bags write to as well.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use bagpress_broker::result::FileId;
use bagpress_codec::Digest;
use bagpress_objstore::beneath::Dir;
use bagpress_objstore::staging::hash_file;

use super::kept::{How, Removed};
use crate::run_folder::folder::RunFolder;
use crate::run_folder::inputs::folders;
use crate::run_folder::plan::BagPlan;
use crate::run_folder::runs::{Maker, makers, replaced_by};

/// An output, as its line in the ledger has it.
pub(super) struct Output {
    pub(super) index: u32,
    pub(super) digest: Digest,
    /// The file that got its name, if the ledger knows.
    pub(super) file: Option<FileId>,
}

/// Where the outputs of a bag are.
pub(super) struct Outputs<'a> {
    pub(super) folder: &'a RunFolder,
    pub(super) plan: &'a BagPlan,
    /// Their folder.
    pub(super) out: &'a Path,
    /// The same, held.
    pub(super) root: &'a Dir,
}

/// What an output's name leads to.
enum There {
    /// The file that the bag made, as it made it.
    Made,
    /// The file that the bag made, or may have, with other bytes.
    Changed,
    /// A file that the bag did not make, whatever is in it.
    Another(FileId),
}

impl Outputs<'_> {
    /// Removes the outputs that are still what the bag made, and the folders that are empty then. The others stay: a later
    /// bag's have the same names, and may even have the same bytes.
    ///
    /// # Errors
    ///
    /// If an output has no name, or cannot be removed.
    pub(super) fn remove(&self, done: &[Output], how: How, removed: &mut Removed) -> Result<()> {
        let mut others: HashMap<FileId, u64> = HashMap::new();
        // Of two bags that were gathered at the same time, both may have counted one file.
        let files = done.iter().filter_map(|output| output.file).collect();
        let claimed = makers(self.folder, &files);
        for output in done {
            let specification = &self.plan.specification;
            let target =
                specification.target(self.plan.inputs.as_deref(), output.index, None)?.path;
            let path = self.out.join(&target);
            match self.look(output, &target, &claimed) {
                Ok(There::Made) => {
                    if !how.dry_run {
                        let removing = self.root.remove_file(&target);
                        removing.with_context(|| format!("remove {}", name(&path)))?;
                        let above = target.parent().unwrap_or(Path::new(""));
                        folders::remove_while_empty(above, self.root);
                    }
                    removed.files += 1;
                    removed.outputs += 1;
                    continue;
                }
                Ok(There::Changed) => removed.keep(path, "it was changed"),
                Ok(There::Another(file)) => *others.entry(file).or_default() += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => removed.keep(path, error.to_string()),
            }
            removed.outputs_left += 1;
        }
        self.keep_others(&others, removed);
        Ok(())
    }

    fn look(
        &self,
        output: &Output,
        target: &Path,
        claimed: &HashMap<FileId, Maker>,
    ) -> io::Result<There> {
        let there = self.root.metadata(target)?;
        let (digest, _) = hash_file(self.root, target)?;
        let claimed = || FileId::of(&there).filter(|file| claimed.contains_key(file));
        let other = replaced_by(&self.plan.specification, output.file, &there).or_else(claimed);
        Ok(match other {
            Some(file) => There::Another(file),
            None if digest == output.digest => There::Made,
            None => There::Changed,
        })
    }

    /// Says how many files stay that other bags made, and which bags.
    fn keep_others(&self, others: &HashMap<FileId, u64>, removed: &mut Removed) {
        let makers = makers(self.folder, &others.keys().copied().collect());
        let mut of_each: BTreeMap<_, u64> = BTreeMap::new();
        for (file, count) in others {
            *of_each.entry(makers.get(file)).or_default() += count;
        }
        for (maker, count) in of_each {
            let why = match maker {
                Some(maker) => format!("{count} outputs of {maker}, which has the same names"),
                None => format!("{count} files with outputs' names that this bag did not make"),
            };
            removed.keep(self.out, why);
        }
    }
}
