//! Writes the golden files again, and their digests: only after an output was to change, which is a new revision of its library.
//!
//! `cargo run --package bagpress-codec --features zfp --example golden`

#![expect(clippy::expect_used, reason = "who runs it looks at what it says")]

#[path = "../tests/golden_table/mod.rs"]
mod golden_table;

use std::fmt::Write;

use golden_table::{digest, folder, rows};

const HEAD: &str = "# file\tcodec\tdata (seed 42)\tindex\tbytes\tSHA-256 of the input\tof the output\tof what it decodes to\n";

fn main() {
    let (rows, mut table) = (rows(), HEAD.to_owned());
    let before = std::fs::read_to_string(folder().join("table.tsv")).expect("read");
    let lines = before.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(rows.len(), lines, "without zfp the table would lose lines: build it in");
    for row in rows {
        let input = row.input();
        let output = row.encode(&input);
        let digests = [&input, &output, &row.decode(&output)].map(|of| digest(of));
        if row.digests != digests {
            std::fs::write(folder().join(&row.file), &output).expect("written");
        }
        let [input, made, decoded] = digests;
        let (file, codec, data, index, bytes) =
            (&row.file, &row.codec, &row.data, row.index, row.bytes);
        writeln!(table, "{file}\t{codec}\t{data}\t{index}\t{bytes}\t{input}\t{made}\t{decoded}")
            .expect("a text takes all");
    }
    std::fs::write(folder().join("table.tsv"), table).expect("written");
}
