//! A layer: four planes of the slowest dimension, or what the array has left of them. Blocks are taken out of it and put into it.

use std::ops::Range;

use bagpress_zfp::Value;

use super::terms::{LAYER_BYTES_MAX, refused};
use crate::Error;
use crate::error::ArrayFault;
use crate::grid::{DIMENSIONS_MAX, Grid};

/// Planes of a layer.
const PLANES: u64 = 4;

/// A type of values, with its bytes and what is known of it.
pub(super) trait Element: Value {
    const BYTES: usize;

    /// Reads a value from the front of `bytes`, which has it.
    fn get(bytes: &[u8]) -> Self;

    /// Writes it to the front of `bytes`, which has room.
    fn put(self, bytes: &mut [u8]);

    /// Why it cannot be compressed but bit for bit.
    fn unfit(self) -> Option<ArrayFault>;

    /// The value, for figures.
    fn number(self) -> f64;

    /// How far `self` is off from `original`.
    fn off(self, original: Self) -> f64;
}

macro_rules! element {
    ($type:ty, |$value:ident| $unfit:expr, |$v:ident| $number:expr, |$a:ident, $b:ident| $off:expr) => {
        impl Element for $type {
            const BYTES: usize = size_of::<Self>();

            fn get(bytes: &[u8]) -> Self {
                bytes.first_chunk().map_or_else(Self::default, |bytes| Self::from_le_bytes(*bytes))
            }

            fn put(self, bytes: &mut [u8]) {
                bytes[..Self::BYTES].copy_from_slice(&self.to_le_bytes());
            }

            fn unfit(self) -> Option<ArrayFault> {
                let $value = self;
                $unfit
            }

            fn number(self) -> f64 {
                let $v = self;
                $number
            }

            fn off(self, original: Self) -> f64 {
                let ($a, $b) = (self, original);
                $off
            }
        }
    };
}

element!(
    i32,
    |value| (value.unsigned_abs() >= 1 << 30).then_some(ArrayFault::IntRange),
    |value| f64::from(value),
    |a, b| f64::from(a.abs_diff(b))
);
element!(
    i64,
    |value| (value.unsigned_abs() >= 1 << 62).then_some(ArrayFault::IntRange),
    |value| rounded(i128::from(value)),
    |a, b| rounded((i128::from(a) - i128::from(b)).abs())
);
element!(
    f32,
    |value| (!value.is_finite()).then_some(ArrayFault::NonFinite),
    |value| f64::from(value),
    |a, b| (f64::from(a) - f64::from(b)).abs()
);
element!(
    f64,
    |value| (!value.is_finite()).then_some(ArrayFault::NonFinite),
    |value| value,
    |a, b| (a - b).abs()
);

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn rounded(value: i128) -> f64 {
    value as f64
}

/// Does something with the type that a scalar stands for.
macro_rules! by_scalar {
    ($scalar:expr, $type:ident => $do:expr) => {
        match $scalar {
            $crate::grid::Scalar::I32 => {
                type $type = i32;
                $do
            }
            $crate::grid::Scalar::I64 => {
                type $type = i64;
                $do
            }
            $crate::grid::Scalar::F32 => {
                type $type = f32;
                $do
            }
            $crate::grid::Scalar::F64 => {
                type $type = f64;
                $do
            }
        }
    };
}

pub(super) use by_scalar;

/// How an array is cut into layers, and which comes next.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    grid: Grid,
    /// Planes of the slowest dimension that are still to come.
    planes_left: u64,
    plane_bytes: u64,
}

impl Layers {
    /// # Errors
    ///
    /// [`ArrayFault::Unsupported`] if a layer is larger than is held.
    pub(super) fn new(grid: Grid) -> Result<Self, Error> {
        let slowest = grid.shape.extents()[0];
        let plane_bytes = grid.bytes() / slowest;
        let layer = plane_bytes.saturating_mul(PLANES.min(slowest));
        if layer > LAYER_BYTES_MAX {
            let reason = format!(
                "four planes of {grid} are {} MiB, and at most {} MiB are held: give the array more planes, or cut it",
                layer >> 20,
                LAYER_BYTES_MAX >> 20
            );
            return refused(ArrayFault::Unsupported, reason);
        }
        Ok(Self { grid, planes_left: slowest, plane_bytes })
    }

    /// Some of the layers, that follow each other.
    pub(super) fn only(self, layers: Range<u64>) -> Self {
        let slowest = self.grid.shape.extents()[0];
        let plane = |layer: u64| layer.saturating_mul(PLANES).min(slowest);
        Self { planes_left: plane(layers.end).saturating_sub(plane(layers.start)), ..self }
    }

    /// Bytes of every layer but the last, which may have fewer.
    pub(super) fn layer_bytes(&self) -> u64 {
        self.plane_bytes * PLANES
    }

    /// Blocks of every layer.
    pub(super) fn layer_blocks(&self) -> u64 {
        self.grid.shape.extents()[1..].iter().map(|extent| extent.div_ceil(4)).product()
    }

    pub(super) fn grid(&self) -> Grid {
        self.grid
    }

    /// Bytes of the next layer; 0, after the last.
    pub(super) fn next_bytes(&self) -> usize {
        usize::try_from(self.plane_bytes * self.planes_left.min(PLANES)).unwrap_or(usize::MAX)
    }

