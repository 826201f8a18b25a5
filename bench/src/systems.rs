//! What is compared. A new peer is a file in `bench/peers` and a line here.

use anyhow::{Result, bail};
use bagpress_codec::Codec;

use crate::cli::Kind;
use crate::payload::{Format, Payload};

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
    /// What it compresses with.
    pub(crate) formats: &'static [Format],
    /// Whether it compresses outputs once more, by reference.
    pub(crate) chains: bool,
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
    System {
        name: "ray",
        way: Way::Peer(PeerKind {
            file: "ray_bag.py",
            reads_files: false,
            formats: Format::ALL,
            chains: true,
        }),
    },
    reads_files("pigz", "pigz.sh", &[Format::Deflate]),
    // Beside deflate at its default level.
    reads_files("zstd", "zstd.sh", &[Format::Deflate, Format::Zstd]),
    reads_files("xargs-zstd", "xargs_zstd.sh", &[Format::Zstd]),
    reads_files("xargs-zfp", "xargs_zfp.sh", &[Format::Zfp]),
];

const fn ours(name: &'static str, results: &'static str, delivery: &'static str) -> System {
    System { name, way: Way::Bagpress { results, delivery } }
}

const fn peer(name: &'static str, file: &'static str) -> System {
    let kind = PeerKind { file, reads_files: false, formats: Format::ALL, chains: false };
    System { name, way: Way::Peer(kind) }
}

const fn reads_files(name: &'static str, file: &'static str, formats: &'static [Format]) -> System {
    let kind = PeerKind { file, reads_files: true, formats, chains: false };
    System { name, way: Way::Peer(kind) }
}

impl System {
    /// Whether it can run a bag with this codec, and compress the outputs once more with another one.
    ///
    /// # Errors
    ///
    /// Why it has no such row.
    pub(crate) fn check(&self, codec: &Codec, then: Option<&Codec>) -> Result<()> {
        let chains = match self.way {
            Way::Limit(_) => false,
            Way::Bagpress { results, .. } => results == "objects",
            Way::Peer(kind) => kind.chains,
        };
        if then.is_some() && !chains {
            bail!("it compresses no outputs once more by reference");
        }
        let Way::Peer(kind) = self.way else { return Ok(()) };
        for codec in [Some(codec), then].into_iter().flatten() {
            let format = Payload::of(codec)?.format;
            if !kind.formats.contains(&format) {
                bail!("it does not compress with {}", format.name());
            }
        }
        Ok(())
    }
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

    #[test]
    fn a_system_has_no_row_for_a_codec_that_it_has_not() {
        let rows = |codec: &str, then: Option<&str>| -> String {
            let codec = codec.parse().unwrap();
            let then = then.map(|then| then.parse().unwrap());
            let can = |system: &&System| system.check(&codec, then.as_ref()).is_ok();
            SYSTEMS.iter().skip(2).filter(can).map(|s| s.name).collect::<Vec<_>>().join(" ")
        };
        let ours = "staged objects staged-queue-group objects-queue-group";
        let ever = format!("{ours} pool xargs work_queue ray");
        assert_eq!(rows("zlib:6", None), format!("{ever} pigz zstd"));
        assert_eq!(rows("zstd:3", None), format!("{ever} zstd xargs-zstd"));
        assert_eq!(rows("store", None), ours);
        assert_eq!(rows("zlib:6", Some("zstd:3")), "objects objects-queue-group ray");
        assert_eq!(rows("zlib:6", Some("store")), "objects objects-queue-group");
    }

    #[test]
    #[cfg(feature = "zfp")]
    fn arrays_are_compressed_by_those_that_have_zfp() {
        let codec = "zfp:reversible,f32,8".parse().unwrap();
        let can = |system: &&System| {
            matches!(system.way, Way::Peer(_)) && system.check(&codec, None).is_ok()
        };
        let rows: Vec<_> = SYSTEMS.iter().filter(can).map(|system| system.name).collect();
        assert_eq!(rows, ["pool", "xargs", "work_queue", "ray", "xargs-zfp"]);
    }
}
