//! Each clause of the design is there for something: taken out, the model finds what goes wrong.

#![expect(clippy::print_stderr, reason = "the shortest way to what breaks is worth a look")]

use bagpress_model::{Clause, explore, named};

const BYTES: &str = "its bytes are not under their name";
const STUCK: &str = "the bag can never end";
const FAILED: &str = "counted failed that had an attempt left";
const STRANGER: &str = "somebody else's file is moved";
const BLOCK: &str = "neither in its part file nor durably in a joined one";
const OTHER: &str = "another outcome is counted than was committed";

/// Asserts that `config` breaks without `clause`, and prints the shortest way there.
#[track_caller]
fn breaks(clause: Clause, config: &str, how: &str) {
    let report = explore(&named(config).without(clause));
    let violation = report.violation.unwrap_or_else(|| panic!("nothing breaks without {clause:?}"));
    eprintln!("without {clause:?}: {violation}");
    assert!(violation.what.contains(how), "{violation}");
}

#[test]
fn a_loser_that_deletes_the_object_deletes_the_winners() {
    let config = "objects: a bucket with room for one output, crashes, reads that lag";
    breaks(Clause::LoserDeletesNothing, config, BYTES);
}

#[test]
fn have_it_without_a_round_takes_the_new_round_away() {
    breaks(Clause::HaveItByRound, "staged: a task that kills every worker", STUCK);
}

#[test]
fn an_object_adopted_unchecked_counts_with_other_bytes() {
    breaks(Clause::AdoptionChecked, "objects: flips, crashes, early redelivery", BYTES);
}

#[test]
fn other_bytes_that_are_replaced_may_be_those_that_count() {
    let config = "objects: crashes, early redelivery, lost answers, unequal digests";
    breaks(Clause::OthersStay, config, BYTES);
}

#[test]
fn a_round_half_begun_is_finished_by_nobody_else() {
    breaks(Clause::BegunRoundFinished, "objects: a task that kills every worker", STUCK);
}

#[test]
fn a_new_round_is_refused_while_the_old_message_waits() {
    breaks(Clause::SubjectByRound, "objects: flips, unequal digests, repair", STUCK);
}

#[test]
fn a_task_that_kills_every_worker_is_executed_for_ever() {
    for config in [
        "staged: a task that kills every worker",
        "objects: a task that kills every worker",
        "queue group, staged: a task that kills every worker",
    ] {
        breaks(Clause::CrashLimit, config, STUCK);
    }
}

#[test]
fn an_ack_before_the_commit_loses_the_task() {
    breaks(Clause::CommitBeforeAck, "staged: crashes, early redelivery, full disk", STUCK);
}

#[test]
fn a_rename_before_the_commit_replaces_the_winners_file() {
    let config = "staged, transfer auto: crashes, early redelivery, unequal digests";
    breaks(Clause::CommitBeforeRename, config, BYTES);
}

#[test]
fn a_replica_that_lags_is_no_reason_to_delete() {
    let config = "objects: a bucket with room for one output, crashes, reads that lag";
    breaks(Clause::LeaderBeforeDelete, config, BYTES);
}

#[test]
fn a_taken_final_name_that_is_not_hashed_counts_with_other_bytes() {
    let config = "queue group, staged: flips, repair, another folder";
    breaks(Clause::TakenNameHashed, config, BYTES);
}

#[test]
fn a_message_id_keeps_a_forgotten_task_away() {
    breaks(Clause::ResubmitWithoutId, "staged: a broker that forgets, gatherer restarted", STUCK);
}

#[test]
fn a_full_bucket_that_nobody_sweeps_stays_full() {
    let config = "objects: a bucket with room for one output, crashes, reads that lag";
    breaks(Clause::FullBucketSwept, config, STUCK);
}

#[test]
fn a_worker_before_a_full_bucket_must_look_for_the_object() {
    let config = "objects: a bucket with room for one output, crashes, reads that lag";
    breaks(Clause::FullLooksForObject, config, STUCK);
}

#[test]
fn a_result_in_the_place_of_a_forgotten_one_is_read() {
    let config = "staged: gathered into another folder, a broker that forgets";
    breaks(Clause::ResultsFromFirst, config, STUCK);
}

#[test]
fn a_result_of_a_round_begun_in_another_folder_is_taken() {
    let config = "staged: repaired, then gathered into another folder";
    breaks(Clause::UnknownRoundTaken, config, STUCK);
}

#[test]
fn an_object_that_nobody_looked_at_may_be_gone() {
    let config = "objects: a broker that forgets, crashes, unequal digests";
    breaks(Clause::ObjectChecked, config, BYTES);
}

