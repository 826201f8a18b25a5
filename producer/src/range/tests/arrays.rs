//! What is read of an array whose run has recorded where it can be entered, and what is noticed.

use bagpress_codec::{EntryPoint, Grid, Verifier, decompress_all};

use super::*;

/// 28 layers of 500 KiB: four sections.
const GRID: &str = "f32,110x200x160";
const MODES: [&str; 4] = ["reversible", "rate=6.5", "precision=18", "accuracy=1e-3"];

/// What numpy writes in front of such an array.
fn npy() -> Vec<u8> {
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (110, 200, 160), }";
    let mut header = [&b"\x93NUMPY\x01\x00\x76\x00"[..], text.as_bytes()].concat();
    header.resize(127, b' ');
    header.push(b'\n');
    header
}

/// An output, what it decodes to, and what its run has recorded of it.
struct Output {
    codec: Codec,
    stream: Vec<u8>,
    whole: Vec<u8>,
    points: Vec<EntryPoint>,
}

impl Output {
    fn of(mode: &str, is_npy: bool) -> Self {
        let grid: Grid = GRID.parse().unwrap();
        let mut values = vec![0; usize::try_from(grid.bytes()).unwrap()];
        let kind: DataKind = format!("field-rough:{grid}").parse().unwrap();
        Generator::new(kind, 3, 0, grid.bytes()).fill(&mut values);
        let (codec, input) = if is_npy {
            (codec(&format!("zfp:{mode}")), [npy(), values].concat())
        } else {
            (codec(&format!("zfp:{mode},{grid}")), values)
        };
        let stream = compress(&codec, &input);
        let mut verifier = Verifier::new(&codec);
        verifier.check(&input, &stream).unwrap();
        verifier.finish(&[]).unwrap();
        let points = verifier.entry_points().to_vec();
        let whole = decompress_all(&codec, &stream).unwrap();
        Self { codec, stream, whole, points }
    }

    /// The pieces that have something of a range, of a stream that is perhaps another one by now, and how many bytes were read to know.
    fn pieces(&self, stream: &[u8], points: &[EntryPoint], span: Span) -> (Option<Pieces>, u64) {
        let read = Cell::new(0);
        let mut counted = Counted { bytes: Cursor::new(stream), read: &read };
        let pieces = by_entry_points(&mut counted, &self.codec, points, span).unwrap();
        (pieces, read.get())
    }

    /// A range by these points: none, if they are of no use, and the file is read from its start.
    fn range(
        &self,
        stream: &[u8],
        points: &[EntryPoint],
        span: Span,
    ) -> Option<Result<Vec<u8>, Trouble>> {
        let (pieces, _) = self.pieces(stream, points, span);
        pieces.map(|pieces| copied(stream, &self.codec, &pieces, span).0)
    }

    /// The bytes at which the decoded sections begin.
    fn seams(&self) -> Vec<u64> {
        let sections = self.codec.sections(&self.stream, &self.points, self.stream.len() as u64);
        sections.unwrap().iter().map(|section| section.decoded.start).collect()
    }
}

#[test]
fn a_range_of_an_array_of_a_run_reads_the_sections_that_have_it_and_no_more() {
    for (mode, is_npy) in MODES.into_iter().zip([true, false, true, false]) {
        let output = Output::of(mode, is_npy);
        let (seams, all) = (output.seams(), output.whole.len() as u64);
        assert_eq!(seams.len(), 4, "{mode}");
        let of = |from, to| Span { from, to };
        for (span, sections) in [
            (of(0, Some(1)), 0..1),
            (of(127, Some(129)), 0..1),
            (of(seams[1], Some(seams[1] + 1)), 1..2),
            (of(seams[2] - 1, Some(seams[2] + 1)), 1..3),
            (of(seams[1] + 77, Some(seams[3] + 5)), 1..4),
            (of(all - 1, None), 3..4),
            (of(all - 1, Some(all)), 3..4),
            (of(0, None), 0..4),
        ] {
            let (pieces, read) = output.pieces(&output.stream, &output.points, span);
            assert_eq!(read, Codec::BEGIN_BYTES as u64, "the header");
            let pieces = pieces.unwrap();
            assert_eq!((pieces.list.len(), pieces.all), (sections.len(), 4), "{mode} {span:?}");
            let (range, read) = copied(&output.stream, &output.codec, &pieces, span);
            assert!(range.unwrap() == wanted(&output.whole, span), "{mode} {span:?}");
            let end = output.points.get(sections.end).map(|point| point.bit.div_ceil(64) * 8);
            let end = end.unwrap_or(output.stream.len() as u64);
            let bytes = end - output.points[sections.start].bit / 64 * 8;
            // Two that follow each other may share a word.
            assert!((bytes..=bytes + 8 * 3).contains(&read), "{mode} {span:?}: {read} of {bytes}");
        }
        let (refused, _) = output.pieces(&output.stream, &output.points, of(all, None));
        assert!(matches!(
            copied(&output.stream, &output.codec, &refused.unwrap(), of(all, None)).0,
            Err(Trouble::Short(bytes)) if bytes == all
        ));
    }
}

