//! `Plan`: what the receiver asks of a bag (outcomes, targets, inputs); the producer implements it.

use std::io;

use crate::staging::input::InputFile;
use crate::staging::parts::Target;
use bagpress_broker::result::TaskResult;

/// A bag, as its run folder has it. All of it may read files, and is called on threads that may wait for a disk.
pub trait Plan: std::fmt::Debug + Send + Sync + 'static {
    /// The outcome of a task, if its round, or a later one, has one in the ledger: of a pack that of its first file, once every
    /// file has one.
    fn decided(&self, index: u32, round: u32) -> Option<TaskResult>;
    /// How many files are delivered by this name: one, but for a pack.
    fn files(&self, index: u32, round: u32) -> u32;
    /// Whether a file needs no execution in this round. Asks no disk.
    fn is_file_decided(&self, index: u32, round: u32) -> bool;
    /// Where a task's output belongs.
    ///
    /// # Errors
    ///
    /// If there is no such task, or the specification cannot be read.
    fn target(&self, index: u32) -> io::Result<Target>;
    /// The file that a task compresses, or restores.
    ///
    /// # Errors
    ///
    /// If there is no such task, or it has no file, or the specification cannot be read.
    fn input(&self, index: u32) -> io::Result<InputFile>;
    /// Whether outputs may be handed over by path.
    fn by_path(&self) -> bool;
    /// Most bytes that the output of a task can have, whose input has so many. May read a file.
    fn output_bytes_max(&self, index: u32, input_bytes: u64) -> u64;
}
