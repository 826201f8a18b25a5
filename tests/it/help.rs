//! Help texts have examples and exit codes, and the broker is named first.

use crate::harness::Place;

#[tokio::test]
async fn every_verb_has_examples() {
    let place = Place::new().await;
    let help = place.run("--help").await.with_code(0).stdout;
    let (_, verbs) = help.split_once("Commands:\n").unwrap();
    let verbs = verbs.lines().take_while(|line| line.starts_with("  "));
    let verbs: Vec<_> = verbs.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.len() > 5, "{help}");
    for verb in verbs.iter().filter(|verb| **verb != "help") {
        let help = place.run(&format!("{verb} --help")).await.with_code(0).stdout;
        let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{help}"));
        assert!(examples.contains(&format!("bagpress {verb}")), "{examples}");
        let Some((_, within)) = help.split_once("Commands:\n") else { continue };
        let within = within.lines().take_while(|line| line.starts_with("  "));
        for within in within.filter_map(|line| line.split_whitespace().next()) {
            if within == "help" {
                continue;
            }
            let help = place.run(&format!("{verb} {within} --help")).await.with_code(0).stdout;
            let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{help}"));
            assert!(examples.contains(&format!("bagpress {verb} {within} ")), "{examples}");
        }
    }
}

/// The options that a help text has a line of.
fn options(help: &str) -> Vec<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.map(|line| line.split_whitespace().find(|word| word.starts_with("--")));
    words.flatten().map(|word| word.trim_end_matches(',').to_owned()).collect()
}

#[tokio::test]
async fn short_help_has_at_most_a_dozen_options_and_long_help_has_all() {
    let place = Place::new().await;
    let help = async |words: &str| options(&place.run(words).await.with_code(0).stdout);
    for verb in [
        "run",
        "submit",
        "gather",
        "restore",
        "status",
        "cancel",
        "rm",
        "verify",
        "object put",
        "object get",
        "object wait",
        "object info",
        "object ls",
        "object pin",
        "object unpin",
        "object free",
        "worker",
        "broker",
    ] {
        let short = help(&format!("{verb} -h")).await;
        let long = help(&format!("{verb} --help")).await;
        assert!((4..=12).contains(&short.len()), "{verb}: {short:?}");
        assert!(short.len() + 8 <= long.len(), "{verb}: {long:?}");
        assert!(short.iter().all(|option| long.contains(option)), "{verb}: {short:?} {long:?}");
    }
    let long = help("run --help").await;
    assert!(long.len() > 40, "{long:?}");
    for group in [
        ["--out", "--codec", "--tasks", "--workers"],
        ["--attempts", "--stats", "--trust-folder", "--checksum"],
        ["--max-fails", "--token-file", "--connect-timeout", "--durability"],
    ] {
        assert!(group.iter().all(|flag| long.contains(&(*flag).to_owned())), "{group:?} {long:?}");
    }
}

#[tokio::test]
async fn help_says_what_exit_codes_mean() {
    let place = Place::new().await;
    let help = place.run("--help").await.with_code(0).stdout;
    for word in ["Exit codes", "124", "130", "143"] {
        assert!(help.contains(word), "{help}");
    }
    let version = place.run("--version").await.with_code(0).stdout;
    assert_eq!(version.trim(), format!("bagpress {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn the_broker_is_always_named_first() {
    let (place, server) = Place::with_server().await;
    let local = place.run("run --tasks 2 --bytes 1KiB --workers 1").await.with_code(0);
    assert_eq!(local.stderr.lines().next(), Some("broker: local"));
    let _worker = place.worker(&server);
    let url = server.url();
    let flag = place.run(&format!("run --tasks 2 --bytes 1KiB --server {url}")).await.with_code(0);
    let named = format!("broker: {url} (from --server)");
    assert_eq!(flag.stderr.lines().next(), Some(&*named));
    let mut command = place.bagpress("run --tasks 2 --bytes 1KiB");
    command.env("BAGPRESS_SERVER", url);
    let variable = place.finish(command).await.with_code(0);
    let named = format!("broker: {url} (from BAGPRESS_SERVER)");
    assert_eq!(variable.stderr.lines().next(), Some(&*named));
    // No files go to a server by accident.
    let mut command = place.bagpress("run --tasks 2 --bytes 1KiB --workers 1");
    command.env("NATS_URL", url);
    let not_taken = place.finish(command).await.with_code(0);
    assert_eq!(not_taken.stderr.lines().next(), Some("broker: local"));
}
