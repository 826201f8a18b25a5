//! Where a file can be entered: the parts of it that decode by themselves.

use std::io::{self, Read, Seek, SeekFrom};

use bagpress_broker::result::{Done, TaskResult};
use bagpress_codec::{Codec, Digest, EntryPoint, Section, SeekFrame, SeekTable};

use super::span::Span;
use crate::run_folder::plan::BagPlan;

/// A part of a file that decodes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// At which byte of the file it begins.
    pub(super) at: u64,
    /// Its length; none: to the end of the file.
    pub(super) bytes: Option<u64>,
    /// At which byte of all that is decoded it begins.
    pub(super) input_at: u64,
    /// Length of what it decodes to, if that was said.
    pub(super) input_bytes: Option<u64>,
    /// What it is compared with, besides what it has in itself.
    pub(super) check: Check,
    /// Which parts of its stream it has, if it decodes only by what the file begins with.
    pub(super) section: Option<Section>,
}

/// What a piece is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// The checksum that a table has of it, if it has one.
    Frame(Option<u32>),
    /// The digest that the ledger of its run has of what it decodes to.
    Digest(Digest),
    /// The digest that the ledger of its run has of what the whole file decodes to.
    Whole(Digest),
    /// Nothing but what its format has at its end.
    Nothing,
}

/// The pieces that have something of a range, and where they are known from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    pub(super) list: Vec<Piece>,
    /// How many there are in the whole file.
    pub(super) all: u64,
    /// Length of all that is decoded, if that is known.
    pub(super) input_bytes: Option<u64>,
    /// What the file begins with, if pieces decode by that.
    pub(super) begin: Vec<u8>,
}

impl Pieces {
    /// The whole file as one: it is read from its start to its end, whatever of it is wanted, since what it is compared with
    /// is that of all of it.
    pub(super) fn whole(check: Check) -> Self {
        let piece =
            Piece { at: 0, bytes: None, input_at: 0, input_bytes: None, check, section: None };
        Self { list: vec![piece], all: 1, input_bytes: None, begin: Vec::new() }
    }

    /// Adds the next piece, if it has something of the range.
    fn push(&mut self, piece: Piece, span: Span) {
        let bytes = piece.input_bytes.unwrap_or_default();
        self.all += 1;
        self.input_bytes = Some(piece.input_at + bytes);
        if !span.within(piece.input_at, bytes).is_empty() {
            self.list.push(piece);
        }
    }

    fn none() -> Self {
        Self { list: Vec::new(), all: 0, input_bytes: Some(0), begin: Vec::new() }
    }
}

/// The frames of a zstd file that ends in a table of them; none if it has none. Reads nothing but the table.
///
/// # Errors
///
/// What the system said; `InvalidData` for a table that is of no use.
pub(super) fn by_table<R: Read + Seek>(file: &mut R, span: Span) -> io::Result<Option<Pieces>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut footer = [0; SeekTable::FOOTER_BYTES];
    let bytes = file.seek(SeekFrom::End(0))?;
    let Some(last) = bytes.checked_sub(footer.len() as u64) else { return Ok(None) };
    file.seek(SeekFrom::Start(last))?;
    file.read_exact(&mut footer)?;
    let Some(length) = SeekTable::frame_bytes(&footer).map_err(invalid)? else { return Ok(None) };
    let Some(before) = bytes.checked_sub(length) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its table is longer than the file",
        ));
    };
    let mut frame = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.seek(SeekFrom::Start(before))?;
    file.read_exact(&mut frame)?;
    let table = SeekTable::read(frame, before).map_err(invalid)?;
    let mut pieces = Pieces::none();
    for SeekFrame { at, bytes, input_at, input_bytes, checksum } in table.frames() {
        let (bytes, input_bytes, section) = (Some(bytes), Some(input_bytes), None);
        let check = Check::Frame(checksum);
        pieces.push(Piece { at, bytes, input_at, input_bytes, check, section }, span);
    }
    Ok(Some(pieces))
}

