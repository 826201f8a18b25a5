//! What an execution needs and makes: a slot's buffers, the sizes and digests of both sides, and where the time went.

use std::time::{Duration, Instant};

use bagpress_broker::result::{Done, Fidelity, Place, Times};
use bagpress_codec::{Choice, Digest, EntryPoint, Reuse, SEGMENT_BYTES};

/// What a slot keeps from task to task: buffers, and what made the last output.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(super) segment: Vec<u8>,
    pub(super) part: Vec<u8>,
    pub(super) reuse: Reuse,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let buffer = || Vec::with_capacity(SEGMENT_BYTES);
        Self { segment: buffer(), part: buffer(), reuse: Reuse::default() }
    }

    /// For an empty task: takes no memory before there is a byte.
    pub(crate) fn empty() -> Self {
        Self { segment: Vec::new(), part: Vec::new(), reuse: Reuse::default() }
    }
}

/// What an execution made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) input_bytes: u64,
    pub(crate) input_digest: Digest,
    pub(crate) output_bytes: u64,
    pub(crate) output_digest: Digest,
    pub(crate) verified: bool,
    pub(crate) choice: Option<Choice>,
    pub(crate) fidelity: Option<Fidelity>,
    pub(crate) entry_points: Vec<EntryPoint>,
    pub(crate) times: Times,
}

impl Made {
    /// What is told of it, once it is at its place.
    pub(crate) fn at(&self, place: Place) -> Done {
        Done {
            input_bytes: self.input_bytes,
            input_digest: self.input_digest,
            output_bytes: self.output_bytes,
            output_digest: self.output_digest,
            place,
            verified: self.verified,
            choice: self.choice,
            fidelity: self.fidelity,
            entry_points: self.entry_points.clone(),
        }
    }
}

/// Where the time goes.
#[derive(Debug, Default)]
pub(super) struct Clock {
    pub(super) input: Duration,
    pub(super) compress: Duration,
    pub(super) verify: Duration,
}

impl Clock {
    pub(super) fn lap<T>(
        &mut self,
        hand: impl Fn(&mut Self) -> &mut Duration,
        work: impl FnOnce() -> T,
    ) -> T {
        let began = Instant::now();
        let worked = work();
        *hand(self) += began.elapsed();
        worked
    }

    pub(super) fn times(&self, execute: Duration) -> Times {
        Times {
            input_us: micros(self.input),
            compress_us: micros(self.compress),
            verify_us: micros(self.verify),
            execute_us: micros(execute),
            ..Times::default()
        }
    }
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
