//! What is written block by block is what zfp itself writes of the whole array, header and all, and reads back as it does.
//!
//! Here zfp is called directly, as its documentation says: it is the reference.

#![expect(unsafe_code, reason = "zfp itself is the reference")]
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use bagpress_zfp::{Header, Kind, Parameters, Reader, Value, Writer};

/// How an array is compressed; the mode that zfp is told, and the same here.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Reversible,
    Rate(f64),
    Precision(u32),
    Accuracy(f64),
}

const MODES: [Mode; 10] = [
    Mode::Reversible,
    Mode::Rate(4.0),
    Mode::Rate(7.3),
    Mode::Rate(40.0),
    Mode::Precision(1),
    Mode::Precision(20),
    Mode::Precision(64),
    Mode::Accuracy(1e-3),
    Mode::Accuracy(1e300),
    Mode::Accuracy(5e-324),
];

const SHAPES: [&[u64]; 12] = [
    &[1],
    &[4],
    &[103],
    &[5, 7],
    &[1, 9],
    &[64, 66],
    &[1, 1, 1],
    &[3, 4, 5],
    &[9, 16, 21],
    &[2, 3, 4, 5],
    &[1, 1, 1, 1],
    &[5, 6, 7, 9],
];

fn parameters(mode: Mode, kind: Kind, dimensions: usize) -> Parameters {
    match mode {
        Mode::Reversible => Parameters::reversible(),
        Mode::Rate(rate) => Parameters::rate(rate, kind, dimensions),
        Mode::Precision(planes) => Parameters::precision(planes),
        Mode::Accuracy(tolerance) => Parameters::accuracy(tolerance),
    }
}

fn type_of(kind: Kind) -> zfp_sys::zfp_type {
    match kind {
        Kind::I32 => zfp_sys::zfp_type_zfp_type_int32,
        Kind::I64 => zfp_sys::zfp_type_zfp_type_int64,
        Kind::F32 => zfp_sys::zfp_type_zfp_type_float,
        Kind::F64 => zfp_sys::zfp_type_zfp_type_double,
    }
}

/// What zfp makes of a whole array: `zfp_write_header` and `zfp_compress`.
fn reference<T: Value>(values: &mut [T], shape: &[u64], mode: Mode) -> Vec<u8> {
    let sizes: Vec<usize> =
        shape.iter().rev().map(|values| usize::try_from(*values).unwrap()).collect();
    let size = |dimension: usize| sizes.get(dimension).copied().unwrap_or(0);
    let kind = type_of(T::KIND);
    let dimensions = u32::try_from(shape.len()).unwrap();
    let mut stream = vec![0_u64; 0];
    // SAFETY: these are the calls of zfp's documentation, with a buffer of the size that zfp asks for.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one sequence of calls")]
    let bytes = unsafe {
        let field = zfp_sys::zfp_field_alloc();
        (*field).type_ = kind;
        (*field).data = values.as_mut_ptr().cast();
        [(*field).nx, (*field).ny, (*field).nz, (*field).nw] = [size(0), size(1), size(2), size(3)];
        let zfp = zfp_sys::zfp_stream_open(std::ptr::null_mut());
        match mode {
            Mode::Reversible => zfp_sys::zfp_stream_set_reversible(zfp),
            Mode::Rate(rate) => {
                zfp_sys::zfp_stream_set_rate(zfp, rate, kind, dimensions, 0);
            }
            Mode::Precision(planes) => {
                zfp_sys::zfp_stream_set_precision(zfp, planes);
            }
            Mode::Accuracy(tolerance) => {
                zfp_sys::zfp_stream_set_accuracy(zfp, tolerance);
            }
        }
        let most = zfp_sys::zfp_stream_maximum_size(zfp, field);
        stream.resize(most / 8 + 1, 0);
        let bits = zfp_sys::stream_open(stream.as_mut_ptr().cast(), most);
        zfp_sys::zfp_stream_set_bit_stream(zfp, bits);
        zfp_sys::zfp_stream_rewind(zfp);
        assert_ne!(zfp_sys::zfp_write_header(zfp, field, zfp_sys::ZFP_HEADER_FULL), 0);
        let bytes = zfp_sys::zfp_compress(zfp, field);
        zfp_sys::zfp_field_free(field);
        zfp_sys::zfp_stream_close(zfp);
        zfp_sys::stream_close(bits);
        bytes
    };
    stream.iter().flat_map(|word| word.to_le_bytes()).take(bytes).collect()
}

