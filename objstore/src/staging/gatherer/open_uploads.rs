//! A bounded table of uploads: opened, receiving, closing; which one gives way when it is full.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bagpress_broker::ids::Execution;
use bagpress_broker::limits;
use tokio::sync::mpsc;

/// Uploads that were opened. Both lists are bounded; an upload that falls out of one is opened again, or executed again.
#[derive(Debug)]
pub(super) struct OpenUploads<P> {
    opened: HashMap<Execution, Opened>,
    /// Those of `opened`, the last one at the end, and some that are no longer among them.
    order: VecDeque<(Execution, u64)>,
    openings: u64,
    begun: HashMap<Execution, Begun<P>>,
    /// Most that may have begun.
    most: usize,
}

#[derive(Debug)]
struct Opened {
    opening: u64,
    id: (u32, u32),
    /// Its CLOSE is being served.
    closing: bool,
}

/// An upload of which a chunk is there.
#[derive(Debug)]
struct Begun<P> {
    id: (u32, u32),
    /// To whom its pieces go; closed while nobody writes them.
    pieces: mpsc::Sender<P>,
    /// Chunks that it may have in flight.
    window: usize,
    /// Bytes that arrived, and when the last ones did.
    arrived: u64,
    last: Instant,
    /// The chunk at this offset is to be sent again: what comes behind it would be in vain.
    again_from: Option<u64>,
}

/// What becomes of a piece of an upload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Its upload is being written, or begins now: with [`OpenUploads::give`].
    Known,
    /// It comes behind one that is to be sent again.
    Again,
    /// Nobody opened its upload.
    Unknown,
}

/// What becomes of one that was given.
#[derive(Debug)]
pub(super) enum Given<P> {
    /// Somebody writes it. A sender that overruns its window loses it, and is told the offset by the next.
    Taken,
    /// It is the first: somebody is to write what comes out here. The part file of another execution, of this index and
    /// round, is to make room for it.
    Begins(mpsc::Receiver<P>, Option<(Execution, (u32, u32))>),
    /// As many have begun as may, and all have brought more.
    TooMany(P),
}

impl<P> OpenUploads<P> {
    pub(super) fn new(most: usize) -> Self {
        let (opened, order, begun) = (HashMap::new(), VecDeque::new(), HashMap::new());
        Self { opened, order, openings: 0, begun, most }
    }

    /// Notes that an execution of (index, round) has leave.
    pub(super) fn open(&mut self, execution: &Execution, id: (u32, u32)) {
        if self.begun.contains_key(execution) || self.opened.contains_key(execution) {
            return;
        }
        self.openings += 1;
        let opened = Opened { opening: self.openings, id, closing: false };
        self.opened.insert(execution.clone(), opened);
        self.order.push_back((execution.clone(), self.openings));
        if self.order.len() > limits::OPENED_MAX
            && let Some((oldest, opening)) = self.order.pop_front()
            && self.opened.get(&oldest).is_some_and(|opened| opened.opening == opening)
        {
            self.opened.remove(&oldest);
        }
    }

    /// Whether an execution of (index, round) has leave, and what becomes of its chunk at `offset`.
    pub(super) fn way(&self, execution: &Execution, id: (u32, u32), offset: u64) -> Way {
        let begun = self.begun.get(execution).filter(|begun| begun.id == id);
        match (begun, self.opened.get(execution).filter(|opened| opened.id == id)) {
            (Some(begun), _) if begun.again_from.is_some_and(|from| offset > from) => Way::Again,
            (None, None) => Way::Unknown,
            _ => Way::Known,
        }
    }

    /// Notes that the chunk at `offset` is to be sent again.
    pub(super) fn again(&mut self, execution: &Execution, offset: u64) {
        if let Some(begun) = self.begun.get_mut(execution) {
            begun.again_from = Some(begun.again_from.map_or(offset, |from| from.min(offset)));
        }
    }

