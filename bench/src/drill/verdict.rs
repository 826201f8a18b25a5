//! What a drill came to.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::check::Checked;
use super::plan::Shape;
use crate::machine::Machine;
use crate::table::{row, table};

/// Faults by kind.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Tally {
    /// That happened.
    pub(super) hit: BTreeMap<&'static str, u32>,
    /// That this machine does not allow.
    pub(super) left_out: BTreeMap<&'static str, u32>,
    /// That found nothing to hit.
    pub(super) missed: BTreeMap<&'static str, u32>,
}

#[expect(clippy::unnecessary_wraps, reason = "each ends a fault, which may fail")]
impl Tally {
    pub(super) fn hit(&mut self, kind: &'static str) -> Result<()> {
        *self.hit.entry(kind).or_default() += 1;
        Ok(())
    }

    pub(super) fn left_out(&mut self, kind: &'static str) -> Result<()> {
        *self.left_out.entry(kind).or_default() += 1;
        Ok(())
    }

    pub(super) fn missed(&mut self, kind: &'static str) -> Result<()> {
        *self.missed.entry(kind).or_default() += 1;
        Ok(())
    }

    pub(super) fn faults(&self) -> u32 {
        self.hit.values().sum()
    }
}

/// How one bag went.
#[derive(Debug, Default, Serialize)]
pub(super) struct BagReport {
    pub(super) bag: String,
    pub(super) way: String,
    pub(super) tasks: u32,
    /// Tasks without their output, though nobody had damaged it, or after it was repaired.
    pub(super) lost: u64,
    pub(super) unreadable: u64,
    pub(super) failed: u64,
    /// Outcomes that were counted more than once.
    pub(super) doubled: u64,
    /// Executions whose outcome came second.
    pub(super) duplicates: u64,
    /// Tasks that the drill had damaged; that a repair gave back; damages that `verify` did not see.
    pub(super) damaged: u64,
    pub(super) healed: u64,
    pub(super) unnoticed: u64,
    /// `verify` blames what is good.
    pub(super) false_alarms: u64,
    /// Gatherers that ended by themselves, before the bag was complete.
    pub(super) gave_up: u32,
    /// No progress until we gave up.
    pub(super) stuck: u64,
    pub(super) longest_stall_ms: f64,
    pub(super) took_ms: f64,
    pub(super) left_over: Vec<String>,
    pub(super) notes: Vec<String>,
    /// Where the run folder was kept.
    pub(super) kept: Option<PathBuf>,
}

impl BagReport {
    pub(super) fn of(shape: &Shape) -> Self {
        let (results, delivery) = (shape.results, shape.delivery.name());
        let way = format!("{results}, {delivery}, {}", shape.codec);
        Self { bag: shape.name(), way, tasks: shape.tasks(), ..Self::default() }
    }

    pub(super) fn say(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Counts what was found of these tasks as lost, unreadable or failed.
    pub(super) fn count(&mut self, checked: &Checked, of: impl Fn(&u32) -> bool) {
        let counts = [
            (&mut self.lost, &checked.lost),
            (&mut self.unreadable, &checked.unreadable),
            (&mut self.failed, &checked.failed),
        ];
        for (count, found) in counts {
            for (index, why) in found.iter().filter(|(index, _)| of(index)) {
                *count += 1;
                self.notes.push(format!("task {index}: {why}"));
            }
        }
    }

    pub(super) fn is_good(&self) -> bool {
        let bad = [
            self.lost,
            self.unreadable,
            self.failed,
            self.doubled,
            self.unnoticed,
            self.false_alarms,
            self.stuck,
        ];
        bad.iter().sum::<u64>() == 0 && self.left_over.is_empty()
    }
}

/// How the drill went.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) seed: u64,
    pub(super) machine: Machine,
    pub(super) took_s: f64,
    pub(super) workers: usize,
    pub(super) faults: u32,
    pub(super) by_kind: Tally,
    pub(super) bags: usize,
    pub(super) tasks: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) unreadable: u64,
    pub(super) failed: u64,
    pub(super) duplicates: u64,
    pub(super) damaged: u64,
    pub(super) healed: u64,
    pub(super) unnoticed: u64,
    pub(super) false_alarms: u64,
    pub(super) stuck: u64,
    pub(super) gave_up: u32,
    pub(super) longest_stall_ms: f64,
    /// Processes, files and messages that nobody owns any more.
    pub(super) left_over: Vec<String>,
    /// Processes that ended though nobody had killed them.
    pub(super) surprises: Vec<String>,
    pub(super) good: bool,
    /// Where logs and run folders are, if something was not as it should be.
    pub(super) kept: Option<PathBuf>,
    /// The bags that were not.
    pub(super) bad_bags: Vec<BagReport>,
}

