//! Compares decoded values with those of the input: byte by byte, or with a bound.

use super::decode::ZfpDecoder;
use super::layer::{Element, by_scalar};
use super::npy;
use super::sections::{SECTION_BYTES_MIN, Sections};
use super::terms::refused;
use crate::array::{ArrayParameters, Mode};
use crate::check::Check;
use crate::entry_point::EntryPoint;
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
    /// The least bytes of a section.
    section_bytes_min: u64,
    /// Of an array that has more than one, once type and shape are known.
    sections: Option<Sections>,
    fidelity: Option<Fidelity>,
    entry_points: Vec<EntryPoint>,
}

impl ArrayCheck {
    pub(super) fn new(array: ArrayParameters) -> Self {
        Self {
            array,
            decoder: ZfpDecoder::new(array),
            scratch: vec![0; SCRATCH_BYTES],
            input: Vec::new(),
            compared: 0,
            header_left: npy::header_bytes(array.form),
            decoded: Vec::new(),
            verified_bytes: 0,
            errors: Errors::new(),
            hasher: Hasher::new(),
            section_bytes_min: SECTION_BYTES_MIN,
            sections: None,
            fidelity: None,
            entry_points: Vec::new(),
        }
    }

    /// Compares what was decoded so far with as much of the input.
    fn compare(&mut self) -> Result<(), Error> {
        let equal = match (self.array.mode, self.decoder.grid()) {
            (Mode::Reversible, _) | (_, None) => self.decoded.len(),
            _ => self.header_left.min(self.decoded.len()),
        };
        let front = &self.decoded[..equal];
        let expected = self.input.get(self.compared..self.compared + equal).unwrap_or_default();
        if front != expected {
            let same = expected.iter().zip(front).take_while(|(a, b)| a == b).count();
            return Err(Error::Mismatch { offset: self.verified_bytes + same as u64 });
        }
        self.decoded.drain(..equal);
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

impl Check for ArrayCheck {
    fn check(&mut self, input: &[u8], output: &[u8]) -> Result<(), Error> {
        self.input.extend_from_slice(input);
        let mut rest = output;
        loop {
            // Before they are known, nothing is to be handed out that might be more than the first.
            let is_known = self.decoder.grid().is_some();
            let most = if is_known { SCRATCH_BYTES } else { 0 };
            let room = self.sections.as_ref().map_or(most, |sections| sections.room(most));
            let progress = self.decoder.read_into(rest, &mut self.scratch[..room])?;
            rest = &rest[progress.consumed..];
            let made = &self.scratch[..progress.produced];
            if self.array.is_lossy() {
                self.hasher.update(made);
            }
            if !is_known {
                self.sections = self.decoder.sections(self.section_bytes_min);
            }
            if let Some(sections) = &mut self.sections {
                sections.take(made, self.decoder.position());
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
        self.entry_points = self.sections.take().map(Sections::finish).unwrap_or_default();
        Ok(())
    }

    fn reset(&mut self) {
        self.decoder.reset();
        self.input.clear();
        self.input.shrink_to(crate::stream::SEGMENT_BYTES);
        self.decoded.clear();
        (self.compared, self.verified_bytes) = (0, 0);
        self.header_left = npy::header_bytes(self.array.form);
        (self.errors, self.hasher, self.fidelity) = (Errors::new(), Hasher::new(), None);
        self.sections = None;
        self.entry_points.clear();
    }

    fn fidelity(&self) -> Option<Fidelity> {
        self.fidelity
    }

    fn entry_points(&self) -> &[EntryPoint] {
        &self.entry_points
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystream::Keystream;
    use crate::{Codec, DataKind, Decoded, Digest, Generator, Grid};

    /// What is drawn from a seed.
    struct Drawn(Keystream);

    impl Drawn {
        /// From 1 to `most`.
        fn upto(&mut self, most: u64) -> u64 {
            let mut bytes = [0; 8];
            self.0.fill(&mut bytes);
            u64::from_le_bytes(bytes) % most + 1
        }

        /// So many dimensions of `least` values or more.
        fn extents(&mut self, dimensions: u32, least: u64) -> String {
            let most = [9_000, 120, 24, 12][dimensions as usize - 1];
            let extents = (0..dimensions).map(|_| (self.upto(most) + least - 1).to_string());
            extents.collect::<Vec<_>>().join("x")
        }
    }

    fn field(grid: &Grid) -> Vec<u8> {
        let kind: DataKind = format!("field-rough:{grid}").parse().unwrap();
        let mut bytes = vec![0; usize::try_from(grid.bytes()).unwrap()];
        Generator::new(kind, 1, 2, grid.bytes()).fill(&mut bytes);
        bytes
    }

    /// A stream that is verified in segments of a size, and where it can be entered.
    fn verified(
        codec: &Codec,
        input: &[u8],
        (segment, section): (usize, u64),
    ) -> (Vec<u8>, Vec<EntryPoint>) {
        let text = codec.to_string();
        let parameters = ArrayParameters::parse("zfp", &text[4..]).unwrap();
        let (mut encoder, mut check) = (codec.encoder(), ArrayCheck::new(parameters));
        check.section_bytes_min = section;
        let mut output = Vec::new();
        for segment in input.chunks(segment) {
            let start = output.len();
            encoder.write(segment, &mut output).unwrap();
            check.check(segment, &output[start..]).unwrap();
        }
        let start = output.len();
        encoder.finish(&mut output).unwrap();
        check.finish(&output[start..]).unwrap();
        (output, check.entry_points().to_vec())
    }

    /// What a decoder makes, which gets a piece of a stream at a time.
    fn decoded(decoder: &mut dyn Decoder, stream: &[u8], piece: usize) -> Vec<u8> {
        let (mut all, mut part) = (Vec::new(), vec![0; 777]);
        for piece in stream.chunks(piece) {
            let mut parts = Decoded::new(decoder, piece, &mut part);
            while let Some(made) = parts.next().unwrap() {
                all.extend_from_slice(made);
            }
        }
        decoder.finish().unwrap();
        all
    }

    #[test]
    fn from_every_entry_point_decodes_what_the_whole_has_there() {
        let (mut sections_of_more, mut within_a_word) = (0, 0);
        for seed in 0..6 {
            let mut drawn = Drawn(Keystream::new(seed, 0));
            for (scalar, dimensions) in ["i32", "i64", "f32", "f64"]
                .into_iter()
                .flat_map(|of| (1..=4).map(move |d| (of, d)))
            {
                for mode in ["reversible", "rate=9", "precision=17", "accuracy=1e-2"] {
                    if mode.starts_with("accuracy") && scalar.starts_with('i') {
                        continue;
                    }
                    // Thin ones are refused as files of numpy.
                    let npy = dimensions <= 2 && drawn.upto(2) == 1;
                    let shape = drawn.extents(dimensions, if npy { 4 } else { 1 });
                    let grid: Grid = format!("{scalar},{shape}").parse().unwrap();

                    let (text, front) = if npy {
                        (format!("zfp:{mode}"), npy::header(&grid).to_vec())
                    } else {
                        (format!("zfp:{mode},{grid}"), Vec::new())
                    };
                    let codec: Codec = text.parse().unwrap();
                    let input = [front, field(&grid)].concat();
                    let segment = usize::try_from(drawn.upto(20_000)).unwrap();
                    let section = drawn.upto(grid.bytes().min(100_000));
                    let (stream, points) = verified(&codec, &input, (segment, section));
                    let whole = decoded(&mut *codec.decoder(), &stream, 1000);
                    let begin = &stream[..stream.len().min(Codec::BEGIN_BYTES)];
                    let Some(sections) = codec.sections(begin, &points, stream.len() as u64) else {
                        assert!(points.is_empty(), "{codec}: {points:?}");
                        continue;
                    };
                    assert!(points.len() > 1 && points.len() == sections.len(), "{codec}");
                    let mut at = 0;
                    for (point, section) in points.iter().zip(&sections) {
                        let place = |at: u64| usize::try_from(at).unwrap();
                        let bytes = &stream[place(section.stream.start)..place(section.stream.end)];
                        let mut decoder = codec.section_decoder(begin, section).unwrap();
                        let made = decoded(&mut *decoder, bytes, 999);
                        let (from, to) = (place(section.decoded.start), place(section.decoded.end));
                        assert!(made == whole[from..to], "{codec} {section:?}");
                        assert_eq!((from, point.digest), (at, Digest::of(&made)), "{codec}");
                        at = to;
                        within_a_word += u32::from(section.bit > 0);
                    }
                    assert_eq!(at, whole.len(), "{codec}");
                    sections_of_more += points.len();
                }
            }
        }
        assert!(
            sections_of_more > 800 && within_a_word > 400,
            "{sections_of_more} {within_a_word}"
        );
    }
}
