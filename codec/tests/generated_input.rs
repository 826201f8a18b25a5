//! Generated input is what `docs/generator.md` says, in any parts, for every implementation.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bagpress_codec::{DataKind, Digest, Generator};
use proptest::prelude::*;

/// Kind, seed, index and bytes of each golden digest. Small enough for an implementation in Python.
const GOLDEN: [(&str, u64, u32, u64); 18] = [
    ("random", 0, 0, 0),
    ("random", 0, 0, 1),
    ("random", 0, 0, 64),
    ("random", 0, 7, 100_003),
    ("random", 42, 23, 4096),
    ("random", u64::MAX, u32::MAX, 1000),
    ("text", 0, 0, 1),
    ("text", 0, 0, 1000),
    ("text", 0, 7, 100_003),
    ("text", 42, 23, 4096),
    ("text", u64::MAX, u32::MAX, 1000),
    ("zeros", 0, 0, 4096),
    ("field:f32,8x256x256", 0, 0, 2_097_152),
    ("field:f64,3x5x7x9", 42, 23, 7560),
    ("field-rough:f32,100x33", 0, 7, 13_201),
    ("field-rough:i64,1000", u64::MAX, u32::MAX, 8000),
    ("field:i32,20x30", 1, 2, 3000),
    ("field-constant:f64,10", 3, 4, 80),
];

fn generate(kind: DataKind, seed: u64, index: u32, bytes: u64) -> Vec<u8> {
    let mut buffer = vec![0xff; usize::try_from(bytes).unwrap()];
    assert_eq!(Generator::new(kind, seed, index, bytes).fill(&mut buffer), buffer.len());
    buffer
}

/// The golden digests, as the table in the document has them.
fn table() -> String {
    let row = |(kind, seed, index, bytes): (&str, u64, u32, u64)| {
        let kind: DataKind = kind.parse().unwrap();
        let digest = Digest::of(&generate(kind, seed, index, bytes));
        format!("| {kind} | {seed} | {index} | {bytes} | `{digest}` |\n")
    };
    GOLDEN.into_iter().map(row).collect()
}

/// The document with the rules.
fn document() -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    fs::read_to_string(docs.join("generator.md")).unwrap()
}