/// The parts of a file that all have one length, which its beginning says: layers of an array with a fixed rate. None if it has none, or
/// another length than these. Reads nothing but the beginning.
///
/// # Errors
///
/// What the system said.
pub(super) fn by_beginning<R: Read + Seek>(
    file: &mut R,
    codec: &Codec,
    span: Span,
) -> io::Result<Option<Pieces>> {
    let (begin, length) = beginning(file)?;
    let Some(parts) = codec.parts(&begin) else { return Ok(None) };
    // The stock program leaves the last word as short as it is.
    let whole = parts.stream_bytes();
    if length > whole || length + 8 <= whole {
        return Ok(None);
    }
    let section = parts.section(span.from, span.to.unwrap_or(u64::MAX));
    let (list, input_bytes) =
        (vec![of_section(section, length, Check::Nothing)], Some(parts.bytes()));
    Ok(Some(Pieces { list, all: parts.count(), input_bytes, begin }))
}

/// The sections of a file between the entry points that the ledger of its run has; none, if they are not those of such a file. Reads
/// nothing but its beginning.
///
/// # Errors
///
/// What the system said.
pub(super) fn by_entry_points<R: Read + Seek>(
    file: &mut R,
    codec: &Codec,
    points: &[EntryPoint],
    span: Span,
) -> io::Result<Option<Pieces>> {
    let (begin, length) = beginning(file)?;
    let Some(sections) = codec.sections(&begin, points, length) else { return Ok(None) };
    let mut pieces = Pieces { begin, ..Pieces::none() };
    for (section, point) in sections.into_iter().zip(points) {
        pieces.push(of_section(section, length, Check::Digest(point.digest)), span);
    }
    Ok(Some(pieces))
}

/// What a file begins with, and its length.
fn beginning<R: Read + Seek>(file: &mut R) -> io::Result<(Vec<u8>, u64)> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut begin = Vec::new();
    file.take(Codec::BEGIN_BYTES as u64).read_to_end(&mut begin)?;
    Ok((begin, length))
}

/// The piece of a file of this length that is a section of its stream.
fn of_section(section: Section, length: u64, check: Check) -> Piece {
    let Section { stream, decoded, .. } = &section;
    Piece {
        at: stream.start,
        bytes: Some(stream.end.min(length).saturating_sub(stream.start)),
        input_at: decoded.start,
        input_bytes: Some(decoded.end - decoded.start),
        check,
        section: Some(section),
    }
}

/// The blocks that the output of a file was joined of, by the ledger of its run; none if it was not cut, or is not all known.
/// Blocks: reads a line for each.
pub(super) fn by_ledger(plan: &BagPlan, result: &TaskResult, span: Span) -> Option<Pieces> {
    let done = result.done()?;
    // The output of another file has that one's blocks.
    let of_first = |first| plan.ledger.outcome(first, plan.ledger.round(first));
    let made = match result.twin_of {
        Some(first) => of_first(first).filter(|first| {
            first.done().is_some_and(|first| first.output_digest == done.output_digest)
        })?,
        None => result.clone(),
    };
    let blocks = plan.blocks(made.index).filter(|_| made.round == 0)?;
    let outcomes = blocks.map(|block| {
        let outcome = plan.ledger.outcome(block, plan.ledger.round(block))?;
        outcome.done().cloned()
    });
    joined(&plan.codec(made.index).ok()?, done, outcomes, span)
}

/// Where these blocks are in the file that they were joined to, if that can be.
fn joined(
    codec: &Codec,
    whole: &Done,
    blocks: impl Iterator<Item = Option<Done>>,
    span: Span,
) -> Option<Pieces> {
    let (mut at, mut input_at) = (codec.block_header().len() as u64, 0_u64);
    let mut pieces = Pieces::none();
    for block in blocks {
        let block = block?;
        let bytes = codec.joined_bytes(block.output_bytes, block.input_bytes)?;
        let (said, check) = (Some(block.input_bytes), Check::Digest(block.input_digest));
        let (stored, section) = (Some(bytes), None);
        pieces.push(Piece { at, bytes: stored, input_at, input_bytes: said, check, section }, span);
        (at, input_at) = (at.checked_add(bytes)?, input_at.checked_add(block.input_bytes)?);
    }
    (at <= whole.output_bytes && input_at == whole.input_bytes).then_some(pieces)
}
