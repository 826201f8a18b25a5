//! Files of every codec and level that the documents use, as they are: today's code opens each of them, and makes each of them again.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

mod golden_table;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bagpress_codec::Codec;
use golden_table::{digest, folder, rows};

#[test]
fn every_golden_file_is_what_the_table_says_and_decodes_to_it() {
    for row in rows() {
        let file = fs::read(folder().join(&row.file)).unwrap();
        let [_, output, decoded] = &row.digests;
        assert_eq!(digest(&file), *output, "{}", row.file);
        assert_eq!(digest(&row.decode(&file)), *decoded, "{}", row.file);
    }
}

#[test]
fn every_golden_file_is_made_again_byte_for_byte() {
    for row in rows() {
        let input = row.input();
        assert_eq!(digest(&input), row.digests[0], "the input of {}", row.file);
        let file = fs::read(folder().join(&row.file)).unwrap();
        assert!(row.encode(&input) == file, "{} is another file now", row.file);
        let comes_back = row.digests[0] == row.digests[2];
        assert_eq!(comes_back, !row.codec().is_lossy(), "{}", row.file);
    }
}

#[test]
fn nothing_but_golden_files_is_among_them() {
    let listed: BTreeSet<_> = rows().into_iter().map(|row| row.file).collect();
    let there = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap());
    for entry in there {
        let name = entry.file_name().into_string().unwrap();
        let of_zfp = !cfg!(feature = "zfp") && name.contains(".zfp");
        assert!(name == "table.tsv" || of_zfp || listed.contains(&name), "{name}");
        assert!(entry.metadata().unwrap().len() <= 16 * 1024, "{name} is no small file");
    }
}

/// What the documents call a codec with its level, or with its mode.
fn documented() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents = docs.chain([root.join("README.md"), root.join("CHANGELOG.md")]);
    let mut found = BTreeSet::new();
    for document in documents.filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(document).unwrap();
        let is_part = |c: char| c.is_ascii_alphanumeric() || ":=,.-".contains(c);
        for word in text.split(|c: char| !is_part(c)) {
            let word = word.trim_end_matches([',', '.', ':', '-']);
            // A level or a mode follows; of arrays, type and shape may follow that.
            let Some((name, _)) = word.split_once(':') else { continue };
            if !Codec::all().any(|codec| codec.name == name) {
                continue;
            }
            let mode = word.split(',').next().unwrap();
            let codec = if name == "zfp" { mode } else { word };
            found.extend(codec.parse::<Codec>().ok().map(|codec| codec.to_string()));
        }
    }
    found
}

#[test]
fn every_codec_and_level_of_the_documents_has_a_golden_file() {
    let golden: BTreeSet<_> = rows().iter().map(|row| row.codec().to_string()).collect();
    let documented = documented();
    assert!(documented.len() > 15, "{documented:?}");
    let missing: Vec<_> = documented.difference(&golden).collect();
    assert_eq!(missing, Vec::<&String>::new());
}
