//! Everybody's tools open our files, and we open theirs.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use bagpress_codec::{Codec, DataKind, Digest, Generator, SEGMENT_BYTES, decompress_all};

/// Runs a program with `input` on its standard input, and returns its output when it succeeded.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program} {arguments:?}: {}", output.status);
    output.stdout
}

/// More than a segment of each kind, in an order in which segments are deflated, stored unread, and deflated again.
fn input() -> Vec<u8> {
    let mut input = Vec::new();
    for kind in [DataKind::Text, DataKind::Random, DataKind::Random, DataKind::Zeros] {
        let start = input.len();
        input.resize(start + SEGMENT_BYTES + 1, 0);
        Generator::new(kind, 3, 1, SEGMENT_BYTES as u64 + 1).fill(&mut input[start..]);
    }
    input
}

fn compress(codec: &str, input: &[u8]) -> Vec<u8> {
    let mut encoder = codec.parse::<Codec>().unwrap().encoder();
    let mut output = Vec::new();
    encoder.announce(input.len() as u64);
    for segment in input.chunks(SEGMENT_BYTES) {
        encoder.write(segment, &mut output).unwrap();
    }
    encoder.finish(&mut output).unwrap();
    output
}

fn decompress(codec: &str, bytes: &[u8]) -> Vec<u8> {
    decompress_all(&codec.parse().unwrap(), bytes).unwrap()
}

#[test]
fn gzip_opens_our_gzip() {
    for input in [input(), vec![], b"x".to_vec()] {
        for level in 0..=9 {
            let output = compress(&format!("gzip:{level}"), &input);
            pipe("gzip", &["-t"], &output);
            assert!(pipe("gzip", &["-dc"], &output) == input, "level {level}");
        }
    }
}

#[test]
fn python_opens_our_zlib_and_gzip() {
    let script = "import sys, gzip, zlib, hashlib\n\
        open_all = {'zlib': zlib.decompress, 'gzip': gzip.decompress}[sys.argv[1]]\n\
        print('sha256:' + hashlib.sha256(open_all(sys.stdin.buffer.read())).hexdigest())";
    for input in [input(), vec![]] {
        for codec in
            ["zlib:0", "zlib:1", "zlib:6", "zlib:9", "gzip:6", "zlib:6,full", "gzip:6,full"]
        {
            let name = &codec[..4];
            let digest = pipe("python3", &["-c", script, name], &compress(codec, &input));
            let digest = String::from_utf8(digest).unwrap();
            assert_eq!(digest.trim(), Digest::of(&input).to_string(), "{codec}");
        }
    }
}

#[test]
fn we_open_what_gzip_makes() {
    let input = input();
    for level in ["-1", "-9"] {
        assert!(decompress("gzip", &pipe("gzip", &["-c", level], &input)) == input);
    }
}

#[test]
fn we_open_what_python_makes() {
    let input = input();
    for arguments in ["9", "9, 9", "0, 12"] {
        let script = format!(
            "import sys, zlib; packer = zlib.compressobj({}); data = sys.stdin.buffer.read(); \
             sys.stdout.buffer.write(packer.compress(data) + packer.flush())",
            arguments.replace(", ", ", zlib.DEFLATED, ")
        );
        assert!(decompress("zlib", &pipe("python3", &["-c", &script], &input)) == input);
    }
}

#[test]
fn members_decode_to_their_concatenation() {
    let members =
        [compress("gzip:6", b"one "), compress("gzip:1", b""), compress("gzip:0", b"two")];
    assert_eq!(decompress("gzip", &members.concat()), b"one two");
    let cut = &members.concat()[..members[0].len() + 5];
    assert!(decompress_all(&"gzip".parse().unwrap(), cut).is_err());
}

/// RFC 1952's optional fields: FHCRC, FEXTRA, FNAME and FCOMMENT, and their checksum is checked.
#[test]
fn every_optional_field_of_a_gzip_header_is_read() {
    let plain = compress("gzip:6", b"body");
    let mut header = vec![0x1f, 0x8b, 8, 0b1_1110, 1, 2, 3, 4, 0, 3];
    header.extend_from_slice(&[3, 0, b'e', b'x', b't']);
    header.extend_from_slice(b"name\0comment\0");
    let checksum = crc32fast::hash(&header).to_le_bytes();
    let file = |checksum: &[u8]| [&header[..], checksum, &plain[10..]].concat();
    assert_eq!(decompress("gzip", &file(&checksum[..2])), b"body");
    assert!(decompress_all(&"gzip".parse().unwrap(), &file(&[!checksum[0], checksum[1]])).is_err());
}
