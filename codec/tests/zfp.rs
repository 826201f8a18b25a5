//! Arrays come back bit for bit, or within what was asked; what cannot be compressed so is refused by name.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use bagpress_codec::{
    ArrayFault, Codec, DataKind, Digest, Error, Fidelity, Generator, Grid, Reuse, SEGMENT_BYTES,
    Scalar, Verifier, decompress_all,
};

const SHAPES: [&str; 12] = [
    "1",
    "103",
    "70000",
    "5x7",
    "1x9",
    "300x301",
    "3x4x5",
    "8x16x16",
    "30x31x33",
    "2x3x4x5",
    "9x9x10x11",
    "1x1x1x1",
];
const MODES: [&str; 6] =
    ["reversible", "rate=16", "precision=20", "precision=64", "accuracy=1e-3", "accuracy=0.1"];

fn codec(text: &str) -> Codec {
    text.parse().unwrap()
}

fn generated(kind: &str, grid: &Grid) -> Vec<u8> {
    let kind: DataKind = format!("{kind}:{grid}").parse().unwrap();
    let mut bytes = vec![0; usize::try_from(grid.bytes()).unwrap()];
    assert_eq!(Generator::new(kind, 7, 3, grid.bytes()).fill(&mut bytes), bytes.len());
    bytes
}

/// Compresses in segments of a size, verified.
fn compress_in(
    codec: &Codec,
    input: &[u8],
    segment: usize,
) -> Result<(Vec<u8>, Option<Fidelity>), Error> {
    let (mut encoder, mut verifier, mut output) =
        (codec.encoder(), Verifier::new(codec), Vec::new());
    for segment in input.chunks(segment) {
        let start = output.len();
        encoder.write(segment, &mut output)?;
        verifier.check(segment, &output[start..])?;
    }
    let start = output.len();
    encoder.finish(&mut output)?;
    verifier.finish(&output[start..])?;
    Ok((output, verifier.fidelity()))
}

fn compress(codec: &Codec, input: &[u8]) -> Result<Vec<u8>, Error> {
    compress_in(codec, input, SEGMENT_BYTES).map(|(output, _)| output)
}

fn fault(codec: &Codec, input: &[u8]) -> (ArrayFault, String) {
    match compress(codec, input) {
        Err(Error::Array { fault, reason }) => (fault, reason),
        other => panic!("{codec}: {other:?}"),
    }
}

fn values(scalar: Scalar, bytes: &[u8]) -> Vec<f64> {
    let word = |bytes: &[u8]| -> [u8; 8] { bytes.try_into().unwrap() };
    let half = |bytes: &[u8]| -> [u8; 4] { bytes.try_into().unwrap() };
    #[expect(clippy::cast_precision_loss, reason = "generated integers are small")]
    let value = |bytes: &[u8]| match scalar {
        Scalar::I32 => f64::from(i32::from_le_bytes(half(bytes))),
        Scalar::I64 => i64::from_le_bytes(word(bytes)) as f64,
        Scalar::F32 => f64::from(f32::from_le_bytes(half(bytes))),
        Scalar::F64 => f64::from_le_bytes(word(bytes)),
    };
    bytes.chunks_exact(scalar.bytes()).map(value).collect()
}

