//! Documents tell the truth about the command line: every command that they print is one.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use bagpress_broker::result::Cause;

/// The arguments of `bagpress` in a document's console blocks, without comments and continuations:
/// of the program itself, and of `docker compose run … SERVICE`, where the image is the program.
fn commands(document: &str) -> Vec<Vec<String>> {
    let text = document.replace("\\\n", " ");
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ "));
    let lines = lines.map(|line| line.split(" #").next().unwrap_or(line));
    let words = lines.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    words.filter_map(|words| arguments(&words)).collect()
}

/// What `bagpress` is given in one line, if it is in it.
fn arguments(words: &[String]) -> Option<Vec<String>> {
    let program = if words.starts_with(&["docker", "compose", "run"].map(str::to_owned)) {
        words.iter().position(|word| ["producer", "observer"].contains(&word.as_str()))?
    } else {
        let is_ours = words[0] == "bagpress" || words[0].ends_with("/bagpress");
        is_ours.then_some(0)?
    };
    Some(words[program + 1..].to_vec())
}

/// What `bagpress` is given by the services of the image, with the defaults of the variables.
fn services(compose: &str) -> Vec<Vec<String>> {
    let lists = compose.split("command:").skip(1).filter_map(|rest| {
        let (_, list) = rest.split_once('[')?;
        Some(list.split_once(']')?.0)
    });
    let words = lists.map(|list| {
        let words = list.split(',').map(|word| word.trim().trim_matches('"'));
        let words = words.map(|word| word.split_once(":-").map_or(word, |(_, default)| default));
        words.map(|word| word.trim_end_matches('}').to_owned()).collect::<Vec<_>>()
    });
    words.filter(|words| !words[0].starts_with('-')).collect()
}

/// Whether `bagpress` understands these arguments. With --help behind them they are parsed, down to
/// every flag and value, and nothing runs.
fn assert_understood(place: &str, arguments: &[String]) {
    let mut bagpress = Command::new(env!("CARGO_BIN_EXE_bagpress"));
    let output = bagpress.args(arguments).arg("--help").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{place}: {}: {error}", arguments.join(" "));
}

#[test]
fn every_command_in_a_document_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut checked = 0;
    for document in [
        "README.md",
        "docs/operations.md",
        "docs/references.md",
        "docs/roles.md",
        "docs/protocol.md",
        "docs/run-folder.md",
        "docs/generator.md",
        "docs/jsonl.md",
        "docs/zfp.md",
        "docs/benchmark.md",
        "CONTRIBUTING.md",
    ] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for arguments in commands(&text) {
            assert_understood(document, &arguments);
            checked += 1;
        }
    }
    assert!(checked >= 5, "only {checked} commands found");
}

#[test]
fn every_service_of_the_compose_file_has_a_command_that_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compose = std::fs::read_to_string(root.join("compose.yaml")).unwrap();
    let services = services(&compose);
    let verbs: Vec<_> = services.iter().map(|arguments| arguments[0].as_str()).collect();
    assert_eq!(verbs, ["broker", "broker", "worker", "run", "status"]);
    for arguments in services {
        assert_understood("compose.yaml", &arguments);
    }
}

/// cargo builds nothing of a workspace of which a member is missing.
#[test]
fn every_package_of_the_workspace_is_in_what_the_image_is_built_from() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let (_, members) = manifest.split_once("members = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    let ignored = std::fs::read_to_string(root.join(".dockerignore")).unwrap();
    for member in members.split(',').map(|member| member.trim().trim_matches('"')) {
        let entry = format!("!{member}");
        assert!(ignored.lines().any(|line| line == entry), ".dockerignore has no line {entry}");
    }
}

#[test]
fn every_make_target_in_a_document_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let makefile = std::fs::read_to_string(root.join("Makefile")).unwrap();
    for document in ["README.md", "docs/operations.md", "docs/benchmark.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for found in text.split("`make ").skip(1).chain(text.split("$ make ").skip(1)) {
            let target: String =
                found.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            let known = target.is_empty() || makefile.contains(&format!("\n{target}:"));
            assert!(known, "{document}: make {target}");
        }
    }
}

#[test]
fn every_source_that_the_architecture_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let named = document.split('`').skip(1).step_by(2);
    let paths: Vec<_> = named.filter(|name| name.contains("/src/")).collect();
    assert!(paths.len() > 20, "ARCHITECTURE.md names only {paths:?}");
    for path in paths {
        assert!(root.join(path).exists(), "ARCHITECTURE.md: {path} is not there");
    }
}

#[test]
fn every_cause_of_a_failure_is_in_the_protocol() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protocol = std::fs::read_to_string(root.join("docs/protocol.md")).unwrap();
    let rows = |cause: &Cause| protocol.matches(&format!("\n| `{cause}` | ")).count();
    let missing: Vec<_> = Cause::ALL.iter().filter(|cause| rows(cause) != 1).collect();
    assert!(missing.is_empty(), "docs/protocol.md has no row, or two, for {missing:?}");
}

/// Every function that is marked as a test, or is one of a property, in the sources of the workspace.
fn tests_there_are(root: &Path) -> HashSet<String> {
    let folders =
        ["tests", "codec", "broker", "objstore", "consumer", "producer", "bench", "model"];
    let files = folders.iter().flat_map(|folder| walkdir::WalkDir::new(root.join(folder)));
    let files = files.map(Result::unwrap).filter(|f| f.path().extension() == Some("rs".as_ref()));
    let mut names = HashSet::new();
    for file in files {
        let text = std::fs::read_to_string(file.path()).unwrap();
        let marked = text.split("#[test]").skip(1).chain(text.split("#[tokio::test").skip(1));
        for behind in marked {
            let (_, name) = behind.split_once("fn ").unwrap();
            let end = name.find('(').unwrap();
            names.insert(name[..end].to_owned());
        }
    }
    names
}

#[test]
fn every_test_that_the_promises_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [promises, security] = ["docs/promises.md", "SECURITY.md"]
        .map(|name| std::fs::read_to_string(root.join(name)).unwrap());
    let there_are = tests_there_are(root);
    let promises: Vec<_> = promises.lines().filter(|line| line.starts_with('|')).collect();
    let heads = ["| promise | tests |", "| --- | --- |"];
    let empty: Vec<_> =
        promises.iter().filter(|row| !heads.contains(row) && !row.ends_with("` |")).collect();
    assert!(empty.is_empty(), "no test holds {empty:?}");
    // There other columns may quote what is no test.
    let attacks = security.lines().filter_map(|line| line.strip_suffix('|')?.rsplit('|').next());
    let quoted =
        promises.into_iter().chain(attacks).flat_map(|row| row.split('`').skip(1).step_by(2));
    let named: Vec<_> = quoted.filter(|name| name.contains('_')).collect();
    let missing: Vec<_> = named.iter().filter(|name| !there_are.contains(**name)).collect();
    assert!(missing.is_empty(), "no test is named {missing:?}");
    assert!(named.len() >= 100, "only {} names found", named.len());
}
