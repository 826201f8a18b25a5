//! The table of golden files: what each was made of, and digests of all. `examples/golden.rs` writes it, `tests/golden.rs` holds the
//! codecs against it.

#![expect(clippy::expect_used, reason = "a test may fail, and says why")]

use std::path::PathBuf;

use bagpress_codec::{Codec, DataKind, Digest, Generator, Grid, SEGMENT_BYTES, decompress_all};

/// A line of `golden/table.tsv`.
pub(crate) struct Row {
    /// The file, in the table's folder.
    pub(crate) file: String,
    /// The codec, as a command line says it.
    pub(crate) codec: String,
    /// Kind of the generated input; behind `npy:`, as a file of numpy.
    pub(crate) data: String,
    pub(crate) index: u32,
    pub(crate) bytes: usize,
    /// Of the input, of the output, and of what that decodes to; empty, if they are not known yet.
    pub(crate) digests: [String; 3],
}

pub(crate) const SEED: u64 = 42;

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The rows whose codec is built in.
pub(crate) fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(folder().join("table.tsv")).expect("the table");
    let rows = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut columns = line.split('\t').map(str::to_owned);
        let mut next = || columns.next().unwrap_or_default();
        Row {
            file: next(),
            codec: next(),
            data: next(),
            index: next().parse().expect("an index"),
            bytes: next().parse().expect("a size"),
            digests: [next(), next(), next()],
        }
    });
    rows.filter(|row| cfg!(feature = "zfp") || !row.codec.starts_with("zfp")).collect()
}

impl Row {
    pub(crate) fn codec(&self) -> Codec {
        self.codec.parse().unwrap_or_else(|error| panic!("{}: {error}", self.codec))
    }

    pub(crate) fn input(&self) -> Vec<u8> {
        let (kind, mut input) = match self.data.strip_prefix("npy:") {
            None => (&*self.data, Vec::new()),
            Some(kind) => {
                let (_, grid) = kind.split_once(':').expect("type and shape");
                (kind, npy(&grid.parse().expect("type and shape")))
            }
        };
        let kind: DataKind = kind.parse().expect("a kind of data");
        let mut values = vec![0; self.bytes];
        let filled = Generator::new(kind, SEED, self.index, self.bytes as u64).fill(&mut values);
        assert_eq!(filled, self.bytes);
        input.append(&mut values);
        input
    }

    pub(crate) fn encode(&self, input: &[u8]) -> Vec<u8> {
        let (mut encoder, mut output) = (self.codec().encoder(), Vec::new());
        encoder.announce(input.len() as u64);
        for segment in input.chunks(SEGMENT_BYTES) {
            encoder.write(segment, &mut output).expect("it is compressed");
        }
        encoder.finish(&mut output).expect("it is compressed");
        output
    }

    pub(crate) fn decode(&self, output: &[u8]) -> Vec<u8> {
        decompress_all(&self.codec(), output)
            .unwrap_or_else(|error| panic!("{}: {error}", self.file))
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// What `numpy.save` writes before the values.
fn npy(grid: &Grid) -> Vec<u8> {
    let text = grid.to_string();
    let (scalar, shape) = text.split_once(',').expect("type and shape");
    let descr = format!("<{}{}", &scalar[..1], scalar[1..].parse::<u32>().expect("bits") / 8);
    let shape = shape.replace('x', ", ") + if shape.contains('x') { "" } else { "," };
    let words = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    format!("\u{1}\0v\0{words:117}\n").bytes().fold(b"\x93NUMPY".to_vec(), |mut bytes, byte| {
        bytes.push(byte);
        bytes
    })
}
