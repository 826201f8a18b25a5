//! Breadth first through all states, then backwards from all that are ended.

use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use crate::broken::Broken;
use crate::trace::{Step, Violation};

/// What is explored.
pub(crate) trait System {
    /// Everything, in its canonical form.
    type State: Copy + Eq + Hash;

    /// A fresh bag.
    fn first(&self) -> Self::State;

    /// Every step that anybody can make.
    fn steps(&self, from: &Self::State) -> Vec<(Step, Self::State)>;

    /// What stands of a state.
    fn stands(&self, state: &Self::State) -> Stands;
}

/// How a state stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
    /// The bag goes on.
    UnderWay,
    /// The bag has ended.
    Ended,
    /// A round beyond the bound would have begun.
    Cut,
    /// A property does not hold.
    Broken(Broken),
}

/// What an exploration found.
#[derive(Debug, Clone)]
pub struct Report {
    /// States that were visited.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// Steps of the longest of the shortest ways.
    pub depth: usize,
    /// States beyond which a round past the bound would have begun; nothing is known of those.
    pub cut: usize,
    /// How long it took.
    pub took: Duration,
    /// The first thing wrong, by the number of steps; otherwise everything holds.
    pub violation: Option<Violation>,
}

/// Visits every state that `system` can reach.
pub(crate) fn search<S: System>(system: &S) -> Report {
    let began = Instant::now();
    let mut graph = Graph::new(system.first());
    let mut cut = 0;
    let mut wrong = None;
    let mut next = 0;
    while next < graph.states.len() && wrong.is_none() {
        let from = graph.states[next];
        let stands = system.stands(&from);
        if stands != Stands::UnderWay {
            graph.ended.push(next);
        }
        if stands == Stands::Cut {
            cut += 1;
        } else {
            for (_, to) in system.steps(&from) {
                let at = graph.visit(to, next);
                graph.edges.push((index(next), index(at)));
                if let (Stands::Broken(broken), None) = (system.stands(&to), &wrong) {
                    wrong = Some((at, broken));
                }
            }
        }
        next += 1;
        if next % 200_000 == 0 {}
    }
    let wrong = wrong.or_else(|| graph.first_stuck().map(|at| (at, Broken::Stuck)));
    Report {
        states: graph.states.len(),
        steps: graph.edges.len(),
        depth: graph.way(graph.states.len() - 1).len(),
        cut,
        violation: wrong.map(|(at, broken)| Violation::new(broken, &graph.trace(system, at))),
        took: began.elapsed(),
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// States, who was before each, and where to find one.
struct Graph<S> {
    states: Vec<S>,
    before: Vec<u32>,
    edges: Vec<(u32, u32)>,
    ended: Vec<usize>,
    /// Open addressing: the state's place and one more, or 0.
    table: Vec<u32>,
}

impl<S: Copy + Eq + Hash> Graph<S> {
    fn new(first: S) -> Self {
        let mut graph = Self {
            states: Vec::new(),
            before: Vec::new(),
            edges: Vec::new(),
            ended: Vec::new(),
            table: vec![0; 1 << 16],
        };
        graph.visit(first, 0);
        graph
    }

    fn slot(&self, state: &S) -> usize {
        let mut hasher = Words::default();
        state.hash(&mut hasher);
        usize::try_from(hasher.finish() >> 16).unwrap_or(0) & (self.table.len() - 1)
    }

    /// The state's place; it is new if nobody came by before.
    fn visit(&mut self, state: S, from: usize) -> usize {
        if self.states.len() * 2 >= self.table.len() {
            self.grow();
        }
        let mut slot = self.slot(&state);
        while self.table[slot] != 0 {
            let at = self.table[slot] as usize - 1;
            if self.states[at] == state {
                return at;
            }
            slot = (slot + 1) & (self.table.len() - 1);
        }
        self.states.push(state);
        self.before.push(index(from));
        self.table[slot] = index(self.states.len());
        self.states.len() - 1
    }

    fn grow(&mut self) {
        self.table = vec![0; self.table.len() * 2];
        for at in 0..self.states.len() {
            let mut slot = self.slot(&self.states[at]);
            while self.table[slot] != 0 {
                slot = (slot + 1) & (self.table.len() - 1);
            }
            self.table[slot] = index(at + 1);
        }
    }

    /// The first state from which no ended one can be reached.
    fn first_stuck(&self) -> Option<usize> {
        let count = self.states.len();
        let mut starts = vec![0_u32; count + 1];
        for (_, to) in &self.edges {
            starts[*to as usize + 1] += 1;
        }
        for at in 0..count {
            starts[at + 1] += starts[at];
        }
        let mut free = starts.clone();
        let mut sources = vec![0_u32; self.edges.len()];
        for (from, to) in &self.edges {
            sources[free[*to as usize] as usize] = *from;
            free[*to as usize] += 1;
        }
        let mut ends = vec![false; count];
        let mut todo = self.ended.clone();
        for at in &todo {
            ends[*at] = true;
        }
        while let Some(at) = todo.pop() {
            for from in &sources[starts[at] as usize..starts[at + 1] as usize] {
                if !std::mem::replace(&mut ends[*from as usize], true) {
                    todo.push(*from as usize);
                }
            }
        }
        ends.iter().position(|ends| !ends)
    }

    /// The states on the way to one, without the first.
    fn way(&self, mut at: usize) -> Vec<usize> {
        let mut way = Vec::new();
        while at != 0 {
            way.push(at);
            at = self.before[at] as usize;
        }
        way.reverse();
        way
    }

    fn trace(&self, system: &impl System<State = S>, at: usize) -> Vec<Step> {
        let mut from = 0;
        let mut trace = Vec::new();
        for at in self.way(at) {
            let to = self.states[at];
            let step = system.steps(&self.states[from]).into_iter().find(|(_, s)| *s == to);
            trace.extend(step.map(|(step, _)| step));
            from = at;
        }
        trace
    }
}

/// Hashes small fields fast.
#[derive(Default)]
struct Words(u64);

impl Words {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Words {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.add(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(u64::from(byte));
    }

    fn write_isize(&mut self, word: isize) {
        self.add(word.cast_unsigned() as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.add(word as u64);
    }
}
