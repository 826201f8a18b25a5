//! Compares decoded values with those of the input: byte by byte, or with a bound.

use super::decode::ZfpDecoder;
use super::layer::{Element, by_scalar};
use super::npy;
use super::terms::refused;
use crate::array::{ArrayParameters, Form, Mode};
use crate::check::Check;
use crate::error::ArrayFault;
use crate::fidelity::{Errors, Fidelity};
use crate::stream::Decoder;
use crate::{Error, Hasher};

/// Decoded bytes that are compared at once.
const SCRATCH_BYTES: usize = 64 * 1024;

pub(super) struct ArrayCheck {
    array: ArrayParameters,
    decoder: ZfpDecoder,
    scratch: Vec<u8>,
    /// Input that was not compared yet, from `compared` on: a layer, and what came with it.
    input: Vec<u8>,
    compared: usize,
    /// Bytes before the values that are still to be compared, byte by byte.
    header_left: usize,
    /// What was decoded and is not compared: less than a value.
    decoded: Vec<u8>,
    verified_bytes: u64,
    errors: Errors,
    hasher: Hasher,
    fidelity: Option<Fidelity>,
}

impl ArrayCheck {
    pub(super) fn new(array: ArrayParameters) -> Self {
        Self {
            array,
            decoder: ZfpDecoder::new(array),
            scratch: vec![0; SCRATCH_BYTES],
            input: Vec::new(),
            compared: 0,
            header_left: header_bytes(array),
            decoded: Vec::new(),
            verified_bytes: 0,
            errors: Errors::new(),
            hasher: Hasher::new(),
            fidelity: None,
        }
    }

    /// Compares what was decoded so far with as much of the input.
    fn compare(&mut self) -> Result<(), Error> {
        let equal = match (self.array.mode, self.decoder.grid()) {
            (Mode::Reversible, _) | (_, None) => self.decoded.len(),
            _ => self.header_left.min(self.decoded.len()),
        };
        let front: Vec<u8> = self.decoded.drain(..equal).collect();
        let expected = self.input.get(self.compared..self.compared + equal).unwrap_or_default();
        if front != expected {
            let same = expected.iter().zip(&front).take_while(|(a, b)| a == b).count();
            return Err(Error::Mismatch { offset: self.verified_bytes + same as u64 });
        }
        self.took(equal);
        self.header_left -= equal.min(self.header_left);
        if let Some(grid) = self.decoder.grid().filter(|_| !self.decoded.is_empty()) {
            by_scalar!(grid.scalar, T => self.compare_values::<T>())?;
        }
        Ok(())
    }

    fn compare_values<T: Element>(&mut self) -> Result<(), Error> {
        let bytes = self.decoded.len() / T::BYTES * T::BYTES;
        let Some(expected) = self.input.get(self.compared..self.compared + bytes) else {
            return Err(Error::Mismatch { offset: self.verified_bytes });
        };
        let values = expected.chunks_exact(T::BYTES).zip(self.decoded.chunks_exact(T::BYTES));
        for (at, (original, decoded)) in values.enumerate() {
            let (original, decoded) = (T::get(original), T::get(decoded));
            let error = decoded.off(original);
            self.errors.add(original.number(), error);
            if let Mode::Accuracy(tolerance) = self.array.mode
                // Not a number is too far off, too.
                && !matches!(error.partial_cmp(&tolerance.get()), Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal))
            {
                let offset = self.verified_bytes + (at * T::BYTES) as u64;
                let reason = format!(
                    "the value {} at byte {offset} came out as {}, {error:e} off, and {tolerance} was asked: that is finer than \
                     its type is beside so large values; use a larger accuracy, or reversible",
                    original.number(),
                    decoded.number()
                );
                return refused(ArrayFault::BoundViolated, reason);
            }
        }
        self.decoded.drain(..bytes);
        self.took(bytes);
        Ok(())
    }

    /// So many bytes of the input were compared.
    fn took(&mut self, bytes: usize) {
        self.compared += bytes;
        self.verified_bytes += bytes as u64;
        // In large steps, so that not every segment moves a layer.
        if self.compared > self.input.len() / 2 {
            self.input.drain(..self.compared);
            self.compared = 0;
        }
    }
}

fn header_bytes(array: ArrayParameters) -> usize {
    if array.form == Form::Npy { npy::HEADER_BYTES } else { 0 }
}

impl Check for ArrayCheck {
    fn check(&mut self, input: &[u8], output: &[u8]) -> Result<(), Error> {
        self.input.extend_from_slice(input);
        let mut rest = output;
        loop {
            let progress = self.decoder.read_into(rest, &mut self.scratch)?;
            rest = &rest[progress.consumed..];
            let made = &self.scratch[..progress.produced];
            if self.array.is_lossy() {
                self.hasher.update(made);
            }
            self.decoded.extend_from_slice(made);
            self.compare()?;
            if progress.consumed == 0 && progress.produced == 0 {
                break;
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(Error::Mismatch { offset: self.verified_bytes }) }
    }

    fn finish(&mut self, output: &[u8]) -> Result<(), Error> {
        self.check(&[], output)?;
        self.decoder.finish()?;
        if self.compared < self.input.len() || !self.decoded.is_empty() {
            return Err(Error::Mismatch { offset: self.verified_bytes });
        }
        if self.array.is_lossy() {
            let digest = std::mem::take(&mut self.hasher).finish();
            let is_bounded = matches!(self.array.mode, Mode::Accuracy(_));
            self.fidelity = Some(self.errors.fidelity(is_bounded, digest));
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.decoder.reset();
        self.input.clear();
        self.input.shrink_to(crate::stream::SEGMENT_BYTES);
        self.decoded.clear();
        (self.compared, self.verified_bytes) = (0, 0);
        self.header_left = header_bytes(self.array);
        (self.errors, self.hasher, self.fidelity) = (Errors::new(), Hasher::new(), None);
    }

    fn fidelity(&self) -> Option<Fidelity> {
        self.fidelity
    }
}
