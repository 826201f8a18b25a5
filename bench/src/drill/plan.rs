//! Which faults hit which bags: drawn from the seed alone, never from a clock.

use bagpress_broker::descriptor::{DeliveryPath, ResultPath};
use bagpress_codec::{Codec, DataKind, Digest};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;

/// One thing that goes wrong. Targets count modulo what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Fault {
    /// SIGKILL of a worker, which is started again after a while.
    WorkerKill { worker: u32, again_ms: u32 },
    /// SIGSTOP of a worker, SIGCONT after a while: sometimes longer than its lease.
    WorkerStop { worker: u32, ms: u32 },
    /// SIGTERM of a worker.
    WorkerDrain { worker: u32, again_ms: u32 },
    /// SIGKILL of a bag's gatherer; `gather` goes on after a while.
    ProducerKill { lane: u32, again_ms: u32 },
    /// SIGSTOP of a bag's gatherer.
    ProducerStop { lane: u32, ms: u32 },
    /// SIGKILL of the server, which is started again on its store.
    ServerKill { down_ms: u32 },
    /// SIGSTOP of the server.
    ServerStop { ms: u32 },
    /// Somebody fills the run folder's disk up to a few bytes, and goes away.
    DiskFull { left_bytes: u32, ms: u32 },
    /// A bit of a finished output flips, in its file or in its object's chunk.
    OutputFlip { lane: u32, nth: u32, bit: u32 },
    /// A finished output, or a chunk of its object, is gone.
    OutputLoss { lane: u32, nth: u32 },
    /// A bit of the ledger flips.
    LedgerFlip { lane: u32, bit: u32 },
    /// Every connection of a worker or a gatherer is cut.
    ConnectionDrop { client: u32 },
    /// All that a worker or a gatherer sends and receives is late for a while.
    ConnectionDelay { client: u32, delay_ms: u32, ms: u32 },
}

impl Fault {
    /// The kind, for the verdict.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::WorkerKill { .. } => "worker-kill",
            Self::WorkerStop { .. } => "worker-stop",
            Self::WorkerDrain { .. } => "worker-drain",
            Self::ProducerKill { .. } => "producer-kill",
            Self::ProducerStop { .. } => "producer-stop",
            Self::ServerKill { .. } => "server-kill",
            Self::ServerStop { .. } => "server-stop",
            Self::DiskFull { .. } => "disk-full",
            Self::OutputFlip { .. } => "output-flip",
            Self::OutputLoss { .. } => "output-loss",
            Self::LedgerFlip { .. } => "ledger-flip",
            Self::ConnectionDrop { .. } => "connection-drop",
            Self::ConnectionDelay { .. } => "connection-delay",
        }
    }
}

/// A fault, and how long after the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) number: u32,
    pub(super) gap_ms: u32,
    #[serde(flatten)]
    pub(super) fault: Fault,
}

/// Where a bag's inputs come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Inputs {
    Generated {
        data: DataKind,
        seed: u64,
        tasks: u32,
        bytes: u64,
    },
    /// A tree of real files, made from this seed.
    Files {
        seed: u64,
        files: u32,
        /// Most files that are delivered together.
        pack: u32,
        /// Further files, each of several blocks.
        large: u32,
    },
}

/// Bytes of a block, where files are cut.
pub(super) const BLOCK_BYTES: u64 = 1 << 20;

/// What is damaged of a chain. Bags and outputs count modulo what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Damage {
    /// A bit of a chunk flips.
    ObjectFlip { bag: u32, output: u32, bit: u32 },
    /// A chunk is gone.
    ObjectLoss { bag: u32, output: u32 },
}

/// Bags that follow, and what is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Chain {
    /// How many outputs of the first bag the second one reads.
    pub(super) outputs: u32,
    pub(super) damages: Vec<Damage>,
}

/// One bag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Shape {
    pub(super) number: u32,
    pub(super) results: ResultPath,
    pub(super) delivery: DeliveryPath,
    pub(super) codec: Codec,
    /// Whether outputs of an objects bag are fetched into files.
    pub(super) fetched: bool,
    /// Whether bytes must travel through the server.
    pub(super) wire: bool,
    pub(super) inputs: Inputs,
    /// What follows it, if its outputs stay objects and are made again from a seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chain: Option<Chain>,
}

impl Shape {
    pub(super) fn tasks(&self) -> u32 {
        match self.inputs {
            Inputs::Generated { tasks, .. } => tasks,
            Inputs::Files { files, large, .. } => files + large,
        }
    }