#[test]
fn a_flipped_bit_of_an_array_is_noticed_where_it_is_read_and_nowhere_else() {
    for mode in MODES {
        let output = Output::of(mode, false);
        let from = output.seams()[2] + 1000;
        let span = Span { from, to: Some(from + 1) };
        let places = [2, 3].map(|point| usize::try_from(output.points[point].bit / 8).unwrap());
        let mut noticed = 0;
        for part in 0..8 {
            let mut bad = output.stream.clone();
            bad[places[0] + 16 + (places[1] - places[0] - 32) * part / 8] ^= 1 << part;
            let range = output.range(&bad, &output.points, span).unwrap();
            // With a fixed rate, the last bits of a block may mean nothing; then no value is another.
            let is_same = matches!(&range, Ok(range) if *range == wanted(&output.whole, span));
            assert!(
                is_corrupt(&range) || (is_same && mode.starts_with("rate")),
                "{mode} {part}: {range:?}"
            );
            noticed += usize::from(is_corrupt(&range));
        }
        assert!(noticed > 5, "{mode}: {noticed}");
        let mut elsewhere = output.stream.clone();
        elsewhere[32..places[0] - 16].fill(0xa5);
        elsewhere[places[1] + 16..].fill(0x5a);
        let range = output.range(&elsewhere, &output.points, span).unwrap();
        assert!(range.unwrap() == wanted(&output.whole, span), "{mode}");
    }
}

/// Everything in a list of entry points that one could change. The bytes of the range are right, or there are none.
#[test]
fn entry_points_that_lie_are_noticed_and_never_give_other_bytes() {
    let output = Output::of("accuracy=1e-3", true);
    let seams = output.seams();
    let of = |change: &dyn Fn(&mut Vec<EntryPoint>)| {
        let mut points = output.points.clone();
        change(&mut points);
        points
    };
    let mut lists = Vec::new();
    for place in 0..4 {
        for bits in [1, 64] {
            lists.push(of(&|points| points[place].bit += bits));
            lists.push(of(&|points| points[place].bit = points[place].bit.saturating_sub(bits)));
        }
        for parts in [1, 20] {
            lists.push(of(&|points| points[place].part += parts));
            lists.push(of(&|points| points[place].part = points[place].part.saturating_sub(parts)));
        }
        lists.push(of(&|points| points[place].digest = points[(place + 1) % 4].digest));
        lists.push(of(&|points| points.retain(|point| *point != output.points[place])));
        lists.push(of(&|points| points.swap(place, (place + 1) % 4)));
        lists.push(of(&|points| points.insert(place, points[place])));
    }
    lists.push(of(&|points| points[3].bit = u64::MAX));
    lists.push(of(&|points| points[3].part = u64::MAX));
    lists.push(of(&|points| points.truncate(1)));
    let (mut refused, mut damaged, mut right) = (0, 0, 0);
    for (at, points) in lists.iter().enumerate() {
        for from in [seams[1] - 1, seams[2] + 5, seams[3]] {
            let span = Span { from, to: Some(from + 100_000) };
            match output.range(&output.stream, points, span) {
                None => refused += 1,
                Some(Ok(range)) => {
                    assert!(range == wanted(&output.whole, span), "{at} {from}");
                    right += 1;
                }
                Some(range) => {
                    assert!(is_corrupt(&range), "{at} {from}: {range:?}");
                    damaged += 1;
                }
            }
        }
    }
    assert!(refused > 20 && damaged > 20 && right > 20, "{refused} {damaged} {right}");
    // Those of another array have another header.
    let other = Output::of("accuracy=1e-2", true);
    let span = Span { from: seams[2], to: Some(seams[2] + 9) };
    assert!(
        output.range(&other.stream, &output.points, span).is_none_or(|range| is_corrupt(&range))
    );
    assert_eq!(output.range(&output.stream[..4], &output.points, span).map(drop), None);
}
