//! The steps name functions of the real code, and those are there: a rename there is noticed here.

use std::path::{Path, PathBuf};
use std::{fs, io};

const CRATES: [&str; 5] = ["broker", "codec", "consumer", "objstore", "producer"];

/// Every source below `folder`, with its text.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            found.push((path, text));
        }
    }
    Ok(())
}

/// What is between single backticks in the comments of a source.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let comments = text.lines().filter_map(|line| line.trim().strip_prefix("//"));
    comments.flat_map(|comment| comment.split('`').skip(1).step_by(2))
}

fn is_type(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
}

/// Whether `text` has `words` with nothing that continues the last one behind it.
fn says(text: &str, words: &str) -> bool {
    let mut found = text.match_indices(words).map(|(at, _)| &text[at + words.len()..]);
    found.any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Whether a source at `path` has what `name` says: `Type::function`, `module::function` or `Type::Variant`.
fn defines(path: &Path, text: &str, name: &str) -> bool {
    let mut segments = name.rsplit("::");
    let (Some(last), Some(of)) = (segments.next(), segments.next()) else { return false };
    if is_type(last) {
        return says(text, &format!("enum {of}")) && says(text, last);
    }
    let is_there = if is_type(of) {
        says(text, &format!("impl {of}")) || says(text, &format!("> {of}"))
    } else {
        path.iter().any(|part| part == of) || path.file_stem().is_some_and(|stem| stem == of)
    };
    is_there && says(text, &format!("fn {last}"))
}

#[test]
fn every_function_that_a_step_names_is_there() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = model.parent().unwrap();
    let (mut steps, mut code) = (Vec::new(), Vec::new());
    sources(&model.join("src"), &mut steps).unwrap();
    for name in CRATES {
        sources(&root.join(name).join("src"), &mut code).unwrap();
    }
    let (mut count, mut missing) = (0, Vec::new());
    for (step, text) in &steps {
        for name in named(text) {
            let is_there = if Path::new(name).extension().is_some_and(|e| e == "rs") {
                steps.iter().chain(&code).any(|(path, _)| path.ends_with(name))
            } else if name.contains("::") {
                code.iter().any(|(path, text)| defines(path, text, name))
            } else {
                continue;
            };
            count += 1;
            if !is_there {
                missing.push(format!("{}: `{name}`", step.file_name().unwrap().display()));
            }
        }
    }
    assert!(missing.is_empty(), "not in the code: {missing:#?}");
    assert!(count > 40, "only {count} names were found");
}