fn largest_error(scalar: Scalar, a: &[u8], b: &[u8]) -> f64 {
    let pairs = values(scalar, a).into_iter().zip(values(scalar, b));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn every_mode_type_and_number_of_dimensions_comes_back_as_was_asked() {
    for (scalar, shape) in
        Scalar::ALL.into_iter().flat_map(|scalar| SHAPES.map(|shape| (scalar, shape)))
    {
        let grid: Grid = format!("{scalar},{shape}").parse().unwrap();
        for (kind, mode) in ["field", "field-rough", "field-constant"]
            .into_iter()
            .flat_map(|k| MODES.map(|m| (k, m)))
        {
            if mode.starts_with("accuracy") && !scalar.is_float() {
                continue;
            }
            let (codec, input) = (codec(&format!("zfp:{mode},{grid}")), generated(kind, &grid));
            let (output, fidelity) = compress_in(&codec, &input, SEGMENT_BYTES).unwrap();
            assert!(output.starts_with(b"zfp\x05") && codec.may_begin_with(b"zf"));
            assert!(output.len() as u64 <= codec.output_bytes_max(grid.bytes()), "{codec}");
            for segment in [997, 5] {
                if input.len() < 500 * segment {
                    let (again, _) = compress_in(&codec, &input, segment).unwrap();
                    assert!(again == output, "{codec} in segments of {segment}");
                }
            }
            let back = decompress_all(&codec, &output).unwrap();
            assert_eq!(back.len(), input.len());
            let Some(fidelity) = fidelity else {
                assert!(back == input && !codec.is_lossy(), "{codec} {kind}");
                continue;
            };
            assert!(codec.is_lossy());
            assert_eq!(fidelity.decoded_digest, Digest::of(&back));
            let error = largest_error(scalar, &input, &back);
            assert!(error.to_bits() == fidelity.max_abs_error.to_bits(), "{codec} {kind}");
            if let Some(tolerance) = mode.strip_prefix("accuracy=") {
                assert!(error <= tolerance.parse().unwrap(), "{codec} {kind}: {error}");
            }
        }
    }
}

#[test]
fn a_bound_holds_or_the_array_is_refused() {
    let grid: Grid = "f64,20x30x40".parse().unwrap();
    for exponent in 1..=12 {
        let codec = codec(&format!("zfp:accuracy=1e-{exponent},{grid}"));
        let input = generated("field-rough", &grid);
        let (output, fidelity) = compress_in(&codec, &input, SEGMENT_BYTES).unwrap();
        let tolerance = 10_f64.powi(-exponent);
        assert!(fidelity.unwrap().max_abs_error <= tolerance);
        let back = decompress_all(&codec, &output).unwrap();
        assert!(largest_error(Scalar::F64, &input, &back) <= tolerance);
    }
    // Finer than the type is beside so large a value.
    let single: Grid = "f32,4x4".parse().unwrap();
    let input: Vec<u8> = (0..16_u8)
        .flat_map(|at| (1e8_f32 + f32::from(at) * 1e-3 * f32::from(at % 3)).to_le_bytes())
        .collect();
    let mut wild = input.clone();
    wild[..4].copy_from_slice(&1e-9_f32.to_le_bytes());
    let (fault, reason) = fault(&codec(&format!("zfp:accuracy=1e-12,{single}")), &wild);
    assert_eq!(fault, ArrayFault::BoundViolated);
    assert!(reason.contains("1e-12 was asked"), "{reason}");
}

#[test]
fn reversible_keeps_every_bit_of_what_is_no_number() {
    let odd32 = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        -0.0,
        0.0,
        f32::from_bits(1),
        f32::from_bits(0xffc1_2345),
        f32::MAX,
    ];
    let odd64 = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        0.0,
        f64::from_bits(1),
        f64::from_bits(u64::MAX),
        f64::MIN,
    ];
    let floats: Vec<u8> =
        odd32.iter().cycle().take(7 * 9).flat_map(|value| value.to_le_bytes()).collect();
    let doubles: Vec<u8> =
        odd64.iter().cycle().take(7 * 9).flat_map(|value| value.to_le_bytes()).collect();
    let ints: Vec<u8> = [i64::MIN, i64::MAX, 0, -1]
        .iter()
        .cycle()
        .take(7 * 9)
        .flat_map(|value| value.to_le_bytes())
        .collect();
    for (scalar, input) in [("f32", &floats), ("f64", &doubles), ("i64", &ints)] {
        let codec = codec(&format!("zfp:reversible,{scalar},7x9"));
        let (output, fidelity) = compress_in(&codec, input, SEGMENT_BYTES).unwrap();
        assert_eq!(fidelity, None);
        assert!(decompress_all(&codec, &output).unwrap() == *input, "{scalar}");
    }
}

