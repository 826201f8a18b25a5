//! How much larger than its inputs the outputs of a bag may be.

use bagpress_codec::{Codec, Grid};

/// Bytes that the outputs of so many tasks may have beyond those of their inputs, all together.
pub(crate) fn growth_bytes(codec: &Codec, tasks: u32, input_bytes: u64) -> u64 {
    let each = |grid: Grid| codec.output_bytes_max(grid.bytes()).saturating_sub(grid.bytes());
    match codec.grid() {
        Some(grid) => each(grid).saturating_mul(tasks.into()),
        // A seventh where nothing is lost and nothing can be won, and one block that is not full.
        None if codec.takes_arrays() => {
            let one = codec.output_bytes_max(0).saturating_mul(tasks.into());
            (input_bytes / 7).saturating_add(one)
        }
        None => input_bytes / 1024,
    }
}