    /// Gives a known upload its next piece, of so many bytes, at `offset`.
    pub(super) fn give(
        &mut self,
        execution: &Execution,
        id: (u32, u32),
        piece: P,
        offset: u64,
        bytes: u64,
    ) -> Given<P> {
        if let Some(begun) = self.begun.get_mut(execution) {
            if begun.again_from == Some(offset) {
                begun.again_from = None;
            }
            begun.last = Instant::now();
            match begun.pieces.try_send(piece) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Given::Taken,
                // It was idle.
                Err(mpsc::error::TrySendError::Closed(piece)) => {
                    let (pieces, receiver) = channel(piece);
                    begun.pieces = pieces;
                    Given::Begins(receiver, None)
                }
            }
        } else {
            let out = if self.begun.len() < self.most {
                None
            } else {
                let Some(out) = self.least(bytes) else { return Given::TooMany(piece) };
                let id = self.begun.remove(&out).map_or((0, 0), |begun| begun.id);
                Some((out, id))
            };
            self.opened.remove(execution);
            let (pieces, receiver) = channel(piece);
            let (window, last) = (1, Instant::now());
            let begun = Begun { id, pieces, window, arrived: 0, last, again_from: None };
            self.begun.insert(execution.clone(), begun);
            Given::Begins(receiver, out)
        }
    }

    /// Whose upload is to make room for one that brings `bytes` at once: one that was left, or one that brought no more. So
    /// places are had by bytes, and nobody keeps another from one by promising some.
    fn least(&self, bytes: u64) -> Option<Execution> {
        let left = |begun: &Begun<P>| begun.last.elapsed() >= limits::UPLOAD_IDLE;
        let least = self.begun.iter().min_by_key(|(_, b)| (!left(b), b.arrived, b.last));
        let (execution, begun) = least?;
        (left(begun) || begun.arrived <= bytes).then(|| execution.clone())
    }

    /// Notes how much arrived of an upload, and how many chunks it may have in flight from now on: its share of what all
    /// of them may, as far as the others, which learn of their smaller share later, leave it.
    pub(super) fn window(&mut self, execution: &Execution, arrived: u64) -> usize {
        let all = limits::WINDOWS_BYTES / limits::CHUNK_BYTES;
        let active = || self.begun.values().filter(|upload| !upload.pieces.is_closed());
        let share = (all / active().count().max(1)).min(limits::WINDOW_MAX);
        let granted: usize = active().map(|upload| upload.window).sum();
        let Some(upload) = self.begun.get_mut(execution) else { return 1 };
        upload.arrived = arrived;
        let left = (all + upload.window).saturating_sub(granted);
        upload.window = share.min(left).max(1);
        upload.window
    }

    /// Bytes that arrived of an upload.
    pub(super) fn arrived(&self, execution: &Execution) -> u64 {
        self.begun.get(execution).map_or(0, |upload| upload.arrived)
    }

    /// Begins to serve the CLOSE of an execution that has leave; false if one is being served.
    pub(super) fn close(&mut self, execution: &Execution) -> bool {
        match self.opened.get_mut(execution) {
            Some(opened) => !std::mem::replace(&mut opened.closing, true),
            None => true,
        }
    }

    /// Ends that: it was answered, and is to come again.
    pub(super) fn close_comes_again(&mut self, execution: &Execution) {
        if let Some(opened) = self.opened.get_mut(execution) {
            opened.closing = false;
        }
    }

    /// Forgets an upload that has ended.
    pub(super) fn end(&mut self, execution: &Execution) {
        self.opened.remove(execution);
        self.begun.remove(execution);
    }

    /// The same if nobody writes it: what came while it ended has begun again.
    pub(super) fn ended(&mut self, execution: &Execution) {
        if self.begun.get(execution).is_some_and(|begun| begun.pieces.is_closed()) {
            self.begun.remove(execution);
        }
    }
}

fn channel<P>(first: P) -> (mpsc::Sender<P>, mpsc::Receiver<P>) {
    let (sender, receiver) = mpsc::channel(limits::WINDOW_MAX * 2);
    sender.try_send(first).ok(); // there is room for one
    (sender, receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: (u32, u32) = (7, 0);
    const CHUNK: u64 = limits::CHUNK_BYTES as u64;

    /// An upload that began with so many bytes. It is being written for as long as its receiver is kept.
    fn begin(known: &mut OpenUploads<()>, bytes: u64) -> (Execution, Option<mpsc::Receiver<()>>) {
        let execution = Execution::random();
        known.open(&execution, ID);
        let receiver = match known.give(&execution, ID, (), 0, bytes) {
            Given::Begins(receiver, _) => Some(receiver),
            _ => None,
        };
        known.window(&execution, bytes);
        (execution, receiver)
    }

    #[test]
    fn who_did_not_open_has_no_upload_and_neither_has_who_names_another_task() {
        let (mut known, execution) = (OpenUploads::<()>::new(4), Execution::random());
        assert_eq!(known.way(&execution, ID, 0), Way::Unknown);
        known.open(&execution, ID);
        assert_eq!(known.way(&execution, ID, 0), Way::Known);
        assert_eq!(known.way(&execution, (8, 0), 0), Way::Unknown);
        assert_eq!(known.way(&execution, (7, 1), 0), Way::Unknown);
    }

    #[test]
    fn who_opens_last_is_known_however_many_opened_before() {
        let mut known = OpenUploads::<()>::new(4);
        let first = Execution::random();
        known.open(&first, ID);
        for _ in 0..2 * limits::OPENED_MAX {
            known.open(&Execution::random(), ID);
        }
        assert_eq!(known.way(&first, ID, 0), Way::Unknown);
        assert!(
            known.opened.len() <= limits::OPENED_MAX && known.order.len() <= limits::OPENED_MAX
        );
        known.open(&first, ID);
        assert_eq!(known.way(&first, ID, 0), Way::Known);
    }

    #[test]
    fn who_brings_more_gets_the_place_of_who_brought_least() {
        let mut known = OpenUploads::new(4);
        let mut all: Vec<_> = (0..3).map(|_| begin(&mut known, 1)).collect();
        let large = begin(&mut known, CHUNK);
        all.push(begin(&mut known, 1));
        assert_eq!(
            known.way(&all[0].0, ID, 1),
            Way::Unknown,
            "the first of those that brought least"
        );
        assert_eq!(known.way(&large.0, ID, CHUNK), Way::Known);
        for _ in 0..3 {
            all.push(begin(&mut known, CHUNK));
        }
        assert!(begin(&mut known, 1).1.is_none(), "all have brought more");
        assert_eq!(known.begun.len(), 4);
    }

    #[test]
    fn what_comes_behind_a_chunk_that_is_to_be_sent_again_is_to_be_sent_again_too() {
        let mut known = OpenUploads::new(4);
        let (execution, _writes) = begin(&mut known, 10);
        known.again(&execution, 10);
        assert_eq!(known.way(&execution, ID, 20), Way::Again);
        assert_eq!(known.way(&execution, ID, 10), Way::Known);
        assert!(matches!(known.give(&execution, ID, (), 10, 10), Given::Taken));
        assert_eq!(known.way(&execution, ID, 20), Way::Known);
    }

    #[test]
    fn an_idle_upload_goes_on_with_its_next_chunk() {
        let mut known = OpenUploads::new(4);
        let (execution, writes) = begin(&mut known, 10);
        drop(writes);
        assert_eq!(known.way(&execution, ID, 10), Way::Known);
        let given = known.give(&execution, ID, (), 10, 10);
        assert!(matches!(given, Given::Begins(_, None)), "{given:?}");
    }
}
