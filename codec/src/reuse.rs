//! Encoders and verifiers that are used again, since a new one costs more than a small input.

use crate::{Codec, Encoder, Verifier};

/// Keeps the encoder and the verifier of the last stream, for a next one of the same codec.
///
/// They leave it while they are used, and come back by [`keep`](Self::keep): what an error or a panic interrupts is
/// dropped with its stack frame, and nothing of it can reach another stream. At most one of each is kept, which is about
/// half a megabyte for zlib and gzip, and at most 16 MiB each for zstd.
///
/// # Examples
///
/// ```
/// use bagpress_codec::{Codec, Reuse};
///
/// let (codec, mut reuse) = ("gzip:6".parse::<Codec>()?, Reuse::default());
/// for input in ["one", "two"] {
///     let (mut encoder, mut output) = (reuse.encoder(&codec), Vec::new());
///     encoder.write(input.as_bytes(), &mut output)?;
///     encoder.finish(&mut output)?;
///     reuse.keep(&codec, encoder, None);
/// }
/// # Ok::<(), bagpress_codec::Error>(())
/// ```
#[derive(Default)]
pub struct Reuse {
    encoder: Option<(Codec, Box<dyn Encoder>)>,
    verifier: Option<(Codec, Verifier)>,
}

impl Reuse {
    /// Begins a stream, in the encoder that was kept if it is one of `codec`.
    #[must_use]
    pub fn encoder(&mut self, codec: &Codec) -> Box<dyn Encoder> {
        match self.encoder.take() {
            Some((kept, mut encoder)) if kept == *codec => {
                encoder.reset();
                encoder
            }
            _ => codec.encoder(),
        }
    }

    /// Begins to verify a stream, in the verifier that was kept if it is one of `codec`.
    #[must_use]
    pub fn verifier(&mut self, codec: &Codec) -> Verifier {
        match self.verifier.take() {
            Some((kept, mut verifier)) if kept == *codec => {
                verifier.reset();
                verifier
            }
            _ => Verifier::new(codec),
        }
    }

    /// Takes back what made a whole stream of `codec` without an error.
    pub fn keep(&mut self, codec: &Codec, encoder: Box<dyn Encoder>, verifier: Option<Verifier>) {
        self.encoder = Some((*codec, encoder));
        self.verifier = verifier.map(|verifier| (*codec, verifier));
    }
}

impl std::fmt::Debug for Reuse {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let encoder = self.encoder.as_ref().map(|(codec, _)| codec);
        let verifier = self.verifier.as_ref().map(|(codec, _)| codec);
        formatter
            .debug_struct("Reuse")
            .field("encoder", &encoder)
            .field("verifier", &verifier)
            .finish()
    }
}
