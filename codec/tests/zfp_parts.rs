//! Layers of an array are read without what is before them: with a fixed rate, or where a verifier has seen them begin.

#![cfg(feature = "zfp")]
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use bagpress_codec::{
    Codec, DataKind, Decoded, Digest, EntryPoint, Error, Generator, Grid, SEGMENT_BYTES, Section,
    Verifier, decompress_all,
};

fn place(byte: u64) -> usize {
    usize::try_from(byte).unwrap()
}

fn field(grid: &Grid) -> Vec<u8> {
    let kind: DataKind = format!("field:{grid}").parse().unwrap();
    let mut values = vec![0; place(grid.bytes())];
    Generator::new(kind, 7, 3, grid.bytes()).fill(&mut values);
    values
}

/// A stream of a smooth field, and what it decodes to.
fn stream(codec: &Codec, grid: &Grid, front: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut encoder, mut output) = (codec.encoder(), Vec::new());
    let input = [front, &field(grid)].concat();
    encoder.announce(input.len() as u64);
    input.chunks(SEGMENT_BYTES).for_each(|part| encoder.write(part, &mut output).unwrap());
    encoder.finish(&mut output).unwrap();
    let decoded = decompress_all(codec, &output).unwrap();
    (output, decoded)
}

/// What a decoder of a section makes of these bytes, which are fed in pieces.
fn decode(codec: &Codec, begin: &[u8], of: &Section, section: &[u8]) -> Result<Vec<u8>, Error> {
    let mut decoder = codec.section_decoder(begin, of).unwrap();
    let (mut made, mut part) = (Vec::new(), vec![0; 100]);
    for piece in section.chunks(31) {
        let mut pieces = Decoded::new(&mut *decoder, piece, &mut part);
        while let Some(bytes) = pieces.next()? {
            made.extend_from_slice(bytes);
        }
    }
    decoder.finish()?;
    Ok(made)
}

#[test]
fn every_section_decodes_to_what_the_whole_has_there() {
    let shapes = ["1", "3", "103", "5x7", "1x9", "30x31", "9x4x5", "9x5x6x7"];
    for (shape, scalar) in
        shapes.iter().flat_map(|shape| ["i32", "i64", "f32", "f64"].map(|scalar| (shape, scalar)))
    {
        for rate in ["3", "7.25", "16"] {
            let of = format!("zfp:rate={rate},{scalar},{shape}");
            let (codec, grid): (Codec, Grid) =
                (of.parse().unwrap(), format!("{scalar},{shape}").parse().unwrap());
            let (stream, whole) = stream(&codec, &grid, &[]);
            let parts = codec.parts(&stream[..stream.len().min(Codec::BEGIN_BYTES)]).unwrap();
            assert_eq!((parts.bytes(), parts.stream_bytes()), (grid.bytes(), stream.len() as u64));
            let most = parts.count();
            for (first, end) in
                [(0, 1), (0, most), (most / 2, most / 2 + 1), (most - 1, most), (most / 3, most)]
            {
                let from = first * (parts.bytes() / most).max(1);
                let wanted =
                    from.min(parts.bytes() - 1)..(end * (parts.bytes() / most)).max(from + 1);
                let part = parts.section(wanted.start, wanted.end);
                let Section { stream: at, decoded, .. } = &part;
                assert!(
                    decoded.start <= wanted.start && wanted.end.min(grid.bytes()) <= decoded.end
                );
                let section = &stream[place(at.start)..place(at.end)];
                let made = decode(&codec, &stream, &part, section).unwrap();
                assert!(made == whole[place(decoded.start)..place(decoded.end)], "{of} {wanted:?}");
            }
        }
    }
}

#[test]
fn a_section_that_ends_early_or_goes_on_is_an_error() {
    let codec: Codec = "zfp:rate=8,f32,40x40".parse().unwrap();
    let (stream, _) = stream(&codec, &"f32,40x40".parse().unwrap(), &[]);
    let of = codec.parts(&stream).unwrap().section(700, 2000);
    let at = of.stream.clone();
    let section = |to: u64| &stream[place(at.start)..place(to)];
    decode(&codec, &stream, &of, section(at.end)).unwrap();
    for to in [at.end - 8, at.end + 8] {
        decode(&codec, &stream, &of, section(to)).unwrap_err();
    }
}

