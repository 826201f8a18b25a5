//! The keystream that generated input is drawn from.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::Digest;

/// The bytes of ChaCha8: Bernstein's cipher with 8 rounds, a 64-bit counter from 0 and a 64-bit
/// stream number (<https://cr.yp.to/chacha.html>).
pub(crate) struct Keystream {
    cipher: ChaCha8Rng,
    /// The word that the last part ended in the middle of, and how many of its bytes are used.
    word: [u8; 4],
    word_used: usize,
}

impl Keystream {
    pub(crate) fn new(seed: u64, index: u32) -> Self {
        let key = Digest::of(format!("bagpress/1/{seed}").as_bytes());
        let mut cipher = ChaCha8Rng::from_seed(*key.bytes());
        cipher.set_stream(u64::from(index));
        Self { cipher, word: [0; 4], word_used: 4 }
    }

    /// Fills all of `buffer`. The cipher gives whole words, so the rest of a cut one is kept here.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        let kept = (4 - self.word_used).min(buffer.len());
        let (front, rest) = buffer.split_at_mut(kept);
        front.copy_from_slice(&self.word[self.word_used..self.word_used + kept]);
        self.word_used += kept;
        let (words, tail) = rest.split_at_mut(rest.len() / 4 * 4);
        self.cipher.fill_bytes(words);
        if !tail.is_empty() {
            self.cipher.fill_bytes(&mut self.word);
            tail.copy_from_slice(&self.word[..tail.len()]);
            self.word_used = tail.len();
        }
    }
}
