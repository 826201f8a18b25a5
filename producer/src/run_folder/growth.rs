//! How much larger than its inputs the outputs of a bag may be.

use bagpress_codec::{Codec, Grid};

/// Bytes that the outputs of so many tasks may have beyond those of their inputs, all together, where each task has any of these
/// codecs: which has which, the lists say.
pub(crate) fn growth_bytes<'a>(
    codecs: impl Iterator<Item = &'a Codec>,
    tasks: u32,
    input_bytes: u64,
) -> u64 {
    let (mut arrays, mut others) = (0_u64, 0);
    for codec in codecs {
        let growth = of_one(codec, tasks, input_bytes);
        if codec.takes_arrays() {
            arrays = arrays.saturating_add(growth);
        } else {
            others = growth.max(others);
        }
    }
    arrays.saturating_add(others)
}

fn of_one(codec: &Codec, tasks: u32, input_bytes: u64) -> u64 {
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