#[test]
fn what_a_lossy_mode_cannot_take_is_refused_with_its_place() {
    let mut input: Vec<u8> = (0..60_u8).flat_map(|at| f32::from(at).to_le_bytes()).collect();
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        input[4 * 33..4 * 34].copy_from_slice(&odd.to_le_bytes());
        for mode in ["accuracy=1e-3", "precision=20", "rate=8"] {
            let (fault, reason) = fault(&codec(&format!("zfp:{mode},f32,3x4x5")), &input);
            assert_eq!(fault, ArrayFault::NonFinite);
            assert!(reason.starts_with("the value at [1, 2, 3] is "), "{reason}");
        }
    }
    let ints: Vec<u8> = [1_i32, (1 << 30) - 1, -(1 << 30), 4]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let (found, reason) = fault(&codec("zfp:precision=20,i32,4"), &ints);
    assert_eq!(found, ArrayFault::IntRange);
    assert!(reason.starts_with("the value at [2] is -1073741824"), "{reason}");
    let (found, _) =
        fault(&codec("zfp:rate=20,i64,2"), &[[0; 8], (1_i64 << 62).to_le_bytes()].concat());
    assert_eq!(found, ArrayFault::IntRange);
}

#[test]
fn another_length_than_the_shape_has_is_refused() {
    let codec = codec("zfp:reversible,f32,3x4x5");
    for bytes in [0, 1, 239, 241, 300_000] {
        let (fault, reason) = fault(&codec, &vec![0; bytes]);
        assert_eq!(fault, ArrayFault::ShapeMismatch, "{bytes}");
        assert!(reason.starts_with("f32,3x4x5 has 240 bytes"), "{reason}");
    }
    assert!(compress(&codec, &[0; 240]).is_ok());
}

/// What `numpy.save` writes in front.
fn npy(descr: &str, shape: &str) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let mut header = [&b"\x93NUMPY\x01\x00\x76\x00"[..], text.as_bytes()].concat();
    header.resize(127, b' ');
    header.push(b'\n');
    header
}

#[test]
fn a_file_of_numpy_says_its_type_and_shape_and_comes_back_with_its_header() {
    for (descr, shape, grid) in
        [("<f4", "(30, 31, 33)", "f32,30x31x33"), ("<i8", "(70001,)", "i64,70001")]
    {
        let grid: Grid = grid.parse().unwrap();
        let input = [npy(descr, shape), generated("field", &grid)].concat();
        let bare = compress(&codec(&format!("zfp:reversible,{grid}")), &input[128..]).unwrap();
        for segment in [1000, 7] {
            let (output, _) = compress_in(&codec("zfp"), &input, segment).unwrap();
            assert!(output == bare, "only the values are in it");
            assert!(decompress_all(&codec("zfp"), &output).unwrap() == input);
            assert!(decompress_all(&codec("zfp:reversible,raw"), &output).unwrap() == input[128..]);
        }
        let (output, fidelity) =
            compress_in(&codec("zfp:precision=20"), &input, SEGMENT_BYTES).unwrap();
        let back = decompress_all(&codec("zfp:precision=20"), &output).unwrap();
        assert_eq!(fidelity.unwrap().decoded_digest, Digest::of(&back));
        assert_eq!(back[..128], input[..128]);
    }
    let (found, reason) = fault(&codec("zfp"), b"no numpy");
    assert_eq!(found, ArrayFault::Unsupported);
    assert!(reason.contains("--dtype and --shape"), "{reason}");
    assert_eq!(fault(&codec("zfp"), &npy("<f4", "(3,)")[..100]).0, ArrayFault::Unsupported);
    assert_eq!(fault(&codec("zfp"), &npy("<f4", "(3,)")).0, ArrayFault::ShapeMismatch);
    assert_eq!(
        fault(&codec("zfp:accuracy=1"), &[npy("<i4", "(1,)"), vec![0; 4]].concat()).0,
        ArrayFault::ModeDtype
    );
    assert_eq!(
        fault(&codec("zfp:rate=1"), &[npy("<f8", "(1,)"), vec![0; 8]].concat()).0,
        ArrayFault::RateTooLow
    );
    let thin = [npy("<f4", "(60000, 1)"), vec![0; 240_000]].concat();
    let (found, reason) = fault(&codec("zfp"), &thin);
    assert!(found == ArrayFault::Unsupported && reason.contains("reshape"), "{reason}");
    assert_eq!(fault(&codec("zfp:reversible,raw"), b"1234").0, ArrayFault::Unsupported);
}

