//! Decompresses an array, layer by layer.

use bagpress_zfp::{Header, Reader};

use super::layer::{Element, LayerBlocks, Layers, by_scalar};
use super::npy;
use super::sections::Sections;
use super::terms::{FORMAT, scalar_of};
use crate::Error;
use crate::array::{ArrayParameters, Form};
use crate::grid::{Grid, Shape};
use crate::stream::{Decoder, Progress, SEGMENT_BYTES};

pub(super) struct ZfpDecoder {
    form: Form,
    reader: Option<Reader>,
    /// Once the header is known.
    open: Option<Open>,
    /// Bytes that are made, of which `given..` are still to be handed out: a layer, or what stands before it.
    made: Vec<u8>,
    given: usize,
}

struct Open {
    layers: Layers,
    /// At which bit the first layer begins.
    begins: u64,
    /// The blocks of the next layer that are still to come; `made` is being filled with it.
    blocks: Option<LayerBlocks>,
}

impl ZfpDecoder {
    pub(super) fn new(array: ArrayParameters) -> Self {
        Self { form: array.form, reader: None, open: None, made: Vec::new(), given: 0 }
    }

    /// The same of some layers alone, of a stream with this header, of which what is fed begins so many bits before the first of them. None
    /// if there is no memory.
    pub(super) fn entered(
        array: ArrayParameters,
        (header, bits): (&Header, u32),
        (layers, from_start): (Layers, bool),
    ) -> Option<Self> {
        let mut reader = Reader::new()?;
        reader.enter(header, bits);
        let mut made = Vec::new();
        if from_start && array.form == Form::Npy {
            made.extend_from_slice(&npy::header(&layers.grid()));
        }
        let open = Some(Open { layers, begins: bits.into(), blocks: None });
        Some(Self { form: array.form, reader: Some(reader), open, made, given: 0 })
    }

    /// Type and shape, once the header was read.
    pub(super) fn grid(&self) -> Option<Grid> {
        self.open.as_ref().map(|open| open.layers.grid())
    }

    /// How the array is cut into sections of `bytes_min` or more, once the header was read; none, if it has just one.
    pub(super) fn sections(&self, bytes_min: u64) -> Option<Sections> {
        let Open { layers, begins, .. } = self.open.as_ref()?;
        Sections::new(layers, self.form, *begins, bytes_min)
    }

    /// At which bit the next layer begins, once all of the one before was handed out and nothing more was asked for.
    pub(super) fn position(&self) -> u64 {
        self.reader.as_ref().map_or(0, Reader::position)
    }

    /// Makes the next layer, as far as the bytes that were fed go; false, if more are needed, or nothing follows.
    fn make(&mut self) -> Result<bool, Error> {
        let Some(reader) = &mut self.reader else { return Ok(false) };
        let Some(open) = &mut self.open else {
            let no_header = |_| corrupt("it begins with no header of zfp");
            let Some(header) = reader.header().map_err(no_header)? else { return Ok(false) };
            let open = Open::new(&header, reader.position(), self.form)?;
            self.made.clear();
            self.given = 0;
            if self.form == Form::Npy {
                self.made.extend_from_slice(&npy::header(&open.layers.grid()));
            }
            self.open = Some(open);
            return Ok(true);
        };
        if open.layers.next_bytes() == 0 {
            return Ok(false);
        }
        let made = &mut self.made;
        let whole = by_scalar!(open.layers.grid().scalar, T => open.layer::<T>(reader, made));
        if whole {
            self.given = 0;
        }
        Ok(whole)
    }
}

impl Open {
    fn new(header: &Header, begins: u64, form: Form) -> Result<Self, Error> {
        let shape = Shape::new(&header.shape[..header.dimensions])
            .map_err(|why| corrupt(&why.to_string()))?;
        let grid = Grid { scalar: scalar_of(header.kind), shape };
        if let Form::Grid(expected) = form
            && expected != grid
        {
            return Err(corrupt(&format!("its header says {grid}, and not {expected}")));
        }
        Ok(Self { layers: Layers::new(grid)?, begins, blocks: None })
    }

    /// Whether the next layer is whole in `made`.
    fn layer<T: Element>(&mut self, reader: &mut Reader, made: &mut Vec<u8>) -> bool {
        let blocks = match &mut self.blocks {
            Some(blocks) => blocks,
            none => {
                made.resize(self.layers.next_bytes(), 0);
                none.insert(self.layers.blocks())
            }
        };
        let mut block = [T::default(); 256];
        let block = &mut block[..blocks.values()];
        while !blocks.ended() {
            if !reader.block(block) {
                return false;
            }
            blocks.scatter(block, made);
            blocks.step();
        }
        self.blocks = None;
        self.layers.step();
        true
    }
}

fn corrupt(reason: &str) -> Error {
    Error::Corrupt { format: FORMAT, reason: reason.to_owned() }
}

impl Decoder for ZfpDecoder {
    fn read_into(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Error> {
        if self.reader.is_none() {
            let no_memory = || Error::Decoder { format: FORMAT, reason: "no memory".to_owned() };
            self.reader = Some(Reader::new().ok_or_else(no_memory)?);
        }
        let mut progress = Progress { consumed: 0, produced: 0 };
        loop {
            let is_whole = self.open.as_ref().is_none_or(|open| open.blocks.is_none());
            if is_whole && self.given < self.made.len() {
                let room = &mut output[progress.produced..];
                let bytes = room.len().min(self.made.len() - self.given);
                room[..bytes].copy_from_slice(&self.made[self.given..self.given + bytes]);
                self.given += bytes;
                progress.produced += bytes;
                if progress.produced == output.len() {
                    return Ok(progress);
                }
            }
            if self.make()? {
                continue;
            }
            let Some(reader) = &mut self.reader else { return Ok(progress) };
            let fed = reader.feed(&input[progress.consumed..]);
            progress.consumed += fed;
            let ended = self.open.as_ref().is_some_and(|open| open.layers.next_bytes() == 0);
            if ended && reader.trailing_bytes() > 0 {
                return Err(Error::TrailingBytes { format: FORMAT });
            }
            if fed == 0 {
                return Ok(progress);
            }
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        let ended = self.open.as_ref().is_some_and(|open| open.layers.next_bytes() == 0);
        if ended { Ok(()) } else { Err(Error::EndedEarly { format: FORMAT }) }
    }

    fn reset(&mut self) {
        if let Some(reader) = &mut self.reader {
            reader.reset();
        }
        self.open = None;
        self.made.clear();
        self.made.shrink_to(SEGMENT_BYTES);
        self.given = 0;
    }
}
