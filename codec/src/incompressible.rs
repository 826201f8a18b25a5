//! Finds segments that deflate would not make smaller, in a fiftieth of the time that it would take to try.
//!
//! Two tests must both find next to nothing. The first looks at how often each byte value occurs, in samples, block by
//! block: Pearson's χ² against equal frequencies, which near them is the Kullback-Leibler divergence times
//! 2 × samples × ln 2, hence the bits that a Huffman code could save. The second looks for repetitions as deflate may
//! use them: at most 32 KiB back, over the border of the segment where the compressor knows what was before. It asks a
//! table only at *anchors*, which are chosen by what is there and not by where it is, so a repetition has its anchors
//! where the original has them (the sampling of content-defined chunking; Manber 1994). What an anchor finds is
//! compared and extended, and weighted by the chance to find a repetition of that length.
//!
//! Everything is done in integers, so the answer is the same on every machine. ADR 0036 has what was tried.

/// How far deflate reaches back, in bytes (RFC 1951).
const WINDOW_BYTES: usize = 32 * 1024;
/// Segments smaller than this are not looked at, in bytes: so few bytes tell nothing.
const SEGMENT_BYTES_MIN: usize = 1024;
/// A segment is deflated if that might save one part in so many.
const WORTHWHILE_PART: u64 = 200;

/// Bytes that are sampled together; deflate ends a block after about as many literals.
const BLOCK_BYTES: usize = 16 * 1024;
/// Neighbours that are read as one sample.
const SAMPLE_BYTES: usize = 16;
/// From one sample to the next, in bytes. A prime: no record length falls into step with it.
const SAMPLE_STRIDE: usize = 61;
/// What χ² is on average if all 256 values are equally likely.
const CHI_SQUARE_MEAN: u64 = 255;
/// What a Huffman code of its own costs a block, in bits; less than that cannot be won.
const CODE_BITS: u64 = 500;

/// Bytes that are searched for anchors at once.
const STEP_BYTES: usize = 64;
/// Bytes that make an anchor's word.
const WORD_BYTES: usize = 4;
/// Base-2 logarithm of the number of words that the table knows: as many as there are anchors in a window of noise.
const TABLE_BITS: u32 = 12;
/// What a repetition costs, in bits, where there are few of them: about 9 for its length, 5 and 13 for its distance.
const REPETITION_BITS: u64 = 27;
/// The longest repetition of deflate, in bytes.
const REPETITION_BYTES_MAX: usize = 258;
/// One over the chance that one of the anchors in a repetition of that many bytes finds it, in sixteenths: an anchor is
/// at one place in eight, and the last three places have no whole word.
const WEIGHTS: [u64; 20] =
    [0, 0, 0, 0, 128, 68, 48, 39, 33, 29, 26, 24, 23, 22, 21, 20, 19, 19, 18, 18];
/// The same for longer ones.
const WEIGHT_LONG: u64 = 17;

/// Looks at the segments of one stream, in order, as the encoders of zlib and gzip do for themselves.
///
/// # Examples
///
/// ```
/// use bagpress_codec::{DataKind, Generator, Probe, SEGMENT_BYTES};
///
/// let (mut probe, mut segment) = (Probe::default(), vec![0; SEGMENT_BYTES]);
/// assert!(!probe.skips(&segment));
/// Generator::new(DataKind::Random, 0, 0, SEGMENT_BYTES as u64).fill(&mut segment);
/// assert!(probe.skips(&segment));
/// ```
#[derive(Debug, Default)]
pub struct Probe {
    /// The end of what the compressor knows: the history that the next segment may refer to.
    history: Vec<u8>,
    words: Words,
}

impl Probe {
    /// Begins a new stream.
    pub fn reset(&mut self) {
        self.history.clear();
    }

    /// Whether deflate would save less than a two-hundredth of `segment`, as far as this can tell. The caller must then
    /// store it and let the compressor forget what was before; otherwise it must deflate it.
    #[must_use]
    pub fn skips(&mut self, segment: &[u8]) -> bool {
        let skips = segment.len() >= SEGMENT_BYTES_MIN && self.finds_nothing(segment);
        if skips {
            self.history.clear();
        } else {
            self.remember(segment);
        }
        skips
    }

    fn finds_nothing(&mut self, segment: &[u8]) -> bool {
        let worthwhile_bits = segment.len() as u64 * 8 / WORTHWHILE_PART;
        let saved_bits = code_bits_saved(segment, worthwhile_bits);
        saved_bits < worthwhile_bits && {
            let wanted_bits = worthwhile_bits - saved_bits;
            !self.words.repetitions_save(&self.history, segment, wanted_bits)
        }
    }

    fn remember(&mut self, segment: &[u8]) {
        let kept = WINDOW_BYTES.saturating_sub(segment.len()).min(self.history.len());
        self.history.drain(..self.history.len() - kept);
        self.history.extend_from_slice(&segment[segment.len().saturating_sub(WINDOW_BYTES)..]);
    }
}

/// The bits that a Huffman code for each block could save; stops when it is `enough`.
fn code_bits_saved(segment: &[u8], enough: u64) -> u64 {
    // Small segments are read whole: a quarter of them would be too few bytes.
    let stride = if segment.len() < BLOCK_BYTES { SAMPLE_BYTES } else { SAMPLE_STRIDE };
    let mut saved = 0;
    for block in segment.chunks(BLOCK_BYTES) {
        saved += block_bits_saved(block, stride).saturating_sub(CODE_BITS);
        if saved >= enough {
            break;
        }
    }
    saved
}