#[test]
fn what_has_no_fixed_rate_or_another_shape_has_no_parts() {
    for of in ["reversible", "precision=20", "accuracy=1e-3"] {
        let codec: Codec = format!("zfp:{of},f32,40x40").parse().unwrap();
        let (stream, _) = stream(&codec, &"f32,40x40".parse().unwrap(), &[]);
        assert_eq!(codec.parts(&stream), None, "{of}");
    }
    let codec: Codec = "zfp:rate=8,f32,40x40".parse().unwrap();
    let (stream, _) = stream(&codec, &"f32,40x40".parse().unwrap(), &[]);
    let other: Codec = "zfp:rate=8,f32,40x41".parse().unwrap();
    assert_eq!(other.parts(&stream), None);
    // The rate of a stream is its own.
    assert!("zfp:rate=16,f32,40x40".parse::<Codec>().unwrap().parts(&stream).is_some());
    for (begin, codec) in
        [(&stream[..11], &*codec.to_string()), (&stream[..], "gzip:6"), (b"", "zstd:3")]
    {
        assert_eq!(codec.parse::<Codec>().unwrap().parts(begin), None);
    }
}

/// Where a verifier that is fed a stream says that it can be entered.
fn entry_points(codec: &Codec, input: &[u8], stream: &[u8]) -> Vec<EntryPoint> {
    let mut verifier = Verifier::new(codec);
    verifier.check(input, stream).unwrap();
    verifier.finish(&[]).unwrap();
    verifier.entry_points().to_vec()
}

#[test]
fn a_long_array_of_any_mode_is_entered_where_its_verifier_saw_a_section_begin() {
    let grid: Grid = "f32,45x200x300".parse().unwrap();
    for mode in ["reversible", "rate=7", "precision=20", "accuracy=1e-3"] {
        let codec: Codec = format!("zfp:{mode},{grid}").parse().unwrap();
        let (stream, whole) = stream(&codec, &grid, &[]);
        let points = entry_points(&codec, &field(&grid), &stream);
        let parts: Vec<_> = points.iter().map(|point| point.part).collect();
        assert_eq!(parts, [0, 5, 10], "{mode}: 12 layers of 937.5 KiB");
        let sections = codec.sections(&stream, &points, stream.len() as u64).unwrap();
        for (point, of) in points.iter().zip(&sections) {
            let bytes = &stream[place(of.stream.start)..place(of.stream.end)];
            let made = decode(&codec, &stream, of, bytes).unwrap();
            assert!(made == whole[place(of.decoded.start)..place(of.decoded.end)], "{mode} {of:?}");
            assert_eq!(point.digest, Digest::of(&made));
        }
        assert_eq!(sections[2].decoded.end, grid.bytes());
        // What somebody else made has another header, or other points.
        let other: Codec = format!("zfp:{mode},f32,45x300x200").parse().unwrap();
        assert_eq!(other.sections(&stream, &points, stream.len() as u64), None);
        let moved = EntryPoint { bit: points[0].bit + 1, ..points[0] };
        assert_eq!(codec.sections(&stream, &[moved, points[1]], stream.len() as u64), None);
    }
}

#[test]
fn an_array_of_few_megabytes_has_no_entry_points_and_what_is_no_array_never_has() {
    let grid: Grid = "f64,8x256x256".parse().unwrap();
    let codec: Codec = format!("zfp:reversible,{grid}").parse().unwrap();
    let (stream, _) = stream(&codec, &grid, &[]);
    assert_eq!(entry_points(&codec, &field(&grid), &stream), []);
    let (gzip, input) = ("gzip:1".parse::<Codec>().unwrap(), vec![7; 20 << 20]);
    let (mut encoder, mut output) = (gzip.encoder(), Vec::new());
    encoder.write(&input, &mut output).unwrap();
    encoder.finish(&mut output).unwrap();
    assert_eq!(entry_points(&gzip, &input, &output), []);
    let point = EntryPoint { part: 0, bit: 96, digest: Digest::of(b"") };
    assert_eq!(gzip.sections(&output, &[point], output.len() as u64), None);
}