    /// Whether its large files are cut into blocks.
    pub(super) fn has_blocks(&self) -> bool {
        matches!(self.inputs, Inputs::Files { large: 1.., .. })
    }

    /// Whether its outputs become files.
    pub(super) fn has_files(&self) -> bool {
        self.results == ResultPath::Staged || self.fetched
    }

    pub(super) fn name(&self) -> String {
        format!("bag-{}", self.number)
    }
}

/// Numbers from a seed; each use has a stream of its own.
#[derive(Debug)]
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    pub(super) fn new(seed: u64, what: &str) -> Self {
        let key = Digest::of(format!("bagpress-drill/1/{what}/{seed}").as_bytes());
        Self(ChaCha8Rng::from_seed(*key.bytes()))
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0, below `end`.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        // The bias of the remainder is far below what a drill could tell.
        u32::try_from(self.0.next_u64() % u64::from(end.max(1))).unwrap_or(0)
    }

    pub(super) fn between(&mut self, from: u32, to: u32) -> u32 {
        from + self.below(to - from + 1)
    }

    pub(super) fn one_in(&mut self, of: u32) -> bool {
        self.below(of) == 0
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(u32::try_from(of.len()).unwrap_or(u32::MAX)) as usize]
    }
}

/// The faults, without end.
#[derive(Debug)]
pub(super) struct Faults {
    dice: Dice,
    number: u32,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed, "faults"), number: 0 }
    }
}

impl Iterator for Faults {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let dice = &mut self.dice;
        // Now and then several at once.
        let gap_ms = if dice.one_in(5) { 0 } else { dice.between(150, 1300) };
        let (worker, lane, client) = (dice.below(1024), dice.below(1024), dice.below(1024));
        let fault = match dice.below(100) {
            0..18 => Fault::WorkerKill { worker, again_ms: dice.between(0, 400) },
            18..27 => Fault::WorkerStop { worker, ms: dice.between(200, 2_500) },
            27..29 => Fault::WorkerStop { worker, ms: dice.between(10_500, 13_000) },
            29..34 => Fault::WorkerDrain { worker, again_ms: dice.between(0, 400) },
            34..42 => Fault::ProducerKill { lane, again_ms: dice.between(0, 1_500) },
            42..47 => Fault::ProducerStop { lane, ms: dice.between(200, 3_000) },
            47..52 => Fault::ServerKill { down_ms: dice.between(0, 1_000) },
            52..56 => Fault::ServerStop { ms: dice.between(200, 2_000) },
            56..61 => Fault::DiskFull {
                left_bytes: dice.pick(&[0, 4_096, 1 << 20, 12 << 20]),
                ms: dice.between(300, 2_500),
            },
            61..69 => {
                Fault::OutputFlip { lane, nth: dice.below(1 << 20), bit: dice.below(1 << 30) }
            }
            69..73 => Fault::OutputLoss { lane, nth: dice.below(1 << 20) },
            73..79 => Fault::LedgerFlip { lane, bit: dice.below(1 << 30) },
            79..92 => Fault::ConnectionDrop { client },
            _ => Fault::ConnectionDelay {
                client,
                delay_ms: dice.between(5, 120),
                ms: dice.between(500, 3_000),
            },
        };
        self.number += 1;
        Some(Step { number: self.number, gap_ms, fault })
    }
}

impl Chain {
    fn draw(dice: &mut Dice) -> Self {
        let outputs = dice.between(4, 12);
        let damages = (0..dice.between(4, 3 * outputs)).map(|_| {
            let (bag, output) = (dice.below(1024), dice.below(1024));
            if dice.one_in(2) {
                Damage::ObjectLoss { bag, output }
            } else {
                Damage::ObjectFlip { bag, output, bit: dice.below(1 << 30) }
            }
        });
        Self { outputs, damages: damages.collect() }
    }
}

/// The bags, without end.
#[derive(Debug)]
pub(super) struct Bags {
    dice: Dice,
    /// Their own, so that the bags are those of earlier drills.
    chains: Dice,
    number: u32,
    deliveries: Vec<DeliveryPath>,
}

impl Bags {
    pub(super) fn new(seed: u64, deliveries: &[DeliveryPath]) -> Self {
        let (dice, chains) = (Dice::new(seed, "bags"), Dice::new(seed, "chains"));
        Self { dice, chains, number: 0, deliveries: deliveries.to_vec() }
    }
}

impl Iterator for Bags {
    type Item = Shape;

