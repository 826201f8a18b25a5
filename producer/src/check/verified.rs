//! What verifying a run found.

use std::collections::BTreeSet;

use bagpress_broker::result::FileId;

use crate::run_folder::folder::RunFolder;
use crate::run_folder::helps::Helps;
use crate::run_folder::runs::{Maker, makers};

/// What is said of a file that has an output's name, and of which no ledger says which bag made it.
const NOBODYS: &str = "the file there is not the one that this bag made";

/// What verifying found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Outputs that give their inputs again.
    pub good: u64,
    /// Outputs that do not, each with why.
    pub bad: Vec<(String, String)>,
    /// Outputs that are what the ledger says, and were made of something else than their inputs, each with why. Looked for
    /// only where inputs are compared.
    pub not_of_input: Vec<(String, String)>,
    /// Outputs whose inputs are not what they were when the bag was made, so that nobody can tell, each with why.
    pub not_compared: Vec<(String, String)>,
    /// Outputs whose inputs their run removed, as it was told to, so that there is nothing to compare them with.
    pub inputs_removed: u64,
    /// Outputs whose inputs are objects, which are not read again, so that there is nothing to compare them with here.
    pub inputs_are_objects: u64,
    /// The object that keeps names, modes and times of the bag's files, and what is wrong with it. Looked for only where the
    /// outputs are objects.
    pub tree: Option<(String, String)>,
    /// Whether a bag that is to have that object never got it: an earlier version gathered it, or putting it failed.
    pub has_no_tree: bool,
    /// Outputs in whose place another file is that this bag did not make, each with whose it is. Nothing is wrong with them.
    pub replaced: Vec<(String, String)>,
    /// The bags that made those files, as far as the run folders beside this one tell.
    pub replaced_by: Vec<Maker>,
    /// The outputs in whose place another file is, until it is known whose.
    #[serde(skip)]
    pub(super) others: Vec<(String, FileId)>,
    /// Tasks without an outcome.
    pub missing: u64,
    /// Tasks that failed: there is nothing to verify.
    pub failed: u64,
    /// What helps those.
    #[serde(skip)]
    pub helps: Helps,
    /// Ledger lines that cannot be used.
    pub bad_lines: u64,
}

impl Verified {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let found = [&self.bad, &self.not_of_input, &self.not_compared, &self.replaced];
        found.iter().all(|found| found.is_empty())
            && self.missing == 0
            && self.failed == 0
            && self.inputs_are_objects == 0
            && self.tree.is_none()
    }

    /// Brings what was found in the order of names.
    pub(super) fn sort(&mut self) {
        let Self { bad, not_of_input, not_compared, replaced, .. } = self;
        for found in [bad, not_of_input, not_compared, replaced] {
            found.sort();
        }
    }

    /// Adds what checking an output found.
    pub(super) fn add(&mut self, name: String, checked: Checked) {
        match checked {
            Ok(()) => self.good += 1,
            Err(Flaw::InputRemoved) => {
                self.good += 1;
                self.inputs_removed += 1;
            }
            Err(Flaw::InputIsObject) => self.inputs_are_objects += 1,
            Err(Flaw::Bad(why)) => self.bad.push((name, why)),
            Err(Flaw::NotOfInput(why)) => self.not_of_input.push((name, why)),
            Err(Flaw::NotCompared(why)) => self.not_compared.push((name, why)),
            Err(Flaw::Replaced(file)) => self.others.push((name, file)),
        }
    }

    /// Finds out whose the files are that outputs were replaced by. Blocks.
    pub(super) fn find_makers(&mut self, folder: &RunFolder) {
        let makers = makers(folder, &self.others.iter().map(|(_, file)| *file).collect());
        for (name, file) in std::mem::take(&mut self.others) {
            let why = match makers.get(&file) {
                Some(maker) => format!("an output of {maker} is there"),
                None => NOBODYS.to_owned(),
            };
            self.replaced.push((name, why));
        }
        self.replaced_by = makers.into_values().collect::<BTreeSet<_>>().into_iter().collect();
    }
}

/// What is wrong with an output.
#[derive(Debug)]
pub(super) enum Flaw {
    Bad(String),
    NotOfInput(String),
    NotCompared(String),
    /// None: its input was removed once it was compared.
    InputRemoved,
    /// None that anybody could find here: its input is an object.
    InputIsObject,
    /// It is another file, which the bag did not make.
    Replaced(FileId),
}

pub(super) type Checked = Result<(), Flaw>;
