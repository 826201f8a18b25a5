//! The line of a bag in KV `bags`, as its run folder has it.

use bagpress_broker::result::wall_clock_us;
use bagpress_broker::{BagLine, BagState, limits};

use crate::run_folder::ledger::tally::Tally;
use crate::run_folder::plan::BagPlan;
use crate::run_folder::specification::Specification;

/// What specification and ledger say of a bag.
pub(crate) fn line(specification: &Specification, tally: &Tally, bytes_per_s: u64) -> BagLine {
    let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    BagLine {
        v: limits::WIRE_VERSION,
        bag: specification.bag.clone(),
        state: BagState::Running,
        pool: specification.pool.clone(),
        results: specification.results,
        codec: specification.work(),
        library: specification.library.clone(),
        tasks: specification.tasks,
        done: count(tally.done),
        failed: count(tally.failed),
        retried: tally.retried,
        workers_lost: 0,
        input_bytes: tally.input_bytes,
        output_bytes: tally.output_bytes,
        block_bytes: tally.block_bytes,
        total_bytes: specification.input_bytes,
        progress_bytes: 0,
        bytes_per_s,
        eta_s: None,
        waits: None,
        gatherer: None,
        rounds: 0,
        ttl_s: specification.ttl_s,
        tree: None,
        updated_us: wall_clock_us(),
    }
}

/// The line of a bag, as its plan has it.
pub(crate) fn line_of(plan: &BagPlan, bytes_per_s: u64) -> BagLine {
    let rounds = plan.ledger.highest_round();
    let line = plan.ledger.tally(|tally| line(&plan.specification, tally, bytes_per_s));
    BagLine { rounds, ..line }
}

/// The line of a bag that is about to be published.
pub(crate) fn begun_line(plan: &BagPlan) -> BagLine {
    BagLine { state: BagState::Submitting, ..line_of(plan, 0) }
}
