//! Other work on the machine, kept out of the numbers as far as it can be.
//!
//! A run is chosen by how busy *others* were during it, never by its own time: that is no cherry-picking.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::machine::cores;

/// Others' share of all cores from which a run is run again.
const OTHERS_MAX: f64 = 0.05;
const TRIES_MAX: usize = 5;
const LOOK_FOR: Duration = Duration::from_millis(300);

/// Waits for quiet before a run, at most this long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quiet {
    pub(crate) wait_max: Duration,
}

impl Quiet {
    /// Runs in quiet, again if others were busy, and returns the quietest run with others' share of
    /// all cores during it. With no time to wait it runs once.
    pub(crate) fn run<T>(self, mut run: impl FnMut() -> Result<T>) -> Result<(T, f64)> {
        let until = Instant::now() + self.wait_max;
        let mut best: Option<(T, f64)> = None;
        for _ in 0..TRIES_MAX {
            Self::wait(until);
            let before = Used::now();
            let ran = run()?;
            let others = before.others();
            if best.as_ref().is_none_or(|(_, least)| others < *least) {
                best = Some((ran, others));
            }
            let quiet_enough = best.as_ref().is_some_and(|(_, least)| *least <= OTHERS_MAX);
            if quiet_enough || Instant::now() >= until {
                break;
            }
        }
        best.ok_or_else(|| anyhow::anyhow!("nothing ran"))
    }

    fn wait(until: Instant) {
        while Instant::now() < until {
            let before = Used::now();
            std::thread::sleep(LOOK_FOR);
            if before.others() <= OTHERS_MAX {
                return;
            }
        }
    }
}

/// Processor time used until now, in ticks of 10 ms.
struct Used {
    at: Instant,
    all: f64,
    ours: f64,
}

const TICK: f64 = 0.01;

impl Used {
    fn now() -> Self {
        let numbers = |text: &str| -> Vec<f64> {
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let all = numbers(stat.lines().next().unwrap_or_default());
        // user, nice, system, idle, iowait, irq, softirq, steal
        let busy = [0, 1, 2, 5, 6, 7].into_iter().filter_map(|field| all.get(field)).sum();
        let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let own = numbers(own.rsplit_once(") ").map_or("", |(_, rest)| rest));
        // utime, stime, cutime and cstime; the state, a letter, is no number and left out.
        let ours = own.get(10..14).map_or(0.0, |times| times.iter().sum());
        Self { at: Instant::now(), all: busy, ours }
    }

    /// Others' share of all cores since then.
    #[expect(clippy::cast_precision_loss, reason = "a few cores")]
    fn others(&self) -> f64 {
        let now = Self::now();
        let used = (now.all - self.all) - (now.ours - self.ours);
        let there_was = now.at.duration_since(self.at).as_secs_f64() * cores() as f64;
        (used * TICK / there_was).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_time_to_wait_it_runs_once() {
        let mut runs = 0;
        let (ran, others) = Quiet { wait_max: Duration::ZERO }
            .run(|| {
                runs += 1;
                Ok(runs)
            })
            .unwrap();
        assert_eq!((ran, runs), (1, 1));
        assert!(others >= 0.0);
    }
}
