//! Generated arrays: a sum of six waves, smooth or with noise, or one value everywhere.
//!
//! Everything is done in integers, and in double precision with one rounding for each operation in a fixed order: so it is the
//! same on every machine. A sine of the standard library is not; a parabola that is bent once more is close enough to one.

use std::fmt;

use crate::grid::{DIMENSIONS_MAX, Grid, Scalar};
use crate::keystream::Keystream;

/// What a generated array looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Texture {
    /// Waves of 32 values and more: compresses well.
    Smooth,
    /// The same with noise of a thirty-second part of it: hard to compress.
    Rough,
    /// The same value everywhere.
    Constant,
}

impl Texture {
    /// Every texture, in the order that help texts list them.
    pub const ALL: [Self; 3] = [Self::Smooth, Self::Rough, Self::Constant];

    /// Its name as a kind of data.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smooth => "field",
            Self::Rough => "field-rough",
            Self::Constant => "field-constant",
        }
    }
}

impl fmt::Display for Texture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Waves in a field.
const WAVES: usize = 6;
/// Values that are made at once.
const VALUES: usize = 1024;
/// What a value is multiplied by in an array of `i32`: below 2^21 then.
const I32_SCALE: f64 = 65_536.0;
/// The same for `i64`: below 2^37.
const I64_SCALE: f64 = 4_294_967_296.0;

/// One wave; phases are in turns of 2^32.
#[derive(Clone, Copy)]
struct Wave {
    /// From one value to the next, in each dimension, the slowest first: at most a thirty-second turn.
    steps: [u32; DIMENSIONS_MAX],
    /// The phase where the row around the next value began, in each dimension; the last is that of the value.
    at: [u32; DIMENSIONS_MAX],
}

/// Writes the bytes of an array, in parts of any size.
pub(crate) struct FieldWriter {
    texture: Texture,
    grid: Grid,
    keystream: Keystream,
    waves: [Wave; WAVES],
    /// The same for every value, of a constant field.
    constant: f64,
    /// The next value's place.
    place: [u64; DIMENSIONS_MAX],
    /// Whole values, of which `used..` are still to be handed out.
    bytes: Vec<u8>,
    used: usize,
}

impl FieldWriter {
    pub(crate) fn new(texture: Texture, grid: Grid, mut keystream: Keystream) -> Self {
        let mut draw = || {
            let mut word = [0; 4];
            keystream.fill(&mut word);
            u32::from_le_bytes(word)
        };
        let constant = 16.0 * turn(draw());
        let waves = std::array::from_fn(|_| {
            let phase = draw();
            let steps = std::array::from_fn(|_| (draw().cast_signed() >> 4).cast_unsigned());
            Wave { steps, at: [phase; DIMENSIONS_MAX] }
        });
        let (bytes, place) = (Vec::with_capacity(VALUES * 8), [0; DIMENSIONS_MAX]);
        Self { texture, grid, keystream, waves, constant, place, bytes, used: 0 }
    }

    /// Fills all of `buffer`.
    pub(crate) fn fill(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            if self.used == self.bytes.len() {
                self.write_values();
            }
            let bytes = buffer.len().min(self.bytes.len() - self.used);
            let (front, rest) = buffer.split_at_mut(bytes);
            front.copy_from_slice(&self.bytes[self.used..self.used + bytes]);
            self.used += bytes;
            buffer = rest;
        }
    }

    fn write_values(&mut self) {
        self.bytes.clear();
        self.used = 0;
        let mut noise = [0; VALUES * 4];
        if self.texture == Texture::Rough {
            self.keystream.fill(&mut noise);
        }
        for word in noise.chunks_exact(4) {
            let mut value = match self.texture {
                Texture::Constant => self.constant,
                Texture::Smooth | Texture::Rough => self.sum(),
            };
            if self.texture == Texture::Rough {
                value += turn(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            }
            self.push(value);
            self.step();
        }
    }

    /// The six waves, the largest first.
    fn sum(&self) -> f64 {
        let mut amplitude = 16.0;
        let mut sum = 0.0;
        for wave in &self.waves {
            sum += amplitude * sine(wave.at[DIMENSIONS_MAX - 1]);
            amplitude *= 0.5;
        }
        sum
    }

    /// To the next value, in raster order.
    fn step(&mut self) {
        let extents = self.grid.shape.extents();
        let mut moved = 0;
        for dimension in (0..extents.len()).rev() {
            moved = dimension;
            self.place[dimension] += 1;
            // The slowest one has no end.
            if dimension == 0 || self.place[dimension] < extents[dimension] {
                break;
            }
            self.place[dimension] = 0;
        }
        for wave in &mut self.waves {
            let at = wave.at[moved].wrapping_add(wave.steps[moved]);
            // Dimensions behind begin anew, and those that the array has not are one value long.
            wave.at[moved..].fill(at);
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the value is small, and its fraction is to go"
    )]
    fn push(&mut self, value: f64) {
        match self.grid.scalar {
            Scalar::I32 => self.bytes.extend(((value * I32_SCALE) as i32).to_le_bytes()),
            Scalar::I64 => self.bytes.extend(((value * I64_SCALE) as i64).to_le_bytes()),
            Scalar::F32 => self.bytes.extend((value as f32).to_le_bytes()),
            Scalar::F64 => self.bytes.extend(value.to_le_bytes()),
        }
    }
}

/// A word as a number from -1 to 1.
fn turn(word: u32) -> f64 {
    f64::from(word.cast_signed()) / 2_147_483_648.0
}

/// Close to the sine of so many turns of 2^32.
fn sine(phase: u32) -> f64 {
    let u = turn(phase);
    let parabola = 4.0 * u * (1.0 - u.abs());
    parabola * (0.775 + 0.225 * parabola.abs())
}
