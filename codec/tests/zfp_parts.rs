//! Layers of an array with a fixed rate are read without what is before them.

#![cfg(feature = "zfp")]
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::ops::Range;

use bagpress_codec::{
    Codec, DataKind, Decoded, Error, Generator, Grid, SEGMENT_BYTES, Section, decompress_all,
};

fn place(byte: u64) -> usize {
    usize::try_from(byte).unwrap()
}

/// A stream of a smooth field, and what it decodes to.
fn stream(codec: &Codec, grid: &Grid, front: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let kind: DataKind = format!("field:{grid}").parse().unwrap();
    let (mut values, mut output) = (vec![0; place(grid.bytes())], Vec::new());
    Generator::new(kind, 7, 3, grid.bytes()).fill(&mut values);
    let mut encoder = codec.encoder();
    let input = [front, &values].concat();
    encoder.announce(input.len() as u64);
    input.chunks(SEGMENT_BYTES).for_each(|part| encoder.write(part, &mut output).unwrap());
    encoder.finish(&mut output).unwrap();
    let decoded = decompress_all(codec, &output).unwrap();
    (output, decoded)
}

/// What a decoder of some parts makes of their section of a stream, which is fed in pieces.
fn decode(
    codec: &Codec,
    begin: &[u8],
    parts: Range<u64>,
    section: &[u8],
) -> Result<Vec<u8>, Error> {
    let mut decoder = codec.part_decoder(begin, parts).unwrap();
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
                let Section { parts, stream: at, decoded } =
                    parts.section(wanted.start, wanted.end);
                assert!(
                    decoded.start <= wanted.start && wanted.end.min(grid.bytes()) <= decoded.end
                );
                let section = &stream[place(at.start)..place(at.end)];
                let made = decode(&codec, &stream, parts, section).unwrap();
                assert!(made == whole[place(decoded.start)..place(decoded.end)], "{of} {wanted:?}");
            }
        }
    }
}

#[test]
fn a_section_that_ends_early_or_goes_on_is_an_error() {
    let codec: Codec = "zfp:rate=8,f32,40x40".parse().unwrap();
    let (stream, _) = stream(&codec, &"f32,40x40".parse().unwrap(), &[]);
    let Section { parts, stream: at, .. } = codec.parts(&stream).unwrap().section(700, 2000);
    let section = |to: u64| &stream[place(at.start)..place(to)];
    decode(&codec, &stream, parts.clone(), section(at.end)).unwrap();
    for to in [at.end - 8, at.end + 8] {
        decode(&codec, &stream, parts.clone(), section(to)).unwrap_err();
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
