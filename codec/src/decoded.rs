//! A piece of a stream, decoded part by part.

use crate::{Decoder, Error};

/// All that a piece of a stream decodes to, which may be a thousand times as much as itself, in parts of a bounded length.
///
/// # Examples
///
/// ```
/// use bagpress_codec::{Codec, Decoded};
///
/// let codec: Codec = "gzip:6".parse()?;
/// let (mut encoder, mut stream) = (codec.encoder(), Vec::new());
/// encoder.write(b"again and again", &mut stream)?;
/// encoder.finish(&mut stream)?;
/// let (mut decoder, mut part, mut text) = (codec.decoder(), vec![0; 4], Vec::new());
/// for piece in stream.chunks(10) {
///     let mut parts = Decoded::new(&mut *decoder, piece, &mut part);
///     while let Some(made) = parts.next()? {
///         text.extend_from_slice(made);
///     }
/// }
/// decoder.finish()?;
/// assert_eq!(text, b"again and again");
/// # Ok::<(), bagpress_codec::Error>(())
/// ```
pub struct Decoded<'a> {
    decoder: &'a mut dyn Decoder,
    rest: &'a [u8],
    part: &'a mut [u8],
}

impl<'a> Decoded<'a> {
    /// Begins with the next piece of a stream; an empty one gives what the decoder still holds back. No part is longer than
    /// `part`, which must not be empty.
    #[must_use]
    pub fn new(decoder: &'a mut dyn Decoder, piece: &'a [u8], part: &'a mut [u8]) -> Self {
        Self { decoder, rest: piece, part }
    }

    /// The next part, which may be empty; none once the piece has given everything.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::read_into`]; [`Error::TrailingBytes`] if the stream ended before the piece does.
    #[expect(clippy::should_implement_trait, reason = "a part is lent until the next one is made")]
    pub fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        let progress = self.decoder.read_into(self.rest, self.part)?;
        self.rest = &self.rest[progress.consumed..];
        if progress.consumed > 0 || progress.produced > 0 {
            return Ok(Some(&self.part[..progress.produced]));
        }
        if self.rest.is_empty() {
            Ok(None)
        } else {
            Err(Error::TrailingBytes { format: "compressed" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codec, Progress};

    fn decode(stream: &[u8], piece: usize, part: usize) -> Result<Vec<u8>, Error> {
        let codec: Codec = "zlib:6".parse().unwrap();
        let (mut decoder, mut part, mut all) = (codec.decoder(), vec![0; part], Vec::new());
        for piece in stream.chunks(piece) {
            let mut parts = Decoded::new(&mut *decoder, piece, &mut part);
            while let Some(made) = parts.next()? {
                all.extend_from_slice(made);
            }
        }
        decoder.finish().map(|()| all)
    }

    #[test]
    fn pieces_and_parts_of_any_length_give_the_whole_stream() {
        let codec: Codec = "zlib:6".parse().unwrap();
        let text = b"some text, ".repeat(5000);
        let (mut encoder, mut stream) = (codec.encoder(), Vec::new());
        encoder.write(&text, &mut stream).unwrap();
        encoder.finish(&mut stream).unwrap();
        for (piece, part) in [(1, 1), (7, 100_000), (100_000, 3), (100_000, 100_000)] {
            assert!(decode(&stream, piece, part).unwrap() == text, "{piece} {part}");
        }
        stream.push(b'x');
        assert!(matches!(decode(&stream, 100_000, 100), Err(Error::TrailingBytes { .. })));
    }

    /// One that wants no more, and does not say why.
    struct Sated;

    impl Decoder for Sated {
        fn read_into(&mut self, _: &[u8], _: &mut [u8]) -> Result<Progress, Error> {
            Ok(Progress { consumed: 0, produced: 0 })
        }

        fn finish(&mut self) -> Result<(), Error> {
            Ok(())
        }

        fn reset(&mut self) {}
    }

    #[test]
    fn bytes_that_a_decoder_does_not_take_are_an_error() {
        assert_eq!(Decoded::new(&mut Sated, b"", &mut [0]).next(), Ok(None));
        let left = Decoded::new(&mut Sated, b"x", &mut [0]).next().err();
        assert!(matches!(left, Some(Error::TrailingBytes { .. })));
    }
}
