//! With every clause of the design in place nothing breaks, in any configuration.

#![expect(clippy::print_stderr, reason = "states explored are what one wants to see")]

use bagpress_model::{BLOCKS, Config, Delivery, PACKS, Path, SMALL, explore};

/// Explores every configuration of one task that `wanted` names, and prints what that came to.
fn holds(wanted: impl Fn(&Config) -> bool) {
    all_hold(SMALL.iter().filter(|config| wanted(config)));
}

fn all_hold<'a>(configs: impl Iterator<Item = &'a Config>) {
    for config in configs {
        let report = explore(config);
        eprintln!(
            "{:>8} states, {:>8} steps, {:>3} deep, {:>5} ms: {}",
            report.states,
            report.steps,
            report.depth,
            report.took.as_millis(),
            config.name
        );
        if let Some(violation) = report.violation {
            panic!("{}: {violation}", config.name);
        }
        assert_eq!(report.cut, 0, "{}: rounds beyond the bound", config.name);
        assert!(report.states > 1_000, "{}: explores next to nothing", config.name);
    }
}

#[test]
fn every_staged_task_gets_one_outcome_and_no_bag_is_stuck() {
    holds(|config| config.delivery == Delivery::JetStream && config.path == Path::Staged);
}

#[test]
fn every_object_gets_one_outcome_and_no_bag_is_stuck() {
    holds(|config| config.delivery == Delivery::JetStream && config.path == Path::Objects);
}

#[test]
fn every_offered_task_gets_one_outcome_and_no_bag_is_stuck() {
    holds(|config| config.delivery == Delivery::QueueGroup);
}

#[test]
fn every_file_of_a_pack_gets_one_outcome_and_no_bag_is_stuck() {
    all_hold(PACKS.iter());
}

#[test]
fn every_file_of_two_blocks_gets_one_whole_output_and_no_bag_is_stuck() {
    all_hold(BLOCKS.iter());
}

/// `make model`: with optimization for two minutes, and with some gigabytes.
#[test]
#[ignore = "takes minutes and gigabytes: make model"]
fn with_one_crash_more_nothing_breaks_either() {
    for config in SMALL {
        let mut larger = *config;
        larger.faults.worker_crashes += 1;
        let report = explore(&larger);
        eprintln!("{:>8} states, {} ms: {}", report.states, report.took.as_millis(), larger.name);
        if let Some(violation) = report.violation {
            panic!("{}: {violation}", larger.name);
        }
    }
}
