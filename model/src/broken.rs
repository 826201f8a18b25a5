//! What can go wrong, in words.

use std::fmt;

/// A property that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Broken {
    CountedTwice,
    BytesMissing,
    BlockMissing,
    FailedWithoutCause,
    OtherThanCommitted,
    OwnTaken,
    StrangerTouched,
    Stuck,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CountedTwice => "two outcomes are counted for one task and round",
            Self::BytesMissing => {
                "a task is counted done and its bytes are not under their name with its digest"
            }
            Self::BlockMissing => {
                "a block is counted done and is neither in its part file nor durably in a joined one"
            }
            Self::FailedWithoutCause => "a task is counted failed that had an attempt left",
            Self::OtherThanCommitted => "another outcome is counted than was committed",
            Self::OwnTaken => "the bag's own output is taken for somebody else's",
            Self::StrangerTouched => "somebody else's file is moved, replaced or removed",
            Self::Stuck => "the bag can never end from here",
        })
    }
}
