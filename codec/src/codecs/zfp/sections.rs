//! The sections of an array: layers that are entered together, of which each section is hashed while it is decoded.

use super::layer::Layers;
use super::npy;
use crate::Hasher;
use crate::array::Form;
use crate::entry_point::EntryPoint;

/// The fewest bytes that a section decodes to, but for the last: half of what a block of any other codec has, and an array of less
/// is decoded in the time that a program takes to start.
pub(super) const SECTION_BYTES_MIN: u64 = 4 << 20;

/// The sections of an array that is being decoded.
pub(super) struct Sections {
    /// Layers of each but the last, which may have fewer.
    layers: u64,
    /// Bytes that so many layers decode to.
    bytes: u64,
    /// The sections that are whole.
    points: Vec<EntryPoint>,
    /// At which bit the next one begins.
    begins: u64,
    /// What was decoded of it.
    hasher: Hasher,
    /// Bytes that it still needs to be whole.
    left: u64,
}

impl Sections {
    /// Those of an array whose first layer begins at bit `begins`, each of which decodes to `bytes_min` or more, but for the last; none, if
    /// it has just one.
    pub(super) fn new(layers: &Layers, form: Form, begins: u64, bytes_min: u64) -> Option<Self> {
        let count = layers.grid().bytes().div_ceil(layers.layer_bytes());
        let fewest = bytes_min.div_ceil(layers.layer_bytes());
        let each = fewest.max(count.div_ceil(EntryPoint::MAX as u64));
        let bytes = each.checked_mul(layers.layer_bytes()).filter(|_| count > each)?;
        let (points, hasher, left) =
            (Vec::new(), Hasher::new(), npy::header_bytes(form) as u64 + bytes);
        Some(Self { layers: each, bytes, points, begins, hasher, left })
    }

    /// How many bytes may be decoded next, at most `most`: no section is to be left behind before it was seen to end.
    pub(super) fn room(&self, most: usize) -> usize {
        usize::try_from(self.left).map_or(most, |left| left.min(most))
    }

    /// Takes what was decoded next, no more than there is [`room`](Self::room) for. If it ends a section, the next one begins at bit `position`.
    pub(super) fn take(&mut self, made: &[u8], position: u64) {
        self.hasher.update(made);
        self.left -= made.len() as u64;
        if self.left == 0 {
            self.push();
            (self.begins, self.left) = (position, self.bytes);
        }
    }

    fn push(&mut self) {
        let part = self.points.len() as u64 * self.layers;
        let digest = std::mem::take(&mut self.hasher).finish();
        self.points.push(EntryPoint { part, bit: self.begins, digest });
    }

    /// Where each begins, once all layers were taken.
    pub(super) fn finish(mut self) -> Vec<EntryPoint> {
        if self.left < self.bytes {
            self.push();
        }
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Grid;

    /// The layers of each section, and how many sections there are.
    fn sections(grid: &str) -> Option<(u64, u64)> {
        let grid: Grid = grid.parse().unwrap();
        let layers = Layers::new(grid).unwrap();
        let sections = Sections::new(&layers, Form::Grid(grid), 96, SECTION_BYTES_MIN)?;
        Some((sections.layers, grid.bytes().div_ceil(sections.bytes)))
    }

    #[test]
    fn an_array_has_few_sections_of_some_megabytes_and_a_small_one_has_none() {
        assert_eq!(sections("f32,8x256x256"), None, "2 MiB");
        assert_eq!(sections("f32,16x256x256"), None, "4 MiB");
        assert_eq!(sections("f32,17x256x256"), Some((4, 2)));
        assert_eq!(sections("f32,128x256x256"), Some((4, 8)), "32 MiB");
        assert_eq!(sections("i32,8388608"), Some((1 << 18, 8)), "the same in one dimension");
        assert_eq!(sections("f64,4096x16x64x64"), Some((16, 64)), "2 GiB");
        assert_eq!(sections("f64,65536x1024x512"), Some((256, 64)), "256 GiB");
        assert_eq!(sections("f32,4x2000x2000"), None, "one layer of 61 MiB");
        assert_eq!(sections("f32,9x2000x2000"), Some((1, 3)));
    }
}
