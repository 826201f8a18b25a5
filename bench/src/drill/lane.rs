//! One bag after another, each gathered through whatever happens, then checked from outside.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::bag::Bag;
use super::chain;
use super::check::{Checked, check};
use super::gatherer::{End, gather};
use super::nats::At;
use super::plan::Shape;
use super::product::Product;
use super::remains;
use super::report::BagReport;
use super::victim::{Damages, Victim};
use crate::machine;
use crate::program::Bagpress;

/// A place for one bag at a time.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    victim: &'a Victim,
    product: Product,
    /// Where outputs are looked at, not through the lane's proxy.
    server: At,
    inputs: PathBuf,
    runs: PathBuf,
    kept: PathBuf,
}

impl<'a> Lane<'a> {
    pub(super) fn new(
        victim: &'a Victim,
        bagpress: Bagpress,
        server: At,
        folder: &Path,
        runs: PathBuf,
    ) -> Self {
        let product = Product { bagpress, url: victim.proxy().url(), logs: folder.join("logs") };
        let (inputs, kept) = (folder.join("inputs"), folder.join("kept"));
        Self { victim, product, server, inputs, runs, kept }
    }

    /// Runs one bag to its end and checks it.
    pub(super) fn run(&self, shape: Shape) -> Result<BagReport> {
        let bag = Bag::prepare(shape, &self.inputs, &self.runs)?;
        let mut report = BagReport::of(&bag.shape);
        let since = Instant::now();
        self.victim.expose(bag.clone());
        let gathered = self.gather(&bag, &[], &mut report)?;
        self.victim.close();
        let judged = self.judge(&bag, gathered, &mut report);
        let damages = self.victim.damages();
        self.victim.withdraw();
        report.took_ms = machine::ms(since.elapsed());
        judged?;
        if report.is_good() {
            self.follow(&bag, &mut report)?;
        }
        if report.is_good() {
            report.left_over = self.forget(&bag, report.counts.disowned, &damages)?;
        }
        if !report.is_good() {
            let kept = self.kept.join(bag.shape.name());
            fs::create_dir_all(&kept)?;
            if bag.run.exists() {
                bag.keep(&kept)?;
            }
            report.kept = Some(kept);
        }
        bag.remove()?;
        Ok(report)
    }

    /// Gathers the bag; whether it is complete.
    fn gather(&self, bag: &Bag, more: &[&str], report: &mut BagReport) -> Result<bool> {
        let gathering = gather(&self.product, self.victim, bag, more)?;
        report.counts.gave_up += gathering.gave_up;
        let stall_ms = machine::ms(gathering.longest_stall);
        report.longest_stall_ms = report.longest_stall_ms.max(stall_ms);
        match gathering.end {
            End::Complete { duplicates } => {
                report.counts.duplicates = duplicates;
                return Ok(true);
            }
            End::Incomplete(why) => report.say(format!("not complete: {why}")),
            End::Stuck => {
                report.counts.stuck += 1;
                report.say("not complete: no progress".to_owned());
            }
        }
        Ok(false)
    }

    /// Compares what the product says with what is there; repairs what was damaged.
    fn judge(&self, bag: &Bag, complete: bool, report: &mut BagReport) -> Result<()> {
        let first = self.check(bag)?;
        let damages = self.victim.damages();
        report.counts.doubled += first.doubled;
        // Whatever nobody had damaged was lost by the product.
        report.count(&first, |index| !damages.explain(*index));
        let noticed = self.product.verify(bag, first.is_good())?;
        if !first.is_good() {
            if noticed == Some(0) {
                report.counts.unnoticed += 1;
                report.say(format!("verify does not see {:?}", first.bad()));
            }
            self.repair(bag, complete, &first, &damages, report)?;
        } else if noticed != Some(0) {
            report.false_alarm(noticed);
        }
        report.left_over = remains::files(bag, damages.count());
        Ok(())
    }

    /// Repairs a bag, and checks it again.
    fn repair(
        &self,
        bag: &Bag,
        complete: bool,
        first: &Checked,
        damages: &Damages,
        report: &mut BagReport,
    ) -> Result<()> {
        let bad = first.bad();
        report.counts.damaged += bad.len() as u64;
        let repaired = self.gather(bag, &["--repair", "--retry-failed"], report)?;
        let mut second = self.check(bag)?;
        let disowned = second.take_disowned(damages);
        report.counts.disowned = disowned.len() as u64;
        report.counts.doubled = report.counts.doubled.max(second.doubled);
        // What was counted as lost may be there now: it was lost all the same, and once.
        report.count(&second, |index| !bad.contains_key(index) || damages.explain(*index));
        if second.is_good() {
            report.counts.healed += (bad.len() - disowned.len()) as u64;
            let code = self.product.verify(bag, disowned.is_empty())?;
            if disowned.is_empty() && code.is_some_and(|code| code != 0) {
                report.false_alarm(code);
            }
        }
        if complete && !repaired && disowned.is_empty() {
            report.say("not complete after --repair".to_owned());
            report.counts.stuck += 1;
        }
        Ok(())
    }

    /// Runs what follows the bag, if anything does.
    fn follow(&self, bag: &Bag, report: &mut BagReport) -> Result<()> {
        let Some(chain) = &bag.shape.chain else { return Ok(()) };
        let chained = chain::follow(bag, chain, &self.product, &self.server)?;
        report.counts.chain_damaged = chained.damaged;
        report.counts.chain_remade = chained.remade;
        for (output, why) in chained.lost {
            report.counts.lost += 1;
            report.say(format!("the last bag of its chain, output {output}: {why}"));
        }
        report.left_over = chained.left_over;
        Ok(())
    }

    /// Checks, again while the server is away.
    fn check(&self, bag: &Bag) -> Result<Checked> {
        remains::LOOK.run(|| check(bag, &self.server))
    }

    /// Removes the bag by `rm`; returns what is still there of it. The files that the product disowned are to stay, and those
    /// whose line was damaged may: the line that is rebuilt does not say which file the bag made.
    fn forget(&self, bag: &Bag, disowned: u64, damages: &Damages) -> Result<Vec<String>> {
        let text = fs::read(bag.run.join("bag.json")).context("read bag.json")?;
        let specification: Value = serde_json::from_slice(&text).context("read bag.json")?;
        let id = specification["bag"].as_str().context("a bag without an id")?.to_owned();
        let (ran, meant) = (&specification["delivery"], bag.shape.delivery.as_str());
        ensure!(ran == meant, "{id} ran by {ran}, and was to run by {meant}");
        let of_files = damages.forgotten.iter().filter(|index| **index < bag.shape.tasks());
        let may_stay = of_files
            .map(|index| Ok(bag.files(*index)?.0.display().to_string()))
            .collect::<Result<BTreeSet<_>>>()?;
        self.product.remove(bag)?;
        let mut left = remains::streams(&self.server, &id)?;
        let outputs = bag.outputs_left()?;
        let strange = outputs.iter().any(|output| !may_stay.contains(output));
        if strange || (outputs.len() as u64) < disowned {
            left.push(format!(
                "{disowned} outputs were to stay, of {may_stay:?}, and these did: {outputs:?}"
            ));
        }
        Ok(left)
    }
}
