//! Decodes each part of an output as it is made, and compares it with the input that made it.

use crate::check::Check;
use crate::{Codec, Decoder, EntryPoint, Error, Fidelity};

/// Decoded bytes that are compared at once; small enough for the nearer caches.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Verifies while compressing: no second pass, and no second copy of the input.
///
/// Feed it, in order, what the encoder made of each segment. When [`finish`](Self::finish) returns
/// `Ok`, the concatenated outputs are one complete stream which decodes to exactly the concatenated
/// inputs; or, for a codec of arrays that is not asked to keep every bit, to values that are as near to them as was asked. For
/// a codec that stores nothing it checks that nothing was stored.
///
/// After an error it is of no more use.
pub struct Verifier(Box<dyn Check>);

impl Verifier {
    /// Begins a stream of `codec`; its level does not matter.
    #[must_use]
    pub fn new(codec: &Codec) -> Self {
        Self(codec.check().unwrap_or_else(|| Box::new(Exact::new(codec))))
    }

    /// Checks that `output`, which is what [`Encoder::write`](crate::Encoder::write) appended for
    /// `input`, decodes to exactly `input`. Of an array, that is found out as soon as both sides are there.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] at the first byte that differs, is missing or is too much, [`Error::Array`] if a value is too far off,
    /// and the errors of [`Decoder::read_into`].
    pub fn check(&mut self, input: &[u8], output: &[u8]) -> Result<(), Error> {
        self.0.check(input, output)
    }

    /// Checks that `output`, which is what [`Encoder::finish`](crate::Encoder::finish) appended,
    /// decodes to nothing more and ends the stream.
    ///
    /// # Errors
    ///
    /// Those of [`check`](Self::check), and [`Error::EndedEarly`].
    pub fn finish(&mut self, output: &[u8]) -> Result<(), Error> {
        self.0.finish(output)
    }

    /// Begins another stream of the same codec, as a new verifier would. After an error make a new one.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// How far the decoded values of a finished stream are off; none, where every bit was compared.
    #[must_use]
    pub fn fidelity(&self) -> Option<Fidelity> {
        self.0.fidelity()
    }

    /// Where a finished stream can be entered, at most [`EntryPoint::MAX`] places; none, if it is short, or its codec has none but those
    /// that its streams tell themselves.
    #[must_use]
    pub fn entry_points(&self) -> &[EntryPoint] {
        self.0.entry_points()
    }
}

/// Segment by segment and byte by byte.
struct Exact {
    decoder: Box<dyn Decoder>,
    stores_nothing: bool,
    scratch: Vec<u8>,
    /// Input bytes that were compared and found equal.
    verified_bytes: u64,
}

impl Exact {
    fn new(codec: &Codec) -> Self {
        let stores_nothing = codec.stores_nothing();
        let scratch = if stores_nothing { Vec::new() } else { vec![0; SCRATCH_BYTES] };
        Self { decoder: codec.decoder(), stores_nothing, scratch, verified_bytes: 0 }
    }
}

impl Check for Exact {
    fn check(&mut self, input: &[u8], output: &[u8]) -> Result<(), Error> {
        let (mut expected, mut rest) = (input, output);
        loop {
            let progress = self.decoder.read_into(rest, &mut self.scratch)?;
            rest = &rest[progress.consumed..];
            let decoded = &self.scratch[..progress.produced];
            let same = expected.len().min(decoded.len());
            if expected[..same] != decoded[..same] || decoded.len() > same {
                let equal = expected.iter().zip(decoded).take_while(|(a, b)| a == b).count();
                return Err(Error::Mismatch { offset: self.verified_bytes + equal as u64 });
            }
            expected = &expected[same..];
            self.verified_bytes += same as u64;
            if progress.consumed == 0 && progress.produced == 0 {
                break;
            }
        }
        let complete = rest.is_empty() && (expected.is_empty() || self.stores_nothing);
        if complete { Ok(()) } else { Err(Error::Mismatch { offset: self.verified_bytes }) }
    }

    fn finish(&mut self, output: &[u8]) -> Result<(), Error> {
        self.check(&[], output)?;
        self.decoder.finish()
    }

    fn reset(&mut self) {
        self.decoder.reset();
        self.verified_bytes = 0;
    }
}
