//! What is published next, while the files are looked at one by one: a task, a block, or a pack once it is whole.

use bagpress_broker::descriptor::{FilePart, Part, ResultPath};
use bagpress_objstore::staging::Plan as _;

use crate::run_folder::inputs::InputEntry;
use crate::run_folder::plan::BagPlan;

/// What is sent next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A task: index, round, and its file if it has one.
    Task(u32, u32, Option<InputEntry>),
    /// A block of a file.
    Block(u32, InputEntry),
    Pack(Forming),
}

/// What is to be sent once this file was looked at.
pub(crate) fn next(
    plan: &BagPlan,
    index: u32,
    entry: Option<InputEntry>,
    forming: &mut Option<Forming>,
    wanted: impl Fn(u32) -> bool,
) -> [Option<Next>; 2] {
    if plan.blocks(index).is_some() {
        return [None, None];
    }
    let files = plan.files(index, 0);
    if let Some(first) = entry.as_ref().filter(|_| files > 1) {
        *forming = Some(Forming::new(index, first.clone(), files, wanted(index)));
    }
    let is_open = !plan.ledger.is_decided(index) && wanted(index) && !plan.waits_for_twin(index);
    let (round, mut task) = (plan.ledger.round(index), None);
    if let (Some(pack), Some(entry)) = (forming.as_mut(), &entry) {
        pack.see(entry);
    }
    match (forming.as_mut().filter(|_| round == 0), &entry) {
        (Some(pack), Some(entry)) if is_open => {
            pack.take(index, entry, plan.specification.results == ResultPath::Objects);
        }
        (None, _) if is_open => task = Some(Next::Task(index, round, entry)),
        _ => {}
    }
    let pack = forming.take_if(|pack| pack.ends_with(index)).filter(Forming::is_wanted);
    [task, pack.map(Next::Pack)]
}

/// A pack, as far as its files were seen.
#[derive(Debug)]
pub(crate) struct Forming {
    pub(crate) first: u32,
    pub(crate) entry: InputEntry,
    pub(crate) files: u32,
    /// Of those that are to be run.
    pub(crate) bytes: u64,
    /// Those, with their places, if they are to be put.
    pub(crate) members: Vec<(u32, InputEntry)>,
    /// What of their object its files are, whether they are to be run or not, if they are in one.
    pub(crate) parts: Vec<FilePart>,
    /// Whether its delivery is wanted, and any of its files.
    delivery: bool,
    file: bool,
}

impl Forming {
    /// A pack of `files`, of which `entry` is the first; `delivery`: nobody has its delivery.
    pub(crate) fn new(first: u32, entry: InputEntry, files: u32, delivery: bool) -> Self {
        let (members, parts) = (Vec::new(), Vec::new());
        Self { first, entry, files, bytes: 0, members, parts, delivery, file: false }
    }

    /// Sees a file of it, in its order.
    pub(crate) fn see(&mut self, entry: &InputEntry) {
        let part = entry.reference.as_ref().and_then(|reference| reference.part);
        let part = part.map(|Part { at, digest }| FilePart { at, bytes: entry.bytes, digest });
        self.parts.extend(part);
    }

    /// Sees a file that is to be run with the pack; `put`: its bytes are to be put.
    pub(crate) fn take(&mut self, index: u32, entry: &InputEntry, put: bool) {
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.file = true;
        if put {
            self.members.push((index.saturating_sub(self.first), entry.clone()));
        }
    }

    /// Whether `index` is its last file.
    pub(crate) fn ends_with(&self, index: u32) -> bool {
        index + 1 >= self.first.saturating_add(self.files)
    }

    /// Whether it is to be published.
    pub(crate) fn is_wanted(&self) -> bool {
        self.delivery && self.file
    }
}
