//! Generated text: words of a fixed vocabulary, common ones more often, twelve to a line.
//!
//! Two bytes of keystream choose a word: `a * b / 256`, whole. Their product favours small numbers,
//! as language favours few words. A space follows each word, and a line feed every twelfth.

use crate::keystream::Keystream;

/// The words in their order, between white space; ours, and frozen: another list is another kind.
const VOCABULARY: &str = include_str!("vocabulary.txt");
/// Number of words: 255 × 255 / 256 is 254, the last one's index.
const WORDS: usize = 255;
/// Words in a line.
const LINE_WORDS: usize = 12;
/// Room for a word and what follows it; moved as one, since a fixed size is a single instruction.
const SLOT_BYTES: usize = 16;
/// Keystream bytes for a line.
const LINE_KEY_BYTES: usize = 2 * LINE_WORDS;
/// Keystream bytes drawn at once: whole lines, and whole ChaCha8 buffers of 256 bytes.
const KEY_BYTES: usize = 64 * LINE_KEY_BYTES;
/// More than the lines of `KEY_BYTES` can need, since a slot is never full.
const TEXT_BYTES: usize = KEY_BYTES / 2 * SLOT_BYTES;

const _: () = assert!(KEY_BYTES.is_multiple_of(256));

/// A word, the space after it, and zeros that the next word overwrites.
#[derive(Clone, Copy)]
struct Slot {
    bytes: [u8; SLOT_BYTES],
    /// Bytes of the word and its space.
    used: u8,
}

static SLOTS: [Slot; 256] = slots();

/// Cuts the vocabulary; fails to compile if it has another number of words, or one too long. The
/// last slot is never chosen; it is there so that any byte is an index.
const fn slots() -> [Slot; 256] {
    let text = VOCABULARY.as_bytes();
    let mut slots = [Slot { bytes: [0; SLOT_BYTES], used: 0 }; 256];
    let (mut word, mut at) = (0, 0);
    while at < text.len() {
        let slot = &mut slots[word];
        if text[at].is_ascii_lowercase() {
            slot.bytes[slot.used as usize] = text[at];
            slot.used += 1;
        } else if slot.used > 0 {
            slot.bytes[slot.used as usize] = b' ';
            slot.used += 1;
            word += 1;
        }
        at += 1;
    }
    assert!(word == WORDS);
    slots
}

/// Writes text, in parts of any size.
pub(crate) struct TextWriter {
    keystream: Keystream,
    /// Whole lines, of which `at..end` are still to be handed out.
    lines: Box<[u8; TEXT_BYTES]>,
    at: usize,
    end: usize,
}

impl TextWriter {
    pub(crate) fn new(keystream: Keystream) -> Self {
        Self { keystream, lines: Box::new([0; TEXT_BYTES]), at: 0, end: 0 }
    }

    /// Fills all of `buffer`.
    pub(crate) fn fill(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            if self.at == self.end {
                self.write_lines();
            }
            let bytes = buffer.len().min(self.end - self.at);
            let (front, rest) = buffer.split_at_mut(bytes);
            front.copy_from_slice(&self.lines[self.at..self.at + bytes]);
            self.at += bytes;
            buffer = rest;
        }
    }

    fn write_lines(&mut self) {
        let mut key = [0; KEY_BYTES];
        self.keystream.fill(&mut key);
        let mut end = 0;
        for line in key.chunks_exact(LINE_KEY_BYTES) {
            for pair in line.chunks_exact(2) {
                let index = u16::from(pair[0]) * u16::from(pair[1]) / 256;
                let slot = &SLOTS[usize::from(index)];
                self.lines[end..end + SLOT_BYTES].copy_from_slice(&slot.bytes);
                end += usize::from(slot.used);
            }
            self.lines[end - 1] = b'\n';
        }
        (self.at, self.end) = (0, end);
    }
}