#[test]
fn planes_that_are_too_large_to_be_held_are_refused() {
    let (found, reason) = fault(&codec("zfp:reversible,f64,65536x2048x2048"), b"");
    assert!(
        found == ArrayFault::Unsupported && reason.contains("at most 64 MiB are held"),
        "{reason}"
    );
    // A header says so, too: nothing is taken for it.
    let mut header = compress(&codec("zfp:reversible,f64,8x8x8"), &[0; 4096]).unwrap();
    header[4..10].fill(0xff);
    assert!(decompress_all(&codec("zfp:reversible,raw"), &header).is_err());
}

/// There is no checksum in a stream: other bits are other values. But it neither crashes nor gives more than its header says.
#[test]
fn a_stream_that_is_cut_or_changed_does_no_harm() {
    let grid: Grid = "f32,9x10x11".parse().unwrap();
    let (of_bag, foreign) =
        (codec(&format!("zfp:accuracy=1e-3,{grid}")), codec("zfp:reversible,raw"));
    let output = compress(&of_bag, &generated("field", &grid)).unwrap();
    // The last word is filled up: what was cut off it may be nothing.
    for length in 0..output.len() - 8 {
        assert_eq!(
            decompress_all(&of_bag, &output[..length]),
            Err(Error::EndedEarly { format: "zfp" }),
            "{length}"
        );
    }
    for bit in 0..output.len() * 8 {
        let mut bytes = output.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        for codec in [&of_bag, &foreign] {
            if let Ok(back) = decompress_all(codec, &bytes) {
                assert!(back.len() == 9 * 10 * 11 * 4 || (32..84).contains(&bit), "{bit}");
            }
        }
    }
    let more = [&output[..], b"12345678"].concat();
    assert_eq!(decompress_all(&of_bag, &more), Err(Error::TrailingBytes { format: "zfp" }));
    assert!(matches!(decompress_all(&foreign, b"something"), Err(Error::Corrupt { .. })));
    let other = codec("zfp:accuracy=1e-3,f32,9x110");
    assert!(matches!(decompress_all(&other, &output), Err(Error::Corrupt { .. })));
}

#[test]
fn the_output_of_another_array_is_found() {
    let grid: Grid = "f64,8x9".parse().unwrap();
    let input = generated("field", &grid);
    for (mode, bit) in [("reversible", 0), ("accuracy=1e-6", 6)] {
        let codec = codec(&format!("zfp:{mode},{grid}"));
        let mut other = input.clone();
        other[8 * 20 + bit] ^= 1;
        let output = compress(&codec, &other).unwrap();
        let mut verifier = Verifier::new(&codec);
        let found = verifier.check(&input, &output).and_then(|()| verifier.finish(b""));
        assert!(
            matches!(found, Err(Error::Mismatch { offset: 160 } | Error::Array { .. })),
            "{mode}: {found:?}"
        );
        let mut verifier = Verifier::new(&codec);
        let found = verifier.check(&input[..320], &output).and_then(|()| verifier.finish(b""));
        assert!(found.is_err(), "{mode}");
    }
}