fn block_bits_saved(block: &[u8], stride: usize) -> u64 {
    // Four counters of each value: the next count does not wait for the last one of an equal byte.
    let mut counts = [[0_u16; 256]; 4];
    let mut samples = 0;
    for sample in block.windows(SAMPLE_BYTES).step_by(stride) {
        for four in sample.chunks_exact(4) {
            for (counts, byte) in counts.iter_mut().zip(four) {
                counts[usize::from(*byte)] += 1;
            }
        }
        samples += SAMPLE_BYTES as u64;
    }
    if samples == 0 {
        return 0;
    }
    let [a, b, c, d] = &counts;
    let count = |value: usize| {
        u64::from(a[value]) + u64::from(b[value]) + u64::from(c[value]) + u64::from(d[value])
    };
    let squares: u64 = (0..256).map(|value| count(value) * count(value)).sum();
    let chi_square = (squares * 256 / samples).saturating_sub(samples);
    // 739 / 1024 is 1 / (2 ln 2).
    chi_square.saturating_sub(CHI_SQUARE_MEAN) * block.len() as u64 * 739 / (1024 * samples)
}

/// Where an anchor's word was last seen, by the hash of the word.
#[derive(Debug, Default)]
struct Words(Vec<Seen>);

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    word: u32,
    /// From [`WINDOW_BYTES`] before the segment on, plus one; 0 is nowhere.
    place: u32,
}

impl Words {
    /// Whether repetitions in `segment`, of itself or of the at most 32 KiB of `history` before it, are likely to save
    /// `wanted_bits`.
    fn repetitions_save(&mut self, history: &[u8], segment: &[u8], wanted_bits: u64) -> bool {
        self.0.clear();
        self.0.resize(1 << TABLE_BITS, Seen::default());
        for_each_anchor(history, |at, word| {
            self.replace(word, at + WINDOW_BYTES - history.len());
            true
        });
        let (mut saved, mut covered) = (0, 0);
        for_each_anchor(segment, |at, word| {
            let before = self.replace(word, at + WINDOW_BYTES);
            if before.word != word || before.place == 0 || at < covered {
                return true;
            }
            let distance = at + WINDOW_BYTES + 1 - before.place as usize;
            if distance > WINDOW_BYTES {
                return true;
            }
            let found = extend(history, segment, at, distance, covered);
            covered = found.end;
            saved += worth(found.len());
            saved / 16 < wanted_bits
        });
        saved / 16 >= wanted_bits
    }

    /// Notes where `word` is, and returns what had its place in the table.
    fn replace(&mut self, word: u32, place: usize) -> Seen {
        let slot = word.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what is beyond 4 GiB is not found, which costs only size"
        )]
        let seen = Seen { word, place: place as u32 + 1 };
        std::mem::replace(&mut self.0[slot as usize], seen)
    }
}

/// What a repetition saves, in sixteenths of a bit, weighted for those that no anchor finds.
fn worth(bytes: usize) -> u64 {
    let cost = REPETITION_BITS * bytes.div_ceil(REPETITION_BYTES_MAX) as u64;
    (bytes as u64 * 8).saturating_sub(cost) * WEIGHTS.get(bytes).copied().unwrap_or(WEIGHT_LONG)
}

/// The range around `at` that equals what is `distance` before it, from `begin` on. Its word is known to be equal.
fn extend(
    history: &[u8],
    segment: &[u8],
    at: usize,
    distance: usize,
    begin: usize,
) -> std::ops::Range<usize> {
    // In the history it is followed to the border only, on either side.
    let (source, from) = match at.checked_sub(distance) {
        Some(from) => (segment, from),
        None => (history, history.len() + at - distance),
    };
    let ahead = source[from..].iter().zip(&segment[at..]).take_while(|(a, b)| a == b).count();
    let behind = source[..from].iter().rev().zip(segment[begin..at].iter().rev());
    at - behind.take_while(|(a, b)| a == b).count()..at + ahead
}

/// Calls `visit` with the place and the word of each anchor, until it returns false. An anchor is a byte that is a
/// multiple of eight: noise, text and zeros all have some. The few at the end of `bytes` are left out.
fn for_each_anchor(bytes: &[u8], mut visit: impl FnMut(usize, u32) -> bool) {
    let mut start = 0;
    while let Some(step) = bytes[start..].first_chunk::<{ STEP_BYTES + WORD_BYTES }>() {
        // A bit for each byte: one mispredicted branch in 64 bytes, where a test of each byte had eight.
        let mut anchors = anchors(step);
        while anchors != 0 {
            let at = anchors.trailing_zeros() as usize;
            anchors &= anchors - 1;
            let word = u32::from_le_bytes([step[at], step[at + 1], step[at + 2], step[at + 3]]);
            if !visit(start + at, word) {
                return;
            }
        }
        start += STEP_BYTES;
    }
}

/// Sets a bit for each of the first 64 bytes whose lower three bits are zero, eight bytes at a time.
fn anchors(step: &[u8; STEP_BYTES + WORD_BYTES]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (eights, _) = step.as_chunks::<8>();
    (0..).zip(&eights[..STEP_BYTES / 8]).fold(0, |anchors, (index, eight)| {
        let eight = u64::from_le_bytes(*eight);
        let zero = !(eight | (eight >> 1) | (eight >> 2)) & ONES;
        // The multiplication gathers the lowest bit of each byte in the highest byte.
        anchors | (zero.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * index)
    })
}
