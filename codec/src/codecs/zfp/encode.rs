//! Compresses an array, layer by layer.

use bagpress_zfp::{Header, Writer};

use super::layer::{Element, Layers, by_scalar};
use super::npy;
use super::terms::{FORMAT, blocks_of, kind_of, npy_output_bytes_max, refused, stream_bytes_max};
use crate::Error;
use crate::array::{ArrayParameters, Form, Mode};
use crate::error::ArrayFault;
use crate::grid::Grid;
use crate::stream::Encoder;

pub(super) struct ZfpEncoder {
    array: ArrayParameters,
    stage: Stage,
    /// Input that is no whole layer yet.
    pending: Vec<u8>,
    /// Input bytes so far.
    taken: u64,
}

enum Stage {
    /// Before type and shape are known.
    New,
    Open(Box<Open>),
    Finished,
}

struct Open {
    layers: Layers,
    writer: Writer,
    /// Length of the whole input.
    input_bytes: u64,
}

impl ZfpEncoder {
    pub(super) fn new(array: ArrayParameters) -> Self {
        Self { array, stage: Stage::New, pending: Vec::new(), taken: 0 }
    }

    /// Begins the stream, once type and shape are known.
    fn open(&mut self) -> Result<(), Error> {
        match self.stage {
            Stage::Open(_) => return Ok(()),
            Stage::Finished => return Err(Error::Finished { format: FORMAT }),
            Stage::New => {}
        }
        let (grid, header_bytes) = match self.array.form {
            Form::Grid(grid) => (grid, 0),
            Form::Raw => {
                let reason = "the type and the shape of bare values are not known: name them, with --dtype and --shape";
                return refused(ArrayFault::Unsupported, reason.to_owned());
            }
            Form::Npy => match npy::read(&self.pending)? {
                Some(grid) => (grid, npy::HEADER_BYTES),
                None => return Ok(()),
            },
        };
        self.array.mode.check(&grid)?;
        let input_bytes = grid.bytes() + header_bytes as u64;
        if header_bytes > 0
            && stream_bytes_max(self.array.mode, &grid) > npy_output_bytes_max(input_bytes)
        {
            let reason = format!(
                "{grid} may become larger than four times itself, since blocks of four values in each dimension are filled up: \
                 reshape it, so that it has no dimensions of 1 to 3 values"
            );
            return refused(ArrayFault::Unsupported, reason);
        }
        self.pending.drain(..header_bytes);
        self.stage = Stage::Open(Box::new(Open::new(self.array.mode, grid, input_bytes)?));
        Ok(())
    }

    /// Compresses the layers that are whole.
    fn compress(&mut self, output: &mut Vec<u8>) -> Result<(), Error> {
        let Stage::Open(open) = &mut self.stage else { return Ok(()) };
        let mut done = 0;
        loop {
            let bytes = open.layers.next_bytes();
            let Some(layer) = self.pending.get(done..done + bytes).filter(|_| bytes > 0) else {
                break;
            };
            by_scalar!(open.layers.grid().scalar, T => open.layer::<T>(self.array.mode, layer, output))?;
            open.layers.step();
            done += bytes;
        }
        self.pending.drain(..done);
        open.writer.drain(output);
        if self.taken > open.input_bytes {
            return open.has_other_length("more bytes follow");
        }
        Ok(())
    }
}

impl Open {
    fn new(mode: Mode, grid: Grid, input_bytes: u64) -> Result<Self, Error> {
        let layers = Layers::new(grid)?;
        let (extents, mut shape) = (grid.shape.extents(), [1; 4]);
        shape[..extents.len()].copy_from_slice(extents);
        let parameters = blocks_of(mode, &grid);
        let kind = kind_of(grid.scalar);
        let header = Header { kind, shape, dimensions: extents.len(), parameters };
        let no_memory = || Error::Encoder { format: FORMAT, reason: "no memory".to_owned() };
        let writer = Writer::new(&header).ok_or_else(no_memory)?;
        Ok(Self { layers, writer, input_bytes })
    }

    fn layer<T: Element>(
        &mut self,
        mode: Mode,
        layer: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if mode != Mode::Reversible {
            self.check_values::<T>(layer)?;
        }
        let mut blocks = self.layers.blocks();
        let mut block = [T::default(); 256];
        let block = &mut block[..blocks.values()];
        while !blocks.ended() {
            blocks.gather(layer, block);
            self.writer.block(block, output);
            blocks.step();
        }
        Ok(())
    }

    /// Refuses values of which zfp makes anything when it does not keep every bit.
    fn check_values<T: Element>(&self, layer: &[u8]) -> Result<(), Error> {
        let values = || layer.chunks_exact(T::BYTES).map(T::get);
        if values().all(|value| value.unfit().is_none()) {
            return Ok(());
        }
        let first = values().enumerate().find_map(|(at, value)| Some((at, value, value.unfit()?)));
        let Some((at, value, fault)) = first else { return Ok(()) };
        let grid = self.layers.grid();
        let before = (grid.bytes() - self.layers.bytes_left()) / T::BYTES as u64;
        let (place, value) = (place(&grid, before + at as u64), value.number());
        let why = match fault {
            ArrayFault::NonFinite => "only the mode reversible keeps what is not a finite number",
            _ => {
                "only the mode reversible takes integers of the full range: use it, or make them smaller"
            }
        };
        refused(fault, format!("the value at {place} is {value}: {why}"))
    }

    fn has_other_length<T>(&self, what: &str) -> Result<T, Error> {
        let reason = format!("{} has {} bytes, and {what}", self.layers.grid(), self.input_bytes);
        refused(ArrayFault::ShapeMismatch, reason)
    }
}

/// The indices of a value, the slowest first, as numpy writes them.
fn place(grid: &Grid, value: u64) -> String {
    let mut left = value;
    let mut indices: Vec<_> = grid
        .shape
        .extents()
        .iter()
        .rev()
        .map(|extent| {
            let index = left % extent;
            left /= extent;
            index.to_string()
        })
        .collect();
    indices.reverse();
    format!("[{}]", indices.join(", "))
}

impl Encoder for ZfpEncoder {
    fn write(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        self.taken += input.len() as u64;
        self.pending.extend_from_slice(input);
        self.open()?;
        self.compress(output)
    }

    fn finish(&mut self, output: &mut Vec<u8>) -> Result<(), Error> {
        self.open()?;
        self.compress(output)?;
        match std::mem::replace(&mut self.stage, Stage::Finished) {
            Stage::Open(open) if open.layers.next_bytes() == 0 => {
                open.writer.finish(output);
                Ok(())
            }
            Stage::Open(open) => open.has_other_length(&format!("the input has {}", self.taken)),
            Stage::New | Stage::Finished => {
                let reason = format!(
                    "the input ends after {} bytes, within the header of a .npy file",
                    self.taken
                );
                refused(ArrayFault::Unsupported, reason)
            }
        }
    }

    fn reset(&mut self) {
        self.stage = Stage::New;
        self.taken = 0;
        self.pending.clear();
        self.pending.shrink_to(crate::stream::SEGMENT_BYTES);
    }
}
