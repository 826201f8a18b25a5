//! A bit a task.

/// A bit a task: 125 KB for a million tasks. What lies beyond the last is never set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// As many as there are tasks, none of them set.
    pub(crate) fn new(tasks: u32) -> Self {
        Self(vec![0; (tasks as usize).div_ceil(64)])
    }

    pub(crate) fn get(&self, index: u32) -> bool {
        self.0.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub(crate) fn set(&mut self, index: u32, to: bool) {
        if let Some(word) = self.0.get_mut(index as usize / 64) {
            let bit = 1 << (index % 64);
            *word = if to { *word | bit } else { *word & !bit };
        }
    }
}
