//! What is compared. A new peer is a file in `bench/peers` and a line here.

use anyhow::{Result, bail};

use crate::cli::Kind;

/// How a system is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In this program.
    Limit(Kind),
    /// `bagpress run`.
    Bagpress { results: &'static str, delivery: &'static str },
    /// A program of `bench/peers`.
    Peer(PeerKind),
}

/// How to call a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerKind {
    /// Its file in `bench/peers`.
    pub(crate) file: &'static str,
    /// Whether it compresses files, which are there before it starts, instead of generating its input.
    pub(crate) reads_files: bool,
}

/// One row of the comparison.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
}

/// In the order of the table.
pub(crate) const SYSTEMS: &[System] = &[
    System { name: "codec-limit", way: Way::Limit(Kind::CodecLimit) },
    System { name: "limit", way: Way::Limit(Kind::Limit) },
    ours("staged", "staged", "jetstream"),
    ours("objects", "objects", "jetstream"),
    ours("staged-queue-group", "staged", "queue-group"),
    ours("objects-queue-group", "objects", "queue-group"),
    peer("pool", "pool.sh"),
    peer("xargs", "xargs.sh"),
    peer("work_queue", "work_queue.sh"),
    peer("ray", "ray_bag.py"),
    reads_files("pigz", "pigz.sh"),
    reads_files("zstd", "zstd.sh"),
];

const fn ours(name: &'static str, results: &'static str, delivery: &'static str) -> System {
    System { name, way: Way::Bagpress { results, delivery } }
}

const fn peer(name: &'static str, file: &'static str) -> System {
    System { name, way: Way::Peer(PeerKind { file, reads_files: false }) }
}

const fn reads_files(name: &'static str, file: &'static str) -> System {
    System { name, way: Way::Peer(PeerKind { file, reads_files: true }) }
}

/// The systems of these names, in the order of the table; of none, all.
///
/// # Errors
///
/// A name that no system has.
pub(crate) fn named(names: &[String]) -> Result<Vec<&'static System>> {
    if let Some(unknown) = names.iter().find(|name| SYSTEMS.iter().all(|s| s.name != **name)) {
        let known: Vec<_> = SYSTEMS.iter().map(|system| system.name).collect();
        bail!("no system is named {unknown:?}; there are {}", known.join(", "));
    }
    let wanted = |system: &&System| names.is_empty() || names.iter().any(|n| n == system.name);
    Ok(SYSTEMS.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_named_once_and_chosen_in_the_order_of_the_table() {
        let names: Vec<_> = named(&[]).unwrap().iter().map(|system| system.name).collect();
        let unique: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!((names.len(), unique.len()), (SYSTEMS.len(), SYSTEMS.len()));
        let chosen = named(&["ray".to_owned(), "limit".to_owned()]).unwrap();
        assert_eq!(chosen.iter().map(|system| system.name).collect::<Vec<_>>(), ["limit", "ray"]);
        let error = named(&["rey".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("\"rey\"") && error.contains("work_queue, ray"), "{error}");
    }
}
