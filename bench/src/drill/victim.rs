//! What faults may hit of a lane: its connections, its gatherer, the outputs and the ledger of its bag.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::bag::Bag;
use super::flip::flip_in_file;
use super::ledger::{LedgerLines, object_of};
use super::proxy::Proxy;
use crate::machine;

/// One lane, as faults see it. The lane itself says what of it may be hit.
#[derive(Debug)]
pub(super) struct Victim {
    proxy: Proxy,
    bag: Mutex<Option<Exposed>>,
}

/// The bag that the lane runs.
#[derive(Debug)]
struct Exposed {
    bag: Bag,
    /// The gatherer that runs.
    gatherer: Option<u32>,
    /// When a gatherer that was killed is started again.
    again_at: Option<Instant>,
    /// Whether outputs and ledger may be damaged: not while they are looked at.
    open: bool,
    damages: Damages,
}

/// What of a bag was damaged.
#[derive(Debug, Default, Clone)]
pub(super) struct Damages {
    /// Tasks, by their outputs.
    pub(super) outputs: BTreeSet<u32>,
    /// Outputs of blocks. They explain nothing: the gatherer has to see it before a file is made of them.
    pub(super) blocks: usize,
    pub(super) ledger_flips: u32,
    /// Tasks whose line of the ledger a flip made unreadable.
    pub(super) forgotten: BTreeSet<u32>,
}

impl Damages {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.outputs.len() + self.blocks + self.ledger_flips as usize
    }

    /// Whether it can be their work that a task is not as it should be.
    pub(super) fn explain(&self, index: u32) -> bool {
        self.ledger_flips > 0 || self.outputs.contains(&index)
    }

    /// Whether nothing says any more that a task's output is the bag's: neither its line nor its digest.
    pub(super) fn disown(&self, index: u32) -> bool {
        self.forgotten.contains(&index) && self.outputs.contains(&index)
    }
}

/// Where a finished output is.
pub(super) enum OutputAt {
    File(PathBuf),
    Object { bucket: String, name: String },
}

impl Victim {
    pub(super) fn new(server: u16) -> Result<Self> {
        Ok(Self { proxy: Proxy::start(server)?, bag: Mutex::default() })
    }

    pub(super) fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn lock(&self) -> MutexGuard<'_, Option<Exposed>> {
        self.bag.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T: Default>(&self, change: impl FnOnce(&mut Exposed) -> T) -> T {
        self.lock().as_mut().map(change).unwrap_or_default()
    }

    /// From now on this bag may be hit.
    pub(super) fn expose(&self, bag: Bag) {
        let damages = Damages::default();
        *self.lock() = Some(Exposed { bag, gatherer: None, again_at: None, open: true, damages });
    }

    /// From now on outputs and ledger are not damaged.
    pub(super) fn close(&self) {
        self.with(|exposed| exposed.open = false);
    }

    /// From now on there is nothing to hit.
    pub(super) fn withdraw(&self) {
        self.lock().take();
    }

    pub(super) fn damages(&self) -> Damages {
        self.with(|exposed| exposed.damages.clone())
    }

    /// A gatherer runs.
    pub(super) fn begin(&self, gatherer: &Child) {
        self.with(|exposed| exposed.gatherer = Some(gatherer.id()));
    }

    /// How the gatherer ended, if it has.
    pub(super) fn ended(&self, gatherer: &mut Child) -> Result<Option<ExitStatus>> {
        // The wait gives the number back to the system: nobody may signal it after, hence the lock.
        let mut exposed = self.lock();
        let ended = gatherer.try_wait()?;
        if let (Some(_), Some(exposed)) = (ended, exposed.as_mut()) {
            exposed.gatherer = None;
        }
        Ok(ended)
    }

    /// Kills a gatherer that is stuck; it does not count as a fault.
    pub(super) fn give_up(&self, gatherer: &mut Child) -> Result<()> {
        self.with(|exposed| exposed.gatherer = None);
        gatherer.kill()?;
        gatherer.wait()?;
        Ok(())
    }

    /// When a gatherer that a fault killed is to be started again; none if no fault did. Told once.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.with(|exposed| exposed.again_at.take())
    }

    /// Signals the gatherer; false if none runs.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        self.with(|exposed| exposed.signal(signal))
    }

    /// Kills the gatherer; another continues after a while. False if none runs.
    pub(super) fn kill(&self, again: Duration) -> bool {
        self.with(|exposed| {
            let killed = exposed.signal(Signal::KILL);
            if killed {
                exposed.again_at = Some(Instant::now() + again);
            }
            killed
        })
    }

    /// Flips a bit of the ledger; false if there is none.
    pub(super) fn flip_ledger(&self, bit: u32) -> Result<bool> {
        let mut exposed = self.lock();
        let Some(exposed) = exposed.as_mut().filter(|exposed| exposed.open) else {
            return Ok(false);
        };
        let ledger = exposed.bag.ledger();
        let done = || LedgerLines::read(&ledger).unwrap_or_default().done();
        let before = done();
        let flipped = flip_in_file(&ledger, bit)?;
        exposed.damages.ledger_flips += u32::from(flipped);
        let after: BTreeSet<_> = done().into_iter().collect();
        exposed.damages.forgotten.extend(before.into_iter().filter(|index| !after.contains(index)));
        Ok(flipped)
    }

    /// Damages the nth finished output, modulo how many there are; false if there is none.
    pub(super) fn damage(
        &self,
        nth: u32,
        damage: impl FnOnce(&OutputAt) -> Result<bool>,
    ) -> Result<bool> {
        let mut exposed = self.lock();
        let Some(exposed) = exposed.as_mut().filter(|exposed| exposed.open) else {
            return Ok(false);
        };
        let lines = LedgerLines::read(&exposed.bag.ledger()).unwrap_or_default();
        let mut done = lines.done();
        let bag = &exposed.bag;
        // Behind the files are blocks; most have become parts of their files.
        done.retain(|index| *index < bag.shape.tasks() || bag.part_of_block(*index).is_some());
        let Some(&index) = done.get(nth as usize % done.len().max(1)) else { return Ok(false) };
        if index >= bag.shape.tasks() {
            let Some(part) = bag.part_of_block(index) else { return Ok(false) };
            let damaged = damage(&OutputAt::File(part))?;
            exposed.damages.blocks += usize::from(damaged);
            return Ok(damaged);
        }
        // It counts as damaged even if the damage fails half way.
        let is_file = exposed.bag.shape.has_files();
        let mut hit = if is_file { [index].into() } else { lines.together(index) };
        hit.retain(|index| exposed.damages.outputs.insert(*index));
        let place = place_of(&exposed.bag, index, &lines)?;
        let damaged = damage(&place);
        if matches!(damaged, Ok(false)) {
            exposed.damages.outputs.retain(|index| !hit.contains(index));
        }
        damaged
    }
}

impl Exposed {
    fn signal(&self, signal: Signal) -> bool {
        self.gatherer.is_some_and(|pid| machine::send(pid, signal))
    }
}

fn place_of(bag: &Bag, index: u32, lines: &LedgerLines) -> Result<OutputAt> {
    if bag.shape.has_files() {
        return Ok(OutputAt::File(bag.files(index)?.0));
    }
    let object = lines.outcome(index).and_then(object_of);
    let (bucket, name) = object.context("a result without its object")?;
    Ok(OutputAt::Object { bucket: bucket.to_owned(), name: name.to_owned() })
}
