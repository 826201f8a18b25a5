//! The bytes of a range, out of the pieces that have them.

use std::hash::Hasher as _;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bagpress_broker::result::{Cause, Failed};
use bagpress_codec::{Codec, Decoded, Decoder, Hasher, SEGMENT_BYTES};
use twox_hash::XxHash64;

use super::pieces::{Check, Piece, Pieces};
use super::span::Span;

/// Why there is no range.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The file is not what it should be.
    Failed(Failed),
    /// It ends before the range does, and gives so many bytes.
    Short(u64),
    /// It cannot be read.
    Input(io::Error),
    /// What comes of it cannot be written.
    Output(io::Error),
    /// Somebody wants it no more.
    Stopped,
}

/// Writes a range of a file to `output`. Every piece is read to its end, for its checksum. Blocks.
///
/// # Errors
///
/// Why not; then some of it may have been written.
pub(super) fn copy<R: Read + Seek>(
    file: &mut R,
    codec: &Codec,
    pieces: &Pieces,
    span: Span,
    output: &mut dyn Write,
    stopped: &AtomicBool,
) -> Result<u64, Trouble> {
    if let Some(bytes) = pieces.input_bytes
        && (span.to.unwrap_or(0) > bytes || span.from >= bytes)
    {
        return Err(Trouble::Short(bytes));
    }
    let mut copied = 0;
    for piece in &pieces.list {
        let decoder = match &piece.section {
            Some(section) => codec.section_decoder(&pieces.begin, section),
            None => Some(codec.decoder()),
        };
        let decoder = decoder.ok_or_else(|| corrupt("it cannot be entered"))?;
        copied += copy_piece(file, (codec, decoder), piece, span, output, stopped)?;
    }
    let wanted = span.to.or(pieces.input_bytes).map(|to| to - span.from);
    if wanted.is_some_and(|wanted| wanted != copied) {
        return Err(corrupt("its pieces are not all of it"));
    }
    Ok(copied)
}

fn copy_piece<R: Read + Seek>(
    file: &mut R,
    (codec, mut decoder): (&Codec, Box<dyn Decoder>),
    piece: &Piece,
    span: Span,
    output: &mut dyn Write,
    stopped: &AtomicBool,
) -> Result<u64, Trouble> {
    file.seek(SeekFrom::Start(piece.at)).map_err(Trouble::Input)?;
    let mut seen = Seen::new(piece, span, output);
    let (mut segment, mut part) = (Vec::new(), vec![0; SEGMENT_BYTES]);
    // A block that was joined has no header of its own any more.
    let is_block = matches!(piece.check, Check::Digest(_)) && piece.section.is_none();
    let header = if is_block { codec.block_header() } else { Vec::new() };
    let (mut left, mut next) = (piece.bytes.unwrap_or(u64::MAX), &header[..]);
    loop {
        let mut parts = Decoded::new(&mut *decoder, next, &mut part);
        while let Some(made) = parts.next().map_err(|error| not_decoded(&error))? {
            if stopped.load(Relaxed) {
                return Err(Trouble::Stopped);
            }
            seen.take(made)?;
        }
        if left == 0 {
            break;
        }
        segment.clear();
        let most = left.min(SEGMENT_BYTES as u64);
        let read = file.by_ref().take(most).read_to_end(&mut segment).map_err(Trouble::Input)?;
        if read == 0 {
            if piece.bytes.is_some() {
                return Err(corrupt("it ends before its pieces do"));
            }
            break;
        }
        (left, next) = (left - read as u64, &segment);
    }
    // A joined block of deflate has no end either; it is compared by its digest.
    if !is_block {
        decoder.finish().map_err(|error| not_decoded(&error))?;
    }
    seen.finish()
}

/// What was decoded of a piece.
struct Seen<'a> {
    piece: &'a Piece,
    span: Span,
    output: &'a mut dyn Write,
    bytes: u64,
    copied: u64,
    /// XXH64 with the seed 0, whose lower half is the checksum of a frame (RFC 8878 §3.1.1).
    checksum: XxHash64,
    digest: Hasher,
}

impl<'a> Seen<'a> {
    fn new(piece: &'a Piece, span: Span, output: &'a mut dyn Write) -> Self {
        let (checksum, digest) = (XxHash64::with_seed(0), Hasher::new());
        Self { piece, span, output, bytes: 0, copied: 0, checksum, digest }
    }

    /// Takes the next bytes.
    fn take(&mut self, made: &[u8]) -> Result<(), Trouble> {
        let at = self.piece.input_at + self.bytes;
        self.bytes += made.len() as u64;
        if self.piece.input_bytes.is_some_and(|said| self.bytes > said) {
            return Err(corrupt("a piece gives more than was said of it"));
        }
        match self.piece.check {
            Check::Frame(Some(_)) => self.checksum.write(made),
            Check::Digest(_) | Check::Whole(_) => self.digest.update(made),
            Check::Frame(None) | Check::Nothing => {}
        }
        let wanted = self.span.within(at, made.len() as u64);
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(made.len());
        let wanted = &made[place(wanted.start)..place(wanted.end)];
        self.output.write_all(wanted).map_err(Trouble::Output)?;
        self.copied += wanted.len() as u64;
        Ok(())
    }

    /// Compares all of it with what was said of it.
    fn finish(self) -> Result<u64, Trouble> {
        let end = self.piece.input_at + self.bytes;
        let is_right = match self.piece.check {
            #[expect(clippy::cast_possible_truncation, reason = "a checksum is the lower half")]
            Check::Frame(Some(said)) => self.checksum.finish() as u32 == said,
            Check::Digest(said) | Check::Whole(said) => self.digest.finish() == said,
            // More was wanted.
            Check::Nothing if self.span.to.is_some_and(|to| to > end) || self.span.from >= end => {
                return Err(Trouble::Short(end));
            }
            Check::Frame(None) | Check::Nothing => true,
        };
        if self.piece.input_bytes.is_some_and(|said| said != self.bytes) {
            return Err(corrupt("a piece gives less than was said of it"));
        }
        if is_right {
            Ok(self.copied)
        } else {
            Err(corrupt("a piece has another checksum than was said"))
        }
    }
}

fn not_decoded(error: &bagpress_codec::Error) -> Trouble {
    let cause = if error.is_of_stream() { Cause::InputCorrupt } else { Cause::CodecError };
    Trouble::Failed(Failed::new(cause, error.to_string()))
}

fn corrupt(why: &str) -> Trouble {
    Trouble::Failed(Failed::new(Cause::InputCorrupt, why))
}