impl Verdict {
    /// Sums the bags up.
    pub(super) fn of(seed: u64, workers: usize, tally: &Tally, bags: Vec<BagReport>) -> Self {
        let sum = |field: fn(&BagReport) -> u64| bags.iter().map(field).sum();
        let mut verdict = Self {
            seed,
            machine: Machine::now(),
            took_s: 0.0,
            workers,
            faults: tally.faults(),
            by_kind: tally.clone(),
            bags: bags.len(),
            tasks: sum(|bag| u64::from(bag.tasks)),
            lost: sum(|bag| bag.lost),
            doubled: sum(|bag| bag.doubled),
            unreadable: sum(|bag| bag.unreadable),
            failed: sum(|bag| bag.failed),
            duplicates: sum(|bag| bag.duplicates),
            damaged: sum(|bag| bag.damaged),
            healed: sum(|bag| bag.healed),
            unnoticed: sum(|bag| bag.unnoticed),
            false_alarms: sum(|bag| bag.false_alarms),
            stuck: sum(|bag| bag.stuck),
            gave_up: bags.iter().map(|bag| bag.gave_up).sum(),
            longest_stall_ms: bags.iter().map(|bag| bag.longest_stall_ms).fold(0.0, f64::max),
            left_over: bags.iter().flat_map(|bag| bag.left_over.clone()).collect(),
            surprises: Vec::new(),
            good: bags.iter().all(BagReport::is_good),
            kept: None,
            bad_bags: Vec::new(),
        };
        verdict.bad_bags = bags.into_iter().filter(|bag| !bag.is_good()).collect();
        verdict
    }

    pub(super) fn text(&self) -> String {
        let mut rows = vec![row!["fault", "happened"]];
        rows.extend(self.by_kind.hit.iter().map(|(kind, count)| row![kind, count]));
        let mut text = table(&rows);
        let mut line = |line: String| {
            // Writing into a string cannot fail.
            writeln!(text, "{line}").ok();
        };
        for (kind, count) in &self.by_kind.left_out {
            line(format!("left out: {count} × {kind}: this machine does not allow it"));
        }
        for (kind, count) in &self.by_kind.missed {
            line(format!("missed: {count} × {kind}: there was nothing to hit"));
        }
        let Self { seed, faults, bags, tasks, took_s, .. } = self;
        line(format!("seed {seed}: {faults} faults, {bags} bags, {tasks} tasks in {took_s:.0} s"));
        line(format!(
            "lost {}, doubled {}, unreadable {}, failed {}, stuck {}; duplicates {}",
            self.lost, self.doubled, self.unreadable, self.failed, self.stuck, self.duplicates
        ));
        line(format!(
            "damaged outputs {}, given back by --repair {}, not seen by verify {}, false alarms {}",
            self.damaged, self.healed, self.unnoticed, self.false_alarms
        ));
        line(format!(
            "longest stall {:.1} s, gatherers that gave up {}",
            self.longest_stall_ms / 1e3,
            self.gave_up
        ));
        for left in &self.left_over {
            line(format!("left over: {left}"));
        }
        for surprise in &self.surprises {
            line(format!("note: {surprise}"));
        }
        for bag in &self.bad_bags {
            line(format!("bad: {} ({})", bag.bag, bag.way));
            for note in &bag.notes {
                line(format!("  {note}"));
            }
        }
        if let Some(kept) = &self.kept {
            line(format!("logs and run folders: {}", kept.display()));
        }
        line(format!("verdict: {}", if self.good { "good" } else { "BAD" }));
        text
    }
}
