//! What Bagpress promises its users: the real program, real servers, real deaths.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test may fail the test, and says why"
)]

mod absent;
mod again;
mod another_user;
mod auto;
mod bad_input;
mod bad_server;
mod blocks;
mod blocks_room;
mod blocks_status;
mod blocks_unprivileged;
mod both_paths;
mod broker_faults;
mod cancel;
mod contents;
mod control;
mod corpus;
mod death;
mod documents;
mod dry_run;
mod everything;
mod failures;
mod files;
mod flags;
mod foreign_broker;
mod forgotten;
mod full;
mod gatherers;
mod gone;
mod granted;
mod half_begun;
mod harness;
mod help;
mod hostile_line;
mod hostile_words;
mod hostile_worker;
mod junk;
mod keys;
mod late;
mod ledger;
mod lineage;
mod lineage_drawn;
mod lineage_tars;
mod lineage_waits;
mod listed;
mod memory;
mod moved;
mod names;
mod objects;
mod objects_gone;
mod objects_kept;
mod offered;
mod order;
mod own_server;
mod packs;
mod packs_of_objects;
mod planted;
mod process;
mod progress;
mod protected;
mod proxy;
mod queue_group;
mod range;
mod references;
mod remove;
mod remove_source;
mod repair;
mod replaced;
mod restore;
mod restore_bag;
mod restore_packed;
mod restore_packs;
mod restore_refused;
mod results;
mod roles;
mod roles_keys;
mod roles_refused;
mod secrets;
mod selection;
mod shared_out;
mod slow_disk;
mod small_disk;
mod starting;
mod status;
mod status_of_file;
mod strangers;
mod taken;
mod tree;
mod troubles;
mod twins;
mod twins_objects;
mod unprivileged;
mod vanished;
mod width;
#[cfg(feature = "zfp")]
mod zfp;
#[cfg(feature = "zfp")]
mod zfp_range;
mod zstd;
