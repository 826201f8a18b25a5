//! Documents tell the truth about the command line: every command that they print is one.

use std::path::Path;
use std::process::Command;

/// The `bagpress` commands of a document's console blocks, without comments and continuations.
fn commands(document: &str) -> Vec<Vec<String>> {
    let text = document.replace("\\\n", " ");
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ "));
    let lines = lines.map(|line| line.split(" #").next().unwrap_or(line));
    let words = lines.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    words.filter(|words| words[0] == "bagpress" || words[0].ends_with("/bagpress")).collect()
}

#[test]
fn every_command_in_a_document_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut checked = 0;
    for document in ["README.md", "docs/operations.md", "docs/protocol.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for words in commands(&text) {
            // With --help behind it a command is parsed, down to every flag and value, and not run.
            let output = Command::new(env!("CARGO_BIN_EXE_bagpress"))
                .args(&words[1..])
                .arg("--help")
                .output()
                .unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{document}: {}: {error}", words.join(" "));
            checked += 1;
        }
    }
    assert!(checked >= 5, "only {checked} commands found");
}

#[test]
fn every_make_target_in_a_document_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let makefile = std::fs::read_to_string(root.join("Makefile")).unwrap();
    for document in ["README.md", "docs/operations.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for found in text.split("`make ").skip(1).chain(text.split("$ make ").skip(1)) {
            let target: String =
                found.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            let known = target.is_empty() || makefile.contains(&format!("\n{target}:"));
            assert!(known, "{document}: make {target}");
        }
    }
}