    /// How many bytes are still to come.
    pub(super) fn bytes_left(&self) -> u64 {
        self.plane_bytes * self.planes_left
    }

    /// Where the blocks of the next layer lie.
    pub(super) fn blocks(&self) -> LayerBlocks {
        let (extents, mut sides) = (self.grid.shape.extents(), [1; DIMENSIONS_MAX]);
        let unused = DIMENSIONS_MAX - extents.len();
        for (side, extent) in sides[unused..].iter_mut().zip(extents) {
            *side = usize::try_from(*extent).unwrap_or(usize::MAX);
        }
        sides[unused] = usize::try_from(self.planes_left.min(PLANES)).unwrap_or(0);
        LayerBlocks { sides, unused, corner: [0; DIMENSIONS_MAX], ended: self.planes_left == 0 }
    }

    /// Goes on to the layer after the next one.
    pub(super) fn step(&mut self) {
        self.planes_left -= self.planes_left.min(PLANES);
    }
}

/// The blocks of a layer, in raster order; at one of them.
#[derive(Debug, Clone)]
pub(super) struct LayerBlocks {
    /// Values in each dimension; 1 in those before the array's, which are unused.
    sides: [usize; DIMENSIONS_MAX],
    unused: usize,
    /// The first value of the block.
    corner: [usize; DIMENSIONS_MAX],
    ended: bool,
}

/// For each dimension, which value of the layer each of the four of a block is, in steps of one value.
type Offsets = [[usize; 4]; DIMENSIONS_MAX];

impl LayerBlocks {
    /// Whether the last one is behind.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// To the next block.
    pub(super) fn step(&mut self) {
        for dimension in (self.unused..DIMENSIONS_MAX).rev() {
            self.corner[dimension] += 4;
            if self.corner[dimension] < self.sides[dimension] {
                return;
            }
            self.corner[dimension] = 0;
        }
        self.ended = true;
    }

    /// Values of a block.
    pub(super) fn values(&self) -> usize {
        1 << (2 * (DIMENSIONS_MAX - self.unused))
    }

    /// How many of four the block has in each dimension.
    fn there(&self) -> [usize; DIMENSIONS_MAX] {
        std::array::from_fn(|dimension| (self.sides[dimension] - self.corner[dimension]).min(4))
    }

    fn offsets(&self) -> Offsets {
        let (there, mut offsets, mut stride) = (self.there(), [[0; 4]; DIMENSIONS_MAX], 1);
        for dimension in (0..DIMENSIONS_MAX).rev() {
            for (value, offset) in offsets[dimension].iter_mut().enumerate() {
                *offset = (self.corner[dimension] + filled_up(value, there[dimension])) * stride;
            }
            stride *= self.sides[dimension];
        }
        offsets
    }

    /// How many steps a block has in each dimension: one in those that are unused.
    fn steps(&self) -> [usize; DIMENSIONS_MAX] {
        std::array::from_fn(|dimension| if dimension < self.unused { 1 } else { 4 })
    }

    /// Takes the block out of a layer; where the array ends, it is filled up as zfp does it.
    pub(super) fn gather<T: Element>(&self, layer: &[u8], block: &mut [T]) {
        let (at, steps) = (self.offsets(), self.steps());
        let is_whole = self.there()[3] == 4;
        let mut values = block.iter_mut();
        for w in &at[0][..steps[0]] {
            for z in &at[1][..steps[1]] {
                for y in &at[2][..steps[2]] {
                    let row = &layer[(w + z + y + at[3][0]) * T::BYTES..];
                    if let Some(row) = row.get(..4 * T::BYTES).filter(|_| is_whole) {
                        for (bytes, value) in row.chunks_exact(T::BYTES).zip(&mut values) {
                            *value = T::get(bytes);
                        }
                        continue;
                    }
                    for (x, value) in at[3].iter().zip(&mut values) {
                        *value = T::get(&row[(x - at[3][0]) * T::BYTES..]);
                    }
                }
            }
        }
    }

    /// Puts the block into a layer, as far as the array goes.
    pub(super) fn scatter<T: Element>(&self, block: &[T], layer: &mut [u8]) {
        let (at, there) = (self.offsets(), self.there());
        let stride = |dimension: usize| 1_usize << (2 * (DIMENSIONS_MAX - 1 - dimension));
        for (w, z) in (0..there[0]).flat_map(|w| (0..there[1]).map(move |z| (w, z))) {
            for y in 0..there[2] {
                // Values of the fastest dimension follow each other, here and there.
                let from = w * stride(0) + z * stride(1) + y * stride(2);
                let to = (at[0][w] + at[1][z] + at[2][y] + at[3][0]) * T::BYTES;
                let row = layer[to..to + there[3] * T::BYTES].chunks_exact_mut(T::BYTES);
                block[from..from + there[3]].iter().zip(row).for_each(|(value, to)| value.put(to));
            }
        }
    }
}

/// Which of the values of a block that there are stands for one of its four (`pad_block`).
fn filled_up(value: usize, there: usize) -> usize {
    match (value, there) {
        (value, there) if value < there => value,
        (2, 2) => 1,
        _ => 0,
    }
}