#[test]
fn a_part_file_written_after_close_is_the_counted_output() {
    let config = "staged, transfer auto: crashes, early redelivery, unequal digests";
    breaks(Clause::NoWriteAfterClose, config, BYTES);
}

#[test]
fn bytes_removed_before_their_round_begins_are_counted_and_gone() {
    breaks(Clause::BeginBeforeRemove, "objects: flips, unequal digests, repair", BYTES);
}

#[test]
fn a_planned_give_back_must_not_spend_an_attempt() {
    let config = "staged: crashes, early redelivery, full disk";
    breaks(Clause::PlannedSpendsNothing, config, FAILED);
}

#[test]
fn metadata_written_over_takes_the_counted_object_away() {
    let config = "objects: crashes, early redelivery, lost answers, unequal digests";
    breaks(Clause::MetadataCreateOnly, config, BYTES);
}

#[test]
fn a_result_written_over_is_another_than_was_counted() {
    let config = "staged, transfer auto: crashes, early redelivery, unequal digests";
    breaks(Clause::CommitByCompare, config, OTHER);
}

#[test]
fn a_broken_object_of_an_old_round_must_make_room() {
    let config = "objects: a bucket with room for one output, repair half begun";
    breaks(Clause::FinishedRoundRemoves, config, STUCK);
}

#[test]
fn a_file_that_the_ledger_never_named_may_be_somebody_elses() {
    for config in [
        "staged: somebody's file under the final name, crashes, early redelivery",
        "queue group, staged: somebody's file under the final name, crashes, early lease end",
    ] {
        breaks(Clause::OnlyNamedMovesAside, config, STRANGER);
    }
}

#[test]
fn part_files_removed_before_the_line_fail_attempts_that_the_task_still_needs() {
    for config in [
        "queue group, staged: crashes, early lease end, full disk, unequal digests",
        "queue group, staged: somebody's file under the final name, crashes, early lease end",
    ] {
        breaks(Clause::SweepAfterLine, config, FAILED);
    }
}

#[test]
fn files_that_a_pack_leaves_open_are_run_by_nobody_else() {
    for config in [
        "pack: gatherer killed, early redelivery",
        "queue group, pack: gatherer killed, early lease end",
    ] {
        breaks(Clause::OpenOfPackBegun, config, STUCK);
    }
}

#[test]
fn a_decided_first_file_must_not_keep_the_others_of_its_pack_from_being_delivered() {
    for config in [
        "pack: a broker that forgets, gatherer killed",
        "queue group, pack: gatherer killed, early lease end",
    ] {
        breaks(Clause::RestOfPackDelivered, config, STUCK);
    }
}

#[test]
fn have_it_for_one_file_of_a_pack_takes_the_others_away() {
    let config = "pack: a broker that forgets, gatherer killed";
    breaks(Clause::HaveItOfWholePack, config, STUCK);
}

#[test]
fn a_result_of_a_pack_written_over_is_another_than_was_counted() {
    breaks(Clause::CommitByCompare, "pack: gatherer killed, early redelivery", OTHER);
}

#[test]
fn a_tar_that_takes_the_name_of_one_that_counts_takes_its_bytes() {
    for config in [
        "pack of objects: a broker that forgets, gatherer killed",
        "queue group, pack of objects: gatherer killed, early lease end",
    ] {
        breaks(Clause::TarNamedBeforeAnyCounts, config, BYTES);
    }
}

#[test]
fn blocks_removed_before_the_note_has_them_are_nowhere() {
    for config in [
        "blocks: workers and gatherer killed",
        "queue group, blocks: part files lost, gatherer killed",
    ] {
        breaks(Clause::NotedBeforeRemoved, config, BLOCK);
    }
}

#[test]
fn blocks_removed_before_the_sync_do_not_outlive_a_power_cut() {
    breaks(Clause::SyncedBeforeRemoved, "blocks: workers and gatherer killed", BLOCK);
}

#[test]
fn a_join_that_goes_on_behind_its_note_has_a_block_twice() {
    breaks(Clause::CutToNote, "blocks: workers and gatherer killed", BLOCK);
}

#[test]
fn a_file_that_is_joined_again_while_it_is_accepted_is_cut_under_its_name() {
    for config in [
        "blocks: gatherer killed, early redelivery",
        "queue group, blocks: part files lost, gatherer killed",
    ] {
        breaks(Clause::GivenLeftAlone, config, BYTES);
    }
}

#[test]
fn a_block_whose_bytes_are_gone_is_made_by_nobody_else() {
    breaks(Clause::LostBlockRunsAgain, "blocks: part files lost, gatherer killed", STUCK);
}

#[test]
fn a_file_waits_for_ever_for_a_block_that_failed() {
    let config = "blocks: a block that fails, the file retried, gatherer killed";
    breaks(Clause::FailedBlockFails, config, STUCK);
}
