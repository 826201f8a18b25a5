//! The one way to try again: until a try goes as it should, or the time is over.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often something is tried, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    /// Pause between two tries.
    pub(crate) every: Duration,
    /// No try begins later than this after the first.
    pub(crate) within: Duration,
}

impl Retry {
    /// Tries until it succeeds.
    ///
    /// # Errors
    ///
    /// The error of the last try.
    pub(crate) fn run<T>(self, attempt: impl FnMut() -> Result<T>) -> Result<T> {
        self.until(attempt, |_| true)
    }

    /// Tries, at least once, until it succeeds with what is `wanted`; returns how the last try went.
    ///
    /// # Errors
    ///
    /// The error of the last try.
    pub(crate) fn until<T>(
        self,
        mut attempt: impl FnMut() -> Result<T>,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let end = Instant::now() + self.within;
        loop {
            let tried = attempt();
            if tried.as_ref().is_ok_and(&wanted) || Instant::now() + self.every > end {
                return tried;
            }
            thread::sleep(self.every);
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{bail, ensure};

    use super::*;

    #[test]
    fn it_ends_with_what_is_wanted_or_with_the_last_try() {
        let (mut tries, every) = (0, Duration::from_millis(1));
        let mut next = || {
            tries += 1;
            ensure!(tries >= 3, "try {tries}");
            Ok(tries)
        };
        let patient = Retry { every, within: Duration::from_mins(1) };
        assert_eq!(patient.run(&mut next).unwrap(), 3);
        assert_eq!(patient.until(&mut next, |tries| *tries > 5).unwrap(), 6);
        let once = Retry { every, within: Duration::ZERO };
        assert_eq!(once.until(&mut next, |_| false).unwrap(), 7);
        assert!(once.run(|| -> Result<()> { bail!("no") }).is_err());
    }
}
