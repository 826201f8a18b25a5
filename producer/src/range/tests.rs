//! What is read of a file for a range of it, and what is noticed.

#[cfg(feature = "zfp")]
mod arrays;

use std::cell::Cell;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::atomic::AtomicBool;

use bagpress_broker::result::Cause;
use bagpress_codec::{DataKind, Digest, Generator, SEGMENT_BYTES, SeekTable};

use super::pieces::Piece;
use super::*;

/// A file that counts the bytes that are read of it.
struct Counted<'a> {
    bytes: Cursor<&'a [u8]>,
    read: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(into)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

const BLOCK: usize = 2 * SEGMENT_BYTES;
const INPUT: usize = 5 * BLOCK + 12_345;

fn input() -> Vec<u8> {
    let mut bytes = vec![0; INPUT];
    assert_eq!(Generator::new(DataKind::Text, 7, 0, INPUT as u64).fill(&mut bytes), INPUT);
    bytes
}

fn codec(text: &str) -> Codec {
    text.parse().unwrap()
}

fn compress(codec: &Codec, input: &[u8]) -> Vec<u8> {
    let (mut encoder, mut output) = (codec.encoder(), Vec::new());
    encoder.announce(input.len() as u64);
    input.chunks(SEGMENT_BYTES).for_each(|segment| encoder.write(segment, &mut output).unwrap());
    encoder.finish(&mut output).unwrap();
    output
}

/// A file that was joined of blocks, and what a ledger says of these.
fn joined(codec: &Codec, input: &[u8]) -> (Vec<u8>, Vec<Piece>) {
    let (mut joiner, mut file, mut pieces) = (codec.joiner(), Vec::new(), Vec::new());
    let (mut at, mut input_at) = (codec.block_header().len() as u64, 0);
    for part in input.chunks(BLOCK) {
        let block = compress(codec, part);
        let input_bytes = part.len() as u64;
        joiner.block(block.len() as u64, input_bytes).unwrap();
        joiner.write(&block, &mut file).unwrap();
        let bytes = codec.joined_bytes(block.len() as u64, input_bytes).unwrap();
        let check = Check::Digest(Digest::of(part));
        let (said, length) = (Some(input_bytes), Some(bytes));
        let section = None;
        pieces.push(Piece { at, bytes: length, input_at, input_bytes: said, check, section });
        (at, input_at) = (at + bytes, input_at + input_bytes);
    }
    joiner.finish(&mut file).unwrap();
    (file, pieces)
}

fn covering(all: &[Piece], span: Span) -> Pieces {
    let covers = |piece: &&Piece| {
        !span.within(piece.input_at, piece.input_bytes.unwrap_or_default()).is_empty()
    };
    let list = all.iter().filter(covers).cloned().collect();
    Pieces { list, all: all.len() as u64, input_bytes: Some(INPUT as u64), begin: Vec::new() }
}

fn copied(
    file: &[u8],
    codec: &Codec,
    pieces: &Pieces,
    span: Span,
) -> (Result<Vec<u8>, Trouble>, u64) {
    let (read, mut output) = (Cell::new(0), Vec::new());
    let mut counted = Counted { bytes: Cursor::new(file), read: &read };
    let copied = copy(&mut counted, codec, pieces, span, &mut output, &AtomicBool::new(false));
    (
        copied.map(|bytes| {
            assert_eq!(bytes, output.len() as u64);
            output
        }),
        read.get(),
    )
}

fn spans() -> Vec<Span> {
    let (block, all) = (BLOCK as u64, INPUT as u64);
    let of = |(from, to)| Span { from, to };
    let some = [
        (0, Some(1)),
        (0, Some(block)),
        (block - 1, Some(block + 1)),
        (3 * block + 7, Some(3 * block + 9)),
    ];
    let ends = [
        (all - 1, Some(all)),
        (all - 1, None),
        (5 * block, None),
        (0, None),
        (block, Some(4 * block)),
    ];
    some.into_iter().chain(ends).map(of).collect()
}

