//! Everything that the fuzzers start from and have found, read by the same functions without them.

use std::fs;
use std::path::Path;

use bagpress_broker::read_back::{descriptor, result};
use bagpress_objstore::read_back::{object_meta, staging_messages};
use bagpress_producer::read_back::manifest_line;

/// Reads every file of a target's corpus; returns how many were accepted, and how many were not.
fn read_all(target: &str, accepts: impl Fn(&[u8]) -> bool) -> (usize, usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let (mut accepted, mut refused) = (0, 0);
    for file in files {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let accepts = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| accepts(&bytes)));
        if accepts.unwrap_or_else(|_| panic!("{}: see above", path.display())) {
            accepted += 1;
        } else {
            refused += 1;
        }
    }
    (accepted, refused)
}

/// A corpus that nothing of is accepted, or everything, tests one side only.
fn expect_both_sides((accepted, refused): (usize, usize)) {
    assert!(accepted >= 3 && refused >= 1, "{accepted} accepted, {refused} refused");
}

#[test]
fn every_descriptor_of_the_corpus_is_refused_or_reads_back_within_its_bounds() {
    expect_both_sides(read_all("descriptor", descriptor));
}

#[test]
fn every_result_of_the_corpus_is_refused_or_reads_back_within_its_bounds() {
    expect_both_sides(read_all("result", result));
}

#[test]
fn every_ledger_line_of_the_corpus_is_refused_or_reads_back_and_no_flip_is_believed() {
    expect_both_sides(read_all("manifest_line", manifest_line));
}

#[test]
fn every_staging_message_of_the_corpus_is_refused_or_reads_back() {
    expect_both_sides(read_all("staging_messages", |bytes| staging_messages(bytes) > 0));
}

#[test]
fn every_object_metadata_of_the_corpus_is_refused_or_is_an_object_by_one_token() {
    expect_both_sides(read_all("object_meta", object_meta));
}
