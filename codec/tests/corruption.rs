//! Wrong bytes are found: changed, missing or too many.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use bagpress_codec::{Codec, Error, Verifier, decompress_all};

const INPUT: &[u8] = b"a task and a task and a task, and then one more task: 0123456789";

fn codec(text: &str) -> Codec {
    text.parse().unwrap()
}

/// What `write` made of the input, and what `finish` added.
fn compress(codec: &Codec, input: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut encoder, mut body, mut end) = (codec.encoder(), Vec::new(), Vec::new());
    encoder.announce(input.len() as u64);
    encoder.write(input, &mut body).unwrap();
    encoder.finish(&mut end).unwrap();
    (body, end)
}

fn whole(codec: &Codec, input: &[u8]) -> Vec<u8> {
    let (body, end) = compress(codec, input);
    [body, end].concat()
}

fn verify(codec: &Codec, body: &[u8], end: &[u8]) -> Result<(), Error> {
    let mut verifier = Verifier::new(codec);
    verifier.check(INPUT, body)?;
    verifier.finish(end)
}

/// Some bits of the formats mean nothing (gzip's time, the padding of a stored block). A flip there
/// leaves the output valid and equal; a flip anywhere else is an error. None passes as other bytes.
#[test]
fn no_flipped_bit_passes_as_other_bytes() {
    for (text, free_bits) in
        [("zlib:6", 16), ("gzip:6", 65), ("zlib:0", 11), ("gzip:0", 60), ("zstd:3", 2)]
    {
        let codec = codec(text);
        let (body, end) = compress(&codec, INPUT);
        let mut accepted = 0;
        for bit in 0..(body.len() + end.len()) * 8 {
            let mut bytes = [&body[..], &end[..]].concat();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let decoded = decompress_all(&codec, &bytes);
            let (body, end) = bytes.split_at(body.len());
            let verified = verify(&codec, body, end);
            if let Ok(decoded) = decoded {
                assert_eq!(decoded, INPUT, "{text}, bit {bit}");
                accepted += 1;
            } else {
                assert!(verified.is_err(), "{text}, bit {bit}");
            }
        }
        assert!(accepted <= free_bits, "{text}: {accepted} bits are not protected");
    }
}

#[test]
fn every_changed_byte_of_a_stored_output_is_a_mismatch_there() {
    let codec = codec("store");
    for offset in 0..INPUT.len() {
        let mut bytes = INPUT.to_vec();
        bytes[offset] ^= 0x20;
        let expected = Error::Mismatch { offset: offset as u64 };
        assert_eq!(verify(&codec, &bytes, b""), Err(expected));
    }
}

#[test]
fn every_truncation_ends_early() {
    for codec in ["zlib:6", "gzip:6", "zlib:0", "zstd:3"].map(codec) {
        let bytes = whole(&codec, INPUT);
        for length in 0..bytes.len() {
            let error = decompress_all(&codec, &bytes[..length]).unwrap_err();
            assert_eq!(error, Error::EndedEarly { format: codec.name() }, "{codec} at {length}");
        }
    }
}

#[test]
fn trailing_bytes_are_an_error() {
    for codec in ["zlib:6", "gzip:6", "zstd:3"].map(codec) {
        let (body, end) = compress(&codec, INPUT);
        let more = [&end[..], b"\x01"].concat();
        let expected = Err(Error::TrailingBytes { format: codec.name() });
        assert_eq!(verify(&codec, &body, &more), expected);
        assert_eq!(decompress_all(&codec, &[body, more].concat()), expected.map(|()| vec![]));
    }
    assert!(decompress_all(&codec("noop"), b"x").is_err());
}

/// A valid stream, but another input's: the verifier names the first byte that differs.
#[test]
fn output_of_another_input_is_a_mismatch() {
    let mut other = INPUT.to_vec();
    other[20] ^= 1;
    for codec in ["zlib:6", "gzip:1", "zlib:0", "store", "zstd:3"].map(codec) {
        for (input, offset) in [(&other[..], 20), (&INPUT[..9], 9)] {
            let (body, _) = compress(&codec, input);
            assert_eq!(
                Verifier::new(&codec).check(INPUT, &body),
                Err(Error::Mismatch { offset }),
                "{codec}"
            );
        }
        let (body, _) = compress(&codec, INPUT);
        let expected = Err(Error::Mismatch { offset: 9 });
        assert_eq!(Verifier::new(&codec).check(&INPUT[..9], &body), expected, "{codec}: too much");
    }
}

#[test]
fn what_an_output_may_begin_with_is_how_every_output_begins() {
    for info in Codec::all().filter(|info| !info.takes_arrays) {
        let levels = info.levels.map_or(0..=0, |levels| levels.min..=levels.max);
        for level in levels {
            let name = info
                .levels
                .map_or_else(|| info.name.to_owned(), |_| format!("{}:{level}", info.name));
            let codec = codec(&name);
            let output = whole(&codec, b"two bytes and more");
            let Some(begin) = output.first_chunk::<2>() else { continue }; // it stores nothing
            assert!(codec.may_begin_with(begin), "{name}: {begin:02x?}");
            if !codec.extension().is_empty() {
                assert!(!codec.may_begin_with(b"PK"), "{name}: a zip archive");
            }
        }
    }
}

#[test]
fn verifier_demands_the_end() {
    for codec in ["zlib:6", "gzip:6", "zstd:3"].map(codec) {
        let (mut body, mut end) = compress(&codec, INPUT);
        if end.is_empty() {
            end = body.split_off(body.len() - 4); // its checksum
        }
        assert_eq!(verify(&codec, &body, &end), Ok(()));
        let missing = Err(Error::EndedEarly { format: codec.name() });
        assert_eq!(verify(&codec, &body, b""), missing);
        assert_eq!(verify(&codec, &body, &end[..end.len() - 1]), missing);
    }
}

#[test]
fn other_formats_are_corrupt() {
    let gzip = whole(&codec("gzip"), INPUT);
    let zlib = whole(&codec("zlib"), INPUT);
    let zstd = whole(&codec("zstd"), INPUT);
    for (codec, bytes) in [
        (codec("zlib"), gzip.clone()),
        (codec("gzip"), zlib),
        (codec("gzip"), zstd),
        (codec("zstd"), gzip),
    ] {
        let error = decompress_all(&codec, &bytes).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}
