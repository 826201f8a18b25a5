//! When a message that was refused or not answered is sent again, and when its sender gives up.

use std::time::Duration;

use tokio::time::{self, Instant};

/// First delay; it doubles.
const WAIT: Duration = Duration::from_millis(50);
/// Longest delay.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How long one message is sent again: longer than a cluster takes to find a new leader, and far below the two minutes
/// in which the server knows a repeated chunk.
const WITHIN: Duration = Duration::from_secs(30);

const _: () = assert!(WITHIN.as_secs() * 3 < 120);
const _: () = assert!(WAIT.as_millis() < WAIT_MAX.as_millis());

/// The retries of one message.
#[derive(Debug)]
pub(super) struct Resend {
    began: Instant,
    wait: Duration,
}

impl Resend {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), wait: WAIT }
    }

    /// Waits until the message may be sent again; false, and at once, if it has been for long enough.
    pub(super) async fn again(&mut self) -> bool {
        if self.began.elapsed() > WITHIN {
            return false;
        }
        time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(WAIT_MAX);
        true
    }
}