/// What zfp gives back of a stream with a header.
fn reference_read<T: Value>(stream: &[u8], count: usize) -> Vec<T> {
    let mut words: Vec<u64> = stream
        .chunks(8)
        .map(|word| {
            u64::from_le_bytes(std::array::from_fn(|at| word.get(at).copied().unwrap_or(0)))
        })
        .collect();
    words.push(0);
    let mut values = vec![T::default(); count];
    // SAFETY: the stream is one of zfp's own, and the values are as many as its header says.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one sequence of calls")]
    unsafe {
        let field = zfp_sys::zfp_field_alloc();
        let bits = zfp_sys::stream_open(words.as_mut_ptr().cast(), words.len() * 8);
        let zfp = zfp_sys::zfp_stream_open(bits);
        assert_ne!(zfp_sys::zfp_read_header(zfp, field, zfp_sys::ZFP_HEADER_FULL), 0);
        (*field).data = values.as_mut_ptr().cast();
        assert_ne!(zfp_sys::zfp_decompress(zfp, field), 0);
        zfp_sys::zfp_field_free(field);
        zfp_sys::zfp_stream_close(zfp);
        zfp_sys::stream_close(bits);
    }
    values
}

/// Where each value of a block lies in the array; one outside of it lies nowhere.
fn places(shape: [u64; 4], block: [u64; 4], dimensions: usize) -> Vec<Option<usize>> {
    (0..1_u64 << (2 * dimensions))
        .map(|value| {
            let mut place = 0;
            for dimension in 0..dimensions {
                let low = value >> (2 * (dimensions - 1 - dimension)) & 3;
                let at = block[dimension] * 4 + low;
                if at >= shape[dimension] {
                    return None;
                }
                place = place * shape[dimension] + at;
            }
            usize::try_from(place).ok()
        })
        .collect()
}

fn blocks(shape: [u64; 4]) -> Vec<[u64; 4]> {
    let counts = shape.map(|values| values.div_ceil(4));
    let all = counts.iter().product();
    (0..all)
        .map(|block: u64| {
            let mut left = block;
            let mut at = [0; 4];
            for dimension in (0..4).rev() {
                at[dimension] = left % counts[dimension];
                left /= counts[dimension];
            }
            at
        })
        .collect()
}

fn header<T: Value>(shape: &[u64], mode: Mode) -> Header {
    let mut sides = [1; 4];
    sides[..shape.len()].copy_from_slice(shape);
    let parameters = parameters(mode, T::KIND, shape.len());
    Header { kind: T::KIND, shape: sides, dimensions: shape.len(), parameters }
}

/// Arrays of whole blocks are written here; how others are padded is the caller's, and its tests'.
fn written<T: Value>(values: &[T], header: &Header) -> Vec<u8> {
    let (mut writer, mut stream) = (Writer::new(header).unwrap(), Vec::new());
    for at in blocks(header.shape) {
        let block: Vec<T> = places(header.shape, at, header.dimensions)
            .into_iter()
            .map(|place| values[place.unwrap()])
            .collect();
        writer.block(&block, &mut stream);
    }
    writer.finish(&mut stream);
    stream
}

/// Feeds what there is room for.
fn feed<'s>(reader: &mut Reader, rest: &mut &'s [u8], mut pieces: impl Iterator<Item = &'s [u8]>) {
    if rest.is_empty() {
        match pieces.next() {
            Some(next) => *rest = next,
            None => panic!("the stream ended early"),
        }
    }
    *rest = &rest[reader.feed(rest)..];
}

fn read<T: Value>(stream: &[u8], header: &Header, piece: usize) -> Vec<T> {
    let mut reader = Reader::new().unwrap();
    let mut pieces = stream.chunks(piece);
    let mut rest: &[u8] = &[];
    while reader.header().unwrap().is_none() {
        feed(&mut reader, &mut rest, &mut pieces);
    }
    assert_eq!(reader.header(), Ok(Some(*header)));
    let count = header.shape.iter().product::<u64>();
    let mut values = vec![T::default(); usize::try_from(count).unwrap()];
    let mut block = vec![T::default(); 1 << (2 * header.dimensions)];
    for at in blocks(header.shape) {
        while !reader.block(&mut block) {
            feed(&mut reader, &mut rest, &mut pieces);
        }
        for (place, value) in places(header.shape, at, header.dimensions).into_iter().zip(&block) {
            if let Some(place) = place {
                values[place] = *value;
            }
        }
    }
    assert_eq!(reader.trailing_bytes(), 0);
    values
}