#[test]
fn encoders_and_verifiers_that_are_used_again_make_the_same() {
    let (grid, mut reuse) = ("f32,30x31x33".parse::<Grid>().unwrap(), Reuse::default());
    let codec = codec(&format!("zfp:accuracy=1e-3,{grid}"));
    for kind in ["field", "field-rough", "field", "field-constant"] {
        let input = generated(kind, &grid);
        let (mut encoder, mut verifier, mut output) =
            (reuse.encoder(&codec), reuse.verifier(&codec), Vec::new());
        encoder.write(&input, &mut output).unwrap();
        let at = output.len();
        verifier.check(&input, &output).unwrap();
        encoder.finish(&mut output).unwrap();
        verifier.finish(&output[at..]).unwrap();
        let anew = compress_in(&codec, &input, SEGMENT_BYTES).unwrap();
        assert!((output, verifier.fidelity()) == anew, "{kind}");
        reuse.keep(&codec, encoder, Some(verifier));
    }
}

#[test]
fn noise_in_reversible_stays_within_its_bound() {
    for grid in
        ["f32,100001", "f32,30x31x33", "f64,9x9x10x11", "i32,1000", "f32,1x1x1", "i64,5x5x5"]
    {
        let grid: Grid = grid.parse().unwrap();
        let mut input = vec![0; usize::try_from(grid.bytes()).unwrap()];
        Generator::new(DataKind::Random, 1, 1, grid.bytes()).fill(&mut input);
        let codec = codec(&format!("zfp:reversible,{grid}"));
        let output = compress(&codec, &input).unwrap();
        assert!(output.len() as u64 <= codec.output_bytes_max(grid.bytes()), "{codec}");
        assert!(decompress_all(&codec, &output).unwrap() == input, "{codec}: always a file of zfp");
    }
}

/// Workers of one library version must agree. When this changes, so must the revision in `LIBRARY`.
#[test]
fn output_bytes_are_pinned() {
    let table: Vec<_> = [
        ("field", "reversible,f32,30x31x33"),
        ("field", "accuracy=1e-3,f32,30x31x33"),
        ("field-rough", "accuracy=1e-3,f64,9x9x10x11"),
        ("field-rough", "precision=20,i32,300x301"),
        ("field", "rate=8,f32,70000"),
        ("field-rough", "reversible,i64,30x31x33"),
        ("field-constant", "rate=4.5,f64,300x301"),
    ]
    .iter()
    .map(|(kind, text)| {
        let codec = codec(&format!("zfp:{text}"));
        let output = compress(&codec, &generated(kind, &codec.grid().unwrap())).unwrap();
        format!("{kind} {text} {} {}", output.len(), Digest::of(&output))
    })
    .collect();
    insta::assert_snapshot!(table.join("\n"), @"
    field reversible,f32,30x31x33 84592 sha256:41a01fe52ebf9d5a9cf3dd0e018a4b1c5691af0a25a874b1d99e3c0da6a01127
    field accuracy=1e-3,f32,30x31x33 39256 sha256:bd84432063a4655f91cb3c0103ceb4ff9a18fa3f7302ee6adb666b04131fdb95
    field-rough accuracy=1e-3,f64,9x9x10x11 40368 sha256:5ff01b315ef22fb41a69bc3af008fffae36eb72b8ebb259c4e041bb8ecb3a5f6
    field-rough precision=20,i32,300x301 64656 sha256:1e98104c8768e557b8bcad424c88a8590f47bfd01efbb4424bb74cc964be8c8b
    field rate=8,f32,70000 70016 sha256:301dcda1aa84d867fa2679b3fdcfdf0150323b10d7d1de88bafbaf683b6e6dd2
    field-rough reversible,i64,30x31x33 176824 sha256:fae1f153bb9ab836538738ccc2c5a784eb4f73f9188a826992d4bd0b1d04566b
    field-constant rate=4.5,f64,300x301 51312 sha256:fe593d6c6671531f2d1d614c17801959a800ef9255fff626edd1d13e6104dffd
    ");
}