    fn next(&mut self) -> Option<Shape> {
        let dice = &mut self.dice;
        let seed = dice.number();
        let codec = dice.pick(&[
            "zlib:6",
            "zlib:6,full",
            "zlib:9",
            "zlib:1",
            "gzip:6",
            "gzip:9,full",
            "store",
        ]);
        // Both paths and all deliveries in turn, so that a short drill has each; and blocks by each delivery.
        let turn = self.number;
        let blocks = matches!(turn % 8, 0 | 2);
        let inputs = if dice.one_in(3) || blocks {
            // Large files have as many bytes as the small ones that they replace.
            let (files, large) = if blocks { ((20, 50), (2, 4)) } else { ((60, 150), (0, 0)) };
            Inputs::Files {
                seed,
                files: dice.between(files.0, files.1),
                pack: dice.pick(&[1, 2, 5, 16, 64]),
                large: dice.between(large.0, large.1),
            }
        } else {
            let data = dice.pick(&[DataKind::Random, DataKind::Text, DataKind::Text]);
            let data = if dice.one_in(8) { DataKind::Zeros } else { data };
            let bytes = dice.pick(&[1_u32, 5_000, 300_000, 700_000, 700_000, 1_200_000]);
            let tasks =
                if bytes < 10_000 { dice.between(500, 3_000) } else { dice.between(50, 120) };
            Inputs::Generated { data, seed, tasks, bytes: u64::from(bytes) }
        };
        self.number += 1;
        let results = if turn.is_multiple_of(2) { ResultPath::Staged } else { ResultPath::Objects };
        let delivery = self.deliveries[(turn as usize / 2) % self.deliveries.len()];
        let fetched = dice.one_in(3) && results == ResultPath::Objects;
        let stays = results == ResultPath::Objects && !fetched;
        let is_made = matches!(inputs, Inputs::Generated { .. });
        Some(Shape {
            number: self.number,
            results,
            delivery,
            codec: codec.parse().ok()?,
            fetched,
            // One of the two with blocks by path, the other over the wire, and the next time the other way round.
            wire: if blocks { (turn / 8 + turn / 2).is_multiple_of(2) } else { dice.one_in(2) },
            inputs,
            chain: (stays && is_made).then(|| Chain::draw(&mut self.chains)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const BOTH: [DeliveryPath; 2] = [DeliveryPath::Jetstream, DeliveryPath::QueueGroup];

    #[test]
    fn the_same_seed_gives_the_same_faults_and_bags() {
        let plan = |seed| {
            let faults: Vec<_> = Faults::new(seed).take(1_000).collect();
            let bags: Vec<_> = Bags::new(seed, &BOTH).take(100).collect();
            (faults, bags)
        };
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        // A longer drill begins as a shorter one does.
        assert_eq!(plan(7).0[..10], Faults::new(7).take(10).collect::<Vec<_>>());
    }

    #[test]
    fn the_plan_of_a_seed_is_pinned() {
        let lines: Vec<_> =
            Faults::new(7).take(3).map(|step| serde_json::to_string(&step).unwrap()).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"number":1,"gap_ms":879,"kind":"worker-kill","worker":330,"again_ms":207}
        {"number":2,"gap_ms":881,"kind":"worker-kill","worker":698,"again_ms":204}
        {"number":3,"gap_ms":0,"kind":"connection-drop","client":904}
        "#);
    }

    #[test]
    fn a_hundred_faults_have_every_kind_and_four_bags_every_way() {
        let kinds: BTreeSet<_> = Faults::new(7).take(100).map(|step| step.fault.kind()).collect();
        assert_eq!(kinds.len(), 13, "{kinds:?}");
        let ways = Bags::new(7, &BOTH).take(4).map(|b| (b.results.as_str(), b.delivery.as_str()));
        assert_eq!(ways.collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn sixteen_bags_have_chains_with_every_damage() {
        let chains = Bags::new(7, &BOTH).take(16).filter_map(|shape| shape.chain);
        let damages: Vec<_> = chains.flat_map(|chain| chain.damages).collect();
        let text = serde_json::to_string(&damages).unwrap();
        assert!(text.contains("object-flip") && text.contains("object-loss"), "{text}");
    }

    #[test]
    fn sixteen_bags_have_blocks_by_each_delivery_by_path_and_over_the_wire() {
        for deliveries in [&BOTH[..], &BOTH[..1]] {
            let bags = Bags::new(7, deliveries).take(16).filter(Shape::has_blocks);
            let cut: Vec<_> = bags.inspect(|b| assert_eq!(b.results, ResultPath::Staged)).collect();
            let ways: BTreeSet<_> = cut.iter().map(|b| (b.delivery.as_str(), b.wire)).collect();
            assert_eq!((cut.len(), ways.len()), (4, 2 * deliveries.len()));
        }
    }
}
