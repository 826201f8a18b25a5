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
        let mut values = [0.0; VALUES];
        match self.texture {
            Texture::Constant => values.fill(self.constant),
            Texture::Smooth | Texture::Rough => self.add_waves(&mut values),
        }
        if self.texture == Texture::Rough {
            let mut noise = [0; VALUES * 4];
            self.keystream.fill(&mut noise);
            for (value, word) in values.iter_mut().zip(noise.chunks_exact(4)) {
                *value += turn(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            }
        }
        self.used = 0;
        self.bytes.clear();
        self.convert(&values);
    }

    /// Adds the six waves to the next values, the largest first: row by row, as only rows are simple enough to be added fast.
    fn add_waves(&mut self, mut values: &mut [f64]) {
        while !values.is_empty() {
            let (row, behind) = values.split_at_mut(values.len().min(self.left_in_row()));
            let mut amplitude = 16.0;
            for wave in &self.waves {
                let (mut phase, step) = (wave.at[DIMENSIONS_MAX - 1], wave.steps[self.fastest()]);
                for value in &mut *row {
                    *value += amplitude * sine(phase);
                    phase = phase.wrapping_add(step);
                }
                amplitude *= 0.5;
            }
            self.pass(row.len());
            values = behind;
        }
    }

    /// The dimension of which neighbours are values one behind the other.
    fn fastest(&self) -> usize {
        self.grid.shape.extents().len() - 1
    }

    /// Values until the row ends, at most as many as are made at once; the slowest dimension has no end.
    fn left_in_row(&self) -> usize {
        let fastest = self.fastest();
        if fastest == 0 {
            return VALUES;
        }
        let left = self.grid.shape.extents()[fastest] - self.place[fastest];
        usize::try_from(left).map_or(VALUES, |left| left.min(VALUES))
    }

    /// To the value behind so many of the row, in raster order.
    fn pass(&mut self, values: usize) {
        let (fastest, extents) = (self.fastest(), self.grid.shape.extents());
        // What is made at once fits.
        let (steps, values) = (u32::try_from(values).unwrap_or(u32::MAX), values as u64);
        self.place[fastest] += values;
        let mut moved = fastest;
        while moved > 0 && self.place[moved] == extents[moved] {
            self.place[moved] = 0;
            moved -= 1;
            self.place[moved] += 1;
        }
        let steps = if moved == fastest { steps } else { 1 };
        for wave in &mut self.waves {
            let at = wave.at[moved].wrapping_add(wave.steps[moved].wrapping_mul(steps));
            // Dimensions behind begin anew, and those that the array has not are one value long.
            wave.at[moved..].fill(at);
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the values are small, and their fractions are to go"
    )]
    fn convert(&mut self, values: &[f64]) {
        let values = values.iter();
        match self.grid.scalar {
            Scalar::I32 => self.push(values.map(|v| ((v * I32_SCALE) as i32).to_le_bytes())),
            Scalar::I64 => self.push(values.map(|v| ((v * I64_SCALE) as i64).to_le_bytes())),
            Scalar::F32 => self.push(values.map(|v| (*v as f32).to_le_bytes())),
            Scalar::F64 => self.push(values.map(|v| v.to_le_bytes())),
        }
    }

    fn push<const BYTES: usize>(&mut self, values: impl Iterator<Item = [u8; BYTES]>) {
        self.bytes.extend(values.flatten());
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