#[test]
fn golden_digests_are_pinned() {
    insta::assert_snapshot!(table(), @"
    | random | 0 | 0 | 0 | `sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855` |
    | random | 0 | 0 | 1 | `sha256:bd4fc42a21f1f860a1030e6eba23d53ecab71bd19297ab6c074381d4ecee0018` |
    | random | 0 | 0 | 64 | `sha256:1243fdd92be909005c9a65b9ad9322baaaa36a9b69e44471efca1450e455d4bb` |
    | random | 0 | 7 | 100003 | `sha256:5d6cada517934253a51e44163a57425bcb047dd997ba94df2508dbb370276d38` |
    | random | 42 | 23 | 4096 | `sha256:dcfebe7bedd07938fe4c49c7db0391962805558069cfc1971878a6ffaeb4208d` |
    | random | 18446744073709551615 | 4294967295 | 1000 | `sha256:4d287ef515d094f89acdaf1768598aa3b1c6c948f7d9857543a60a6b98fc9673` |
    | text | 0 | 0 | 1 | `sha256:de7d1b721a1e0632b7cf04edf5032c8ecffa9f9a08492152b926f1a5a7e765d7` |
    | text | 0 | 0 | 1000 | `sha256:6d05589040831bd4651a28187f9fad19b1b6fa90e5df7e89383d0cdf906b0ad3` |
    | text | 0 | 7 | 100003 | `sha256:18831d02d2895ca2660bc5e8df9220527e667ee5361fc61a9dc587cb9855f71d` |
    | text | 42 | 23 | 4096 | `sha256:28410eebc17ebbe60441eec0a4e1944d7772ec4cb0d395d8afb6fd9f3b70af05` |
    | text | 18446744073709551615 | 4294967295 | 1000 | `sha256:55bb62d5f51941c59b5256c493a143dc15deda088a3595386d8d785a222cf4db` |
    | zeros | 0 | 0 | 4096 | `sha256:ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7` |
    | field:f32,8x256x256 | 0 | 0 | 2097152 | `sha256:66a19ddac7381dafdc0549a4d1743077de366500e84580f9a45f6ac16c0324d0` |
    | field:f64,3x5x7x9 | 42 | 23 | 7560 | `sha256:12ec7225d5d439059161921108586a63c0e7e0b0f0affae81d46339553d732ce` |
    | field-rough:f32,100x33 | 0 | 7 | 13201 | `sha256:57544f3f800cfcba0c837a5ee05c65917b1072b4305afe85526bf25f0930df9a` |
    | field-rough:i64,1000 | 18446744073709551615 | 4294967295 | 8000 | `sha256:bb05607fc4ef44efd0ef878b032048f0121e43353657d3683c58ce9492da94dd` |
    | field:i32,20x30 | 1 | 2 | 3000 | `sha256:a450dc7e39a5d871e7acf5caf925dcc21410031f89dcbbcea984f0a412af83df` |
    | field-constant:f64,10 | 3 | 4 | 80 | `sha256:6b66accd840fdfa2de274664d70f7110a395e1a99f157881b1fc0f51de69f105` |
    ");
}

#[test]
fn document_has_the_golden_digests() {
    let document = document();
    assert!(document.contains(&table()), "the table should be:\n{}", table());
}

/// An implementation that shares nothing with ours but the document agrees with it.
#[test]
fn rules_of_the_document_give_the_golden_digests() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recompute.py");
    let mut child = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(document().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let output = String::from_utf8(output.stdout).unwrap();
    let (vocabulary, rows) = output.split_once('\n').unwrap();
    assert_eq!(rows, table());

    let ours: Vec<_> = include_str!("../src/vocabulary.txt").split_whitespace().collect();
    let digest = Digest::of(ours.join(" ").as_bytes());
    assert_eq!(vocabulary, format!("{digest} of {} words", ours.len()));
    assert!(document().contains(&digest.to_string()), "the document names {digest}");
}

#[test]
fn text_is_lines_of_twelve_words() {
    let text = String::from_utf8(generate(DataKind::Text, 1, 2, 100_000)).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for line in &lines[..lines.len() - 1] {
        assert_eq!(line.split(' ').count(), 12, "{line}");
    }
    assert!(lines.len() > 1000);
}

#[test]
fn seed_and_index_both_change_the_bytes() {
    for kind in [DataKind::Random, DataKind::Text] {
        let base = generate(kind, 0, 0, 100);
        assert_ne!(base, generate(kind, 1, 0, 100));
        assert_ne!(base, generate(kind, 0, 1, 100));
    }
}

#[test]
fn kinds_parse_as_they_print() {
    let fields = ["field:f32,8x256x256", "field-rough:i64,3", "field-constant:f64,2x3x4x5"];
    let fields = fields.map(|text| text.parse().unwrap());
    for kind in DataKind::ALL.into_iter().chain(fields) {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    let refusal = |text: &str| text.parse::<DataKind>().unwrap_err().to_string();
    let known = "known are random, text, zeros, field, field-rough and field-constant";
    for text in ["noise", "noise:f32,3", "field"] {
        assert_eq!(refusal(text), format!("unknown kind of data `{text}`: {known}"));
    }
    assert!(refusal("field:f32,0").contains("shape `0`"));
}

const KINDS: [&str; 6] =
    ["random", "text", "zeros", "field:f32,7x5", "field-rough:i32,1000x3", "field-constant:f64,9"];

proptest! {
    /// The parts never show: any sizes of buffers give the bytes that one buffer gives.
    #[test]
    fn any_buffers_give_the_same_bytes(
        kind in prop::sample::select(&KINDS[..]).prop_map(|kind| kind.parse::<DataKind>().unwrap()),
        seed: u64,
        index: u32,
        bytes in 0..40_000_u64,
        parts in prop::collection::vec(prop_oneof![1..9_usize, 1..9000_usize], 1..20),
    ) {
        let mut generator = Generator::new(kind, seed, index, bytes);
        let mut joined = Vec::new();
        for part in parts.iter().cycle() {
            let mut buffer = vec![0xff; *part];
            let filled = generator.fill(&mut buffer);
            joined.extend_from_slice(&buffer[..filled]);
            prop_assert_eq!(generator.remaining(), bytes - joined.len() as u64);
            if filled == 0 {
                break;
            }
        }
        prop_assert!(joined == generate(kind, seed, index, bytes));
    }
}
