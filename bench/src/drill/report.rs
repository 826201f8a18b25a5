//! The verdict on each bag, and on the drill.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Add;
use std::path::PathBuf;

use serde::Serialize;

use super::check::Checked;
use super::plan::Shape;
use crate::machine::Machine;
use crate::table::{row, table};

/// Faults by kind.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Tally {
    /// That happened.
    hit: BTreeMap<&'static str, u32>,
    /// That this machine does not allow.
    left_out: BTreeMap<&'static str, u32>,
    /// That found nothing to hit.
    missed: BTreeMap<&'static str, u32>,
}

impl Tally {
    pub(super) fn hit(&mut self, kind: &'static str) {
        *self.hit.entry(kind).or_default() += 1;
    }

    pub(super) fn left_out(&mut self, kind: &'static str) {
        *self.left_out.entry(kind).or_default() += 1;
    }

    pub(super) fn missed(&mut self, kind: &'static str) {
        *self.missed.entry(kind).or_default() += 1;
    }

    fn faults(&self) -> u32 {
        self.hit.values().sum()
    }
}

/// What is counted of a bag, and summed up over all.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Counts {
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
    /// Damaged outputs that nobody can know for the bag's, as the ledger's line was damaged as well: they stay.
    pub(super) disowned: u64,
    /// `verify` blames what is good.
    pub(super) false_alarms: u64,
    /// Objects of chains that the drill had damaged, and tasks that were run to make objects of chains again.
    pub(super) chain_damaged: u64,
    pub(super) chain_remade: u64,
    /// No progress until we gave up.
    pub(super) stuck: u64,
    /// Gatherers that ended by themselves, before the bag was complete.
    pub(super) gave_up: u64,
}

impl Counts {
    fn is_good(&self) -> bool {
        let Self { lost, unreadable, failed, doubled, unnoticed, false_alarms, stuck, .. } = self;
        lost + unreadable + failed + doubled + unnoticed + false_alarms + stuck == 0
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            unreadable: self.unreadable + other.unreadable,
            failed: self.failed + other.failed,
            doubled: self.doubled + other.doubled,
            duplicates: self.duplicates + other.duplicates,
            damaged: self.damaged + other.damaged,
            healed: self.healed + other.healed,
            unnoticed: self.unnoticed + other.unnoticed,
            disowned: self.disowned + other.disowned,
            false_alarms: self.false_alarms + other.false_alarms,
            chain_damaged: self.chain_damaged + other.chain_damaged,
            chain_remade: self.chain_remade + other.chain_remade,
            stuck: self.stuck + other.stuck,
            gave_up: self.gave_up + other.gave_up,
        }
    }
}

/// How one bag went.
#[derive(Debug, Default, Serialize)]
pub(super) struct BagReport {
    pub(super) bag: String,
    pub(super) way: String,
    pub(super) tasks: u32,
    #[serde(flatten)]
    pub(super) counts: Counts,
    pub(super) longest_stall_ms: f64,
    pub(super) took_ms: f64,
    pub(super) left_over: Vec<String>,
    pub(super) notes: Vec<String>,
    /// Where the run folder was kept.
    pub(super) kept: Option<PathBuf>,
}

impl BagReport {
    pub(super) fn of(shape: &Shape) -> Self {
        let (results, delivery) = (shape.results, shape.delivery.as_str());
        let way = format!("{results}, {delivery}, {}", shape.codec);
        Self { bag: shape.name(), way, tasks: shape.tasks(), ..Self::default() }
    }

    pub(super) fn say(&mut self, note: String) {
        self.notes.push(note);
    }

    /// `verify` ended with this code, and the bag is good.
    pub(super) fn false_alarm(&mut self, code: Option<i32>) {
        self.say(format!("verify says {code:?} of a bag that is good"));
        self.counts.false_alarms += 1;
    }

    /// Counts what was found of these tasks as lost, unreadable or failed.
    pub(super) fn count(&mut self, checked: &Checked, of: impl Fn(&u32) -> bool) {
        let counts = [
            (&mut self.counts.lost, &checked.lost),
            (&mut self.counts.unreadable, &checked.unreadable),
            (&mut self.counts.failed, &checked.failed),
        ];
        for (count, found) in counts {
            for (index, why) in found.iter().filter(|(index, _)| of(index)) {
                *count += 1;
                self.notes.push(format!("task {index}: {why}"));
            }
        }
    }

    pub(super) fn is_good(&self) -> bool {
        self.counts.is_good() && self.left_over.is_empty()
    }
}

/// How the drill went.
#[derive(Debug, Serialize)]
pub(super) struct DrillReport {
    pub(super) seed: u64,
    pub(super) machine: Machine,
    pub(super) took_s: f64,
    pub(super) workers: usize,
    pub(super) faults: u32,
    pub(super) by_kind: Tally,
    pub(super) bags: usize,
    pub(super) tasks: u64,
    #[serde(flatten)]
    pub(super) counts: Counts,
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

impl DrillReport {
    /// Sums the bags up.
    pub(super) fn of(seed: u64, workers: usize, tally: &Tally, bags: Vec<BagReport>) -> Self {
        let mut report = Self {
            seed,
            machine: Machine::now(),
            took_s: 0.0,
            workers,
            faults: tally.faults(),
            by_kind: tally.clone(),
            bags: bags.len(),
            tasks: bags.iter().map(|bag| u64::from(bag.tasks)).sum(),
            counts: bags.iter().map(|bag| bag.counts).fold(Counts::default(), Add::add),
            longest_stall_ms: bags.iter().map(|bag| bag.longest_stall_ms).fold(0.0, f64::max),
            left_over: bags.iter().flat_map(|bag| bag.left_over.clone()).collect(),
            surprises: Vec::new(),
            good: bags.iter().all(BagReport::is_good),
            kept: None,
            bad_bags: Vec::new(),
        };
        report.bad_bags = bags.into_iter().filter(|bag| !bag.is_good()).collect();
        report
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
        let Self { seed, faults, bags, tasks, took_s, counts, .. } = self;
        line(format!("seed {seed}: {faults} faults, {bags} bags, {tasks} tasks in {took_s:.0} s"));
        line(format!(
            "lost {}, doubled {}, unreadable {}, failed {}, stuck {}; duplicates {}",
            counts.lost,
            counts.doubled,
            counts.unreadable,
            counts.failed,
            counts.stuck,
            counts.duplicates
        ));
        line(format!(
            "damaged outputs {}, given back by --repair {}, disowned {}, not seen by verify {}, false alarms {}",
            counts.damaged, counts.healed, counts.disowned, counts.unnoticed, counts.false_alarms
        ));
        line(format!(
            "objects of chains that were damaged {}, tasks that made such again {}",
            counts.chain_damaged, counts.chain_remade
        ));
        line(format!(
            "longest stall {:.1} s, gatherers that gave up {}",
            self.longest_stall_ms / 1e3,
            counts.gave_up
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
