//! XXH64 with the seed 0: what zstd's checksums are the lower half of.

const PRIMES: [u64; 5] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x27d4_eb2f_1656_67c5,
];
/// Bytes that are taken at once.
const STRIPE_BYTES: usize = 32;

/// Hashes bytes in pieces of any length.
#[derive(Debug, Clone)]
pub struct Xxh64 {
    lanes: [u64; 4],
    /// Bytes that do not fill a stripe yet.
    held: [u8; STRIPE_BYTES],
    held_bytes: usize,
    bytes: u64,
}

impl Default for Xxh64 {
    fn default() -> Self {
        let lanes = [PRIMES[0].wrapping_add(PRIMES[1]), PRIMES[1], 0, PRIMES[0].wrapping_neg()];
        Self { lanes, held: [0; STRIPE_BYTES], held_bytes: 0, bytes: 0 }
    }
}

impl Xxh64 {
    /// Takes the next piece.
    pub fn update(&mut self, mut piece: &[u8]) {
        self.bytes = self.bytes.wrapping_add(piece.len() as u64);
        if self.held_bytes > 0 {
            let (fill, rest) = piece.split_at(piece.len().min(STRIPE_BYTES - self.held_bytes));
            self.held[self.held_bytes..][..fill.len()].copy_from_slice(fill);
            self.held_bytes += fill.len();
            piece = rest;
            if self.held_bytes < STRIPE_BYTES {
                return;
            }
            let held = self.held;
            self.stripe(&held);
        }
        let stripes = piece.chunks_exact(STRIPE_BYTES);
        let rest = stripes.remainder();
        stripes.for_each(|stripe| self.stripe(stripe));
        self.held[..rest.len()].copy_from_slice(rest);
        self.held_bytes = rest.len();
    }

    fn stripe(&mut self, stripe: &[u8]) {
        for (lane, word) in self.lanes.iter_mut().zip(stripe.chunks_exact(8)) {
            *lane = round(*lane, number(word));
        }
    }

    /// The hash of all that was taken.
    #[must_use]
    pub fn finish(&self) -> u64 {
        let mut hash = if self.bytes < STRIPE_BYTES as u64 {
            PRIMES[4]
        } else {
            let turned =
                self.lanes.iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
            self.lanes.iter().fold(turned.fold(0, u64::wrapping_add), |hash, lane| {
                (hash ^ round(0, *lane)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3])
            })
        };
        hash = hash.wrapping_add(self.bytes);
        let words = self.held[..self.held_bytes].chunks_exact(8);
        let mut rest = words.remainder();
        for word in words {
            hash = (hash ^ round(0, number(word))).rotate_left(27);
            hash = hash.wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
        }
        if let Some((half, behind)) = rest.split_at_checked(4) {
            hash = (hash ^ number(half).wrapping_mul(PRIMES[0])).rotate_left(23);
            hash = hash.wrapping_mul(PRIMES[1]).wrapping_add(PRIMES[2]);
            rest = behind;
        }
        for byte in rest {
            hash = (hash ^ u64::from(*byte).wrapping_mul(PRIMES[4])).rotate_left(11);
            hash = hash.wrapping_mul(PRIMES[0]);
        }
        hash = (hash ^ hash >> 33).wrapping_mul(PRIMES[1]);
        hash = (hash ^ hash >> 29).wrapping_mul(PRIMES[2]);
        hash ^ hash >> 32
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
}

/// Bytes as a number, the lowest first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Codec;

    /// The library ends each frame with the lower half of what is hashed here.
    #[test]
    fn it_is_the_checksum_that_frames_of_zstd_end_with() {
        let codec: Codec = "zstd:1".parse().unwrap();
        let bytes: Vec<u8> =
            (0..1000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for length in (0..130).chain([255, 256, 999, 1000]) {
            let (mut encoder, mut frame) = (codec.encoder(), Vec::new());
            encoder.announce(length as u64);
            encoder.write(&bytes[..length], &mut frame).unwrap();
            encoder.finish(&mut frame).unwrap();
            let checksum = u32::from_le_bytes(*frame.last_chunk().unwrap());
            for piece in [1, 5, 32, 33, 1000] {
                let mut hasher = Xxh64::default();
                bytes[..length].chunks(piece).for_each(|piece| hasher.update(piece));
                assert_eq!(
                    hasher.finish() & u64::from(u32::MAX),
                    checksum.into(),
                    "{length} {piece}"
                );
            }
        }
        assert_eq!(Xxh64::default().finish(), 0xef46_db37_51d8_e999);
    }
}
