//! The clauses of the design.

/// A clause of the design that looks odd until it is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clause {
    /// A loser deletes no object that a result may name.
    LoserDeletesNothing,
    /// *Have it* is said of an index and a round.
    HaveItByRound,
    /// An object is adopted only if it reads back.
    AdoptionChecked,
    /// An object with other bytes stays until the gatherer decides.
    OthersStay,
    /// A restarted gatherer finishes a round that began and is seen nowhere.
    BegunRoundFinished,
    /// A task's subject has its round, so that an old message does not refuse the new one.
    SubjectByRound,
    /// A delivery beyond the last attempt is not executed.
    CrashLimit,
    /// A task is acked after its result is committed.
    CommitBeforeAck,
    /// A part file gets its final name after its result is committed.
    CommitBeforeRename,
    /// Before anything is deleted the leader is read, not a replica.
    LeaderBeforeDelete,
    /// A final name that is taken is hashed again.
    TakenNameHashed,
    /// What is submitted again has no message id.
    ResubmitWithoutId,
    /// Chunks that nobody holds or names are purged when the bucket is full.
    FullBucketSwept,
    /// A worker that finds the bucket full looks for an object to adopt.
    FullLooksForObject,
    /// A reconciliation reads the results from the first on.
    ResultsFromFirst,
    /// A result of a round that this ledger does not know begins that round here.
    UnknownRoundTaken,
    /// The object is looked at before its result is counted.
    ObjectChecked,
    /// A part file is not written to after CLOSE.
    NoWriteAfterClose,
    /// The line that begins a round comes before anything of the old one is removed.
    BeginBeforeRemove,
    /// A planned give-back spends no attempt.
    PlannedSpendsNothing,
    /// Metadata is create-only.
    MetadataCreateOnly,
    /// A result is committed by compare-and-set.
    CommitByCompare,
    /// A finished round also removes the broken object of the old one.
    FinishedRoundRemoves,
    /// A file that has an output's name is moved aside only if this ledger named that output before.
    OnlyNamedMovesAside,
    /// Other part files of a task go after its line, when nobody can need them any more.
    SweepAfterLine,
    /// A file that the result of its pack leaves open begins its next round.
    OpenOfPackBegun,
    /// A pack is delivered while any of its files is open, not only the first.
    RestOfPackDelivered,
    /// *Have it* is said of a pack when every file of it is decided.
    HaveItOfWholePack,
    /// The tar of a pack gets the name only while no file of the pack counts.
    TarNamedBeforeAnyCounts,
    /// What is joined is synced before the blocks' part files are removed.
    SyncedBeforeRemoved,
    /// A block's part file is removed when the note has it.
    NotedBeforeRemoved,
    /// A join goes on where its note says: what its part file has behind that is cut off.
    CutToNote,
    /// A file whose outcome was given is left alone, whatever is counted of its blocks meanwhile.
    GivenLeftAlone,
    /// A block that is done and of which the bytes are in neither place is run again.
    LostBlockRunsAgain,
    /// A block that failed fails its file.
    FailedBlockFails,
}