fn holds<T: Value + PartialEq + std::fmt::Debug>(
    make: impl Fn(usize) -> T,
    bits: impl Fn(T) -> u64,
) {
    for shape in SHAPES {
        let count = usize::try_from(shape.iter().product::<u64>()).unwrap();
        let mut values: Vec<T> = (0..count).map(&make).collect();
        for mode in MODES {
            if matches!((mode, T::KIND), (Mode::Accuracy(_), Kind::I32 | Kind::I64)) {
                continue;
            }
            let stream = reference(&mut values, shape, mode);
            let header = header::<T>(shape, mode);
            let said = Header::read(&stream).map(|(header, _)| header);
            assert_eq!(said, Some(header), "{shape:?} {mode:?}");
            if shape.iter().all(|side| side % 4 == 0) {
                assert!(written(&values, &header) == stream, "{shape:?} {mode:?}");
            }
            let expected: Vec<u64> =
                reference_read::<T>(&stream, count).into_iter().map(&bits).collect();
            for piece in [1, 13, stream.len()] {
                let back: Vec<u64> =
                    read::<T>(&stream, &header, piece).into_iter().map(&bits).collect();
                assert!(back == expected, "{shape:?} {mode:?} in pieces of {piece}");
            }
        }
    }
}

#[test]
fn blocks_make_the_same_stream_as_a_whole_array_and_are_read_from_it() {
    #[expect(clippy::cast_precision_loss, reason = "a test's values")]
    let wave = |at: usize| (at as f64 * 0.1).sin() * 100.0;
    #[expect(clippy::cast_possible_truncation, reason = "a test's values")]
    {
        holds(|at| wave(at) as i32 * 1000, |value| u64::from(value.cast_unsigned()));
        holds(|at| wave(at) as i64 * 1_000_000_000, i64::cast_unsigned);
        holds(|at| wave(at) as f32, |value| u64::from(value.to_bits()));
    }
    holds(wave, f64::to_bits);
}

#[test]
fn a_long_stream_of_whole_blocks_is_the_same_and_is_read_in_pieces() {
    let shape = [256, 512];
    let mut values: Vec<f64> =
        (0..256 * 512_u32).map(|at| f64::from(at.wrapping_mul(2_654_435_761))).collect();
    for mode in MODES {
        let stream = reference(&mut values, &shape, mode);
        let header = header::<f64>(&shape, mode);
        assert!(written(&values, &header) == stream, "{mode:?}");
        let expected = reference_read::<f64>(&stream, values.len());
        for piece in [1000, 100_000, stream.len()] {
            assert!(read::<f64>(&stream, &header, piece) == expected, "{mode:?} {piece}");
        }
    }
}

#[test]
fn whatever_a_stream_says_nothing_is_read_behind_its_end() {
    let mut seed = 1_u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33).to_le_bytes()[0]
    };
    let mut outcomes = [0; 3];
    for round in 0..4000 {
        let mut stream: Vec<u8> = (0..round % 300).map(|_| next()).collect();
        for (byte, magic) in stream.iter_mut().zip(b"zfp\x05") {
            *byte = *magic;
        }
        let mut reader = Reader::new().unwrap();
        assert_eq!(reader.feed(&stream), stream.len());
        let all = match reader.header() {
            Err(_) => 0,
            Ok(None) => continue,
            Ok(Some(header)) => 1 + usize::from(reads_on(&mut reader, &header, stream.len())),
        };
        outcomes[all] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 10), "{outcomes:?}");
}

/// Whether there were as many blocks as the stream has bytes; otherwise it ended, and stays where it is.
fn reads_on(reader: &mut Reader, header: &Header, count: usize) -> bool {
    fn each<T: Value>(reader: &mut Reader, dimensions: usize, count: usize) -> bool {
        let mut block = vec![T::default(); 1 << (2 * dimensions)];
        let there = (0..count).take_while(|_| reader.block(&mut block)).count();
        assert!(there == count || !reader.block(&mut block));
        there == count
    }
    let dimensions = header.dimensions;
    match header.kind {
        Kind::I32 => each::<i32>(reader, dimensions, count),
        Kind::I64 => each::<i64>(reader, dimensions, count),
        Kind::F32 => each::<f32>(reader, dimensions, count),
        Kind::F64 => each::<f64>(reader, dimensions, count),
    }
}