fn wanted(input: &[u8], span: Span) -> &[u8] {
    let place = |at: u64| usize::try_from(at).unwrap();
    &input[place(span.from)..span.to.map_or(input.len(), place)]
}

#[test]
fn a_range_of_a_joined_file_reads_the_blocks_that_have_it_and_no_more() {
    let input = input();
    for name in ["gzip:6", "gzip:1,full", "zlib:9", "zstd:3", "store"] {
        let codec = codec(name);
        let (file, all) = joined(&codec, &input);
        for span in spans() {
            let pieces = covering(&all, span);
            let (copied, read) = copied(&file, &codec, &pieces, span);
            assert!(copied.unwrap() == wanted(&input, span), "{name} {span:?}");
            let most: u64 = pieces.list.iter().map(|piece| piece.bytes.unwrap()).sum();
            assert_eq!(read, most, "{name} {span:?}");
        }
    }
}

/// As other tools write it: frames without a checksum of their own, and with or without one in the table.
fn foreign(input: &[u8], checksums: bool) -> Vec<u8> {
    let codec = codec("zstd:3");
    let (mut file, mut entries, mut frames) = (Vec::new(), Vec::new(), 0_u32);
    for part in input.chunks(BLOCK) {
        let mut frame = compress(&codec, part);
        let checksum = frame.split_off(frame.len() - 4);
        frame[4] &= !4;
        let lengths = [frame.len(), part.len()].map(|bytes| u32::try_from(bytes).unwrap());
        entries.extend(lengths.iter().flat_map(|number| number.to_le_bytes()));
        if checksums {
            entries.extend(checksum);
        }
        file.extend(frame);
        frames += 1;
    }
    let bytes = u32::try_from(entries.len() + SeekTable::FOOTER_BYTES).unwrap();
    file.extend([0x184d_2a5e_u32.to_le_bytes(), bytes.to_le_bytes()].concat());
    file.extend(entries);
    file.extend(frames.to_le_bytes());
    file.push(if checksums { 0x80 } else { 0 });
    file.extend(0x8f92_eab1_u32.to_le_bytes());
    file
}

#[test]
fn a_range_by_a_table_reads_the_table_and_the_frames_that_have_it() {
    let input = input();
    let codec = codec("zstd:3");
    let ours = joined(&codec, &input).0;
    for file in [&ours, &foreign(&input, true), &foreign(&input, false)] {
        let footer = file.last_chunk().unwrap();
        let table = SeekTable::frame_bytes(footer).unwrap().unwrap();
        for span in spans() {
            let read = Cell::new(0);
            let mut counted = Counted { bytes: Cursor::new(file), read: &read };
            let pieces = by_table(&mut counted, span).unwrap().unwrap();
            assert_eq!(read.get(), table + SeekTable::FOOTER_BYTES as u64);
            let (copied, read) = copied(file, &codec, &pieces, span);
            assert!(copied.unwrap() == wanted(&input, span), "{span:?}");
            assert_eq!(read, pieces.list.iter().map(|piece| piece.bytes.unwrap()).sum::<u64>());
        }
    }
}

#[test]
fn what_has_no_index_is_read_to_its_end_for_its_checksum() {
    let input = input();
    for name in ["gzip:6", "zstd:3"] {
        let codec = codec(name);
        let file = compress(&codec, &input);
        for span in spans() {
            let whole = Pieces::whole(Check::Nothing);
            let (found, read) = copied(&file, &codec, &whole, span);
            assert!(found.unwrap() == wanted(&input, span), "{name} {span:?}");
            assert_eq!(read, file.len() as u64, "{name}");
            // A checksum at the end is wrong if anything before it is.
            let mut damaged = file.clone();
            let last = damaged.len() - if name == "gzip:6" { 8 } else { 4 };
            damaged[last] ^= 1;
            let (found, _) = copied(&damaged, &codec, &whole, span);
            assert!(is_corrupt(&found), "{name} {span:?} {found:?}");
            let digest = Digest::of(&input);
            for (check, is_right) in [(digest, true), (Digest::of(b"another"), false)] {
                let (found, _) = copied(&file, &codec, &Pieces::whole(Check::Whole(check)), span);
                assert_eq!(found.is_ok(), is_right, "{name} {span:?}");
            }
        }
        let all = INPUT as u64;
        for (from, to) in [(0, Some(all + 1)), (all, None), (all + 5, Some(all + 6))] {
            let (refused, _) =
                copied(&file, &codec, &Pieces::whole(Check::Nothing), Span { from, to });
            assert!(matches!(refused, Err(Trouble::Short(bytes)) if bytes == all), "{refused:?}");
        }
        let (cut, _) = copied(
            &file[..file.len() - 1],
            &codec,
            &Pieces::whole(Check::Nothing),
            Span { from: 0, to: None },
        );
        assert!(is_corrupt(&cut), "{cut:?}");
    }
}

fn is_corrupt(copied: &Result<Vec<u8>, Trouble>) -> bool {
    matches!(copied, Err(Trouble::Failed(failed)) if failed.cause == Cause::InputCorrupt)
}

#[test]
fn a_flipped_bit_in_what_is_read_is_noticed() {
    let input = input();
    let span = Span { from: BLOCK as u64 + 5, to: Some(BLOCK as u64 + 6) };
    for name in ["gzip:6", "zlib:6", "zstd:3", "store"] {
        let codec = codec(name);
        let (file, all) = joined(&codec, &input);
        let pieces = covering(&all, span);
        let piece = &pieces.list[0];
        for part in 0..7 {
            let mut bad = file.clone();
            let at = piece.at + piece.bytes.unwrap() * part / 7;
            bad[usize::try_from(at).unwrap()] ^= 1;
            assert!(is_corrupt(&copied(&bad, &codec, &pieces, span).0), "{name} {at}");
        }
    }
    let codec = codec("zstd:3");
    let mut file = foreign(&input, true);
    let pieces = by_table(&mut Cursor::new(&file), span).unwrap().unwrap();
    // A literal within the frame: nothing but the table knows it.
    let at = usize::try_from(pieces.list[0].at + pieces.list[0].bytes.unwrap() - 40).unwrap();
    file[at] ^= 1;
    assert!(is_corrupt(&copied(&file, &codec, &pieces, span).0));
}

#[test]
fn a_table_that_lies_is_noticed_and_takes_no_memory() {
    let input = input();
    let (codec, whole) = (codec("zstd:3"), Span { from: 0, to: Some(1) });
    let file = joined(&codec, &input).0;
    let pieces = by_table(&mut Cursor::new(&file), whole).unwrap().unwrap();
    let lie = |change: &dyn Fn(&mut Piece)| {
        let mut pieces = Pieces { list: pieces.list.clone(), begin: Vec::new(), ..pieces };
        change(&mut pieces.list[0]);
        copied(&file, &codec, &pieces, whole).0
    };
    for bad in [
        lie(&|piece| piece.input_bytes = Some(1)),
        lie(&|piece| piece.input_bytes = Some(u64::from(u32::MAX))),
        lie(&|piece| piece.bytes = piece.bytes.map(|bytes| bytes - 1)),
        lie(&|piece| piece.bytes = piece.bytes.map(|bytes| bytes + 1)),
        lie(&|piece| piece.at += 1),
        lie(&|piece| piece.check = Check::Frame(Some(0))),
        lie(&|piece| piece.at = u64::from(u32::MAX)),
    ] {
        assert!(is_corrupt(&bad), "{bad:?}");
    }
    // One of another file is none.
    let longer = [&b"more"[..], &file].concat();
    assert!(by_table(&mut Cursor::new(&longer), whole).is_err());
    assert_eq!(by_table(&mut Cursor::new(b"short"), whole).unwrap(), None);
    assert_eq!(by_table(&mut Cursor::new(compress(&codec, &input)), whole).unwrap(), None);
    let only_footer = &file[file.len() - SeekTable::FOOTER_BYTES..];
    assert!(by_table(&mut Cursor::new(only_footer), whole).is_err());
}
