//! Tasks come as lines of JSON, and outcomes go as lines of JSON.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::Place;

fn lines(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The keys that a table of `docs/jsonl.md` has, of all rows for which `of` is true of the second column.
fn documented(of: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/jsonl.md");
    let text = fs::read_to_string(document).unwrap();
    let (_, table) = text.split_once("| key | of | meaning |").unwrap();
    let rows = table.lines().take_while(|line| line.is_empty() || line.starts_with('|'));
    let rows = rows.filter_map(|row| row.strip_prefix("| `"));
    let keys = rows.filter_map(|row| {
        let (keys, rest) = row.split_once(" | ")?;
        of(rest.split(" | ").next()?).then(|| format!("`{keys}"))
    });
    let keys = keys
        .flat_map(|keys| keys.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    keys.collect()
}

fn keys(line: &Value) -> BTreeSet<String> {
    line.as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn outcomes_have_the_keys_that_are_documented_and_no_others() {
    let (place, server) = Place::with_server().await;
    fs::create_dir(place.path("in")).unwrap();
    fs::write(place.path("in/long"), vec![7; 3 << 20]).unwrap();
    fs::write(place.path("in/short"), b"short").unwrap();
    fs::write(place.path("in/taken"), b"taken").unwrap();
    let submit = format!("submit in --out out --name t --block 1MiB --server {}", server.url());
    place.run(&submit).await.with_code(0);
    fs::create_dir_all(place.path("out/in")).unwrap();
    fs::write(place.path("out/in/taken.gz"), b"another's").unwrap();
    let _worker = place.worker(&server);
    let gather = format!("gather runs/t/staged -q --server {}", server.url());
    place.run(&gather).await.with_code(1);
    let ended = place.run("results runs/t/staged").await.with_code(1);
    let mut outcomes = lines(&ended.stdout);
    outcomes.sort_by_key(|line| line["index"].as_u64());
    assert_eq!(outcomes.len(), 3, "a block has no line: {}", ended.stdout);
    let done = documented(|of| {
        ["all", "done", "bags of files", "done, where outputs become files"].contains(&of)
    });
    let failed = documented(|of| ["all", "failed", "bags of files"].contains(&of));
    assert!(done.len() > 12 && failed.len() > 9, "{done:?} {failed:?}");
    assert_eq!(keys(&outcomes[0]), done);
    assert_eq!(keys(&outcomes[1]), done);
    assert_eq!(keys(&outcomes[2]), failed);
    assert_eq!((&outcomes[0]["outcome"], &outcomes[0]["verified"]), (&"done".into(), &true.into()));
    assert_eq!(outcomes[0]["input_bytes"], 3 << 20);
    assert_eq!(
        outcomes[0]["output"],
        place.path("out/in/long.gz").canonicalize().unwrap().to_str().unwrap()
    );
    assert_eq!(outcomes[2]["cause"], "output-exists");
    assert_eq!(
        outcomes[2]["file"],
        place.path("in/taken").canonicalize().unwrap().to_str().unwrap()
    );
    // Of a task that was run again the last round is printed, once.
    fs::remove_file(place.path("out/in/taken.gz")).unwrap();
    place.run(&format!("{gather} --retry-failed")).await.with_code(0);
    let again = lines(&place.run("results runs/t/staged --follow").await.with_code(0).stdout);
    let rounds: Vec<_> =
        again.iter().map(|line| (line["index"].as_u64(), line["round"].as_u64())).collect();
    assert_eq!(rounds.len(), 3);
    assert!(rounds.contains(&(Some(2), Some(1))), "{rounds:?}");
}

#[tokio::test]
async fn outcomes_of_objects_and_of_generated_tasks_have_their_keys() {
    let place = Place::new().await;
    place
        .run("run --tasks 2 --bytes 1KiB --results objects --name t -q --workers 1")
        .await
        .with_code(0);
    let outcomes = lines(&place.run("results runs/t/objects").await.with_code(0).stdout);
    let expected = documented(|of| ["all", "done", "done, with `--results objects`"].contains(&of));
    for line in &outcomes {
        assert_eq!(keys(line), expected);
        assert!(line["object"].as_str().unwrap().starts_with("obj://"), "{line}");
    }
    assert_eq!(outcomes.len(), 2);
}

#[tokio::test]
async fn outcomes_are_followed_while_a_bag_is_gathered() {
    let (place, server) = Place::with_server().await;
    let url = server.url();
    place
        .run(&format!("submit --tasks 30 --bytes 64KiB --name t --server {url}"))
        .await
        .with_code(0);
    let following = place.spawn("results runs/t/staged --follow");
    place
        .until("it says that nobody gathers", || {
            following.stderr().contains("no process of this machine gathers").then_some(())
        })
        .await;
    let none = place.run("results runs/t/staged").await.with_code(0);
    assert_eq!(none.stdout, "");
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/t/staged -q --server {url}")).await.with_code(0);
    let followed = lines(&following.ended(&place).await.with_code(0).stdout);
    let indices: BTreeSet<_> =
        followed.iter().map(|line| line["index"].as_u64().unwrap()).collect();
    assert_eq!((followed.len(), indices), (30, (0..30).collect()));
}

#[tokio::test]
async fn who_follows_a_bag_that_is_cancelled_is_told_once_that_it_has_to_be_resumed() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    place.run(&format!("submit --tasks 3 --bytes 1KiB --name t {at}")).await.with_code(0);
    let gathering = place.spawn(&format!("gather runs/t/staged -q {at}"));
    crate::control::until_status(&place, "it is gathered", &at, |all| {
        all["bags"][0]["gatherer"].as_object().map(drop)
    })
    .await;
    let following = place.spawn("results runs/t/staged --follow");
    place.run(&format!("cancel runs/t/staged {at}")).await.with_code(0);
    gathering.ended(&place).await.with_code(1);
    let told = || following.stderr().matches("with --resume if it was cancelled").count();
    place.until("it is told that nobody gathers it", || (told() > 0).then_some(())).await;
    let _worker = place.worker(&server);
    place.run(&format!("gather runs/t/staged --resume -q {at}")).await.with_code(0);
    let followed = following.ended(&place).await.with_code(0);
    assert_eq!(lines(&followed.stdout).len(), 3);
    assert_eq!(followed.stderr.matches("with --resume").count(), 1, "{followed:?}");
}

#[tokio::test]
async fn tasks_of_a_list_get_the_outputs_that_it_names() {
    let place = Place::new().await;
    fs::create_dir_all(place.path("in/sub")).unwrap();
    for name in ["a", "sub/b", "c"] {
        fs::write(place.path("in").join(name), name).unwrap();
    }
    let absolute = place.path("in/c");
    let list = format!(
        "{{\"file\":\"in/a\",\"to\":\"x/first.zst\"}}\n\n{{\"file\":\"in/sub/b\"}}\n{{\"file\":\"{}\",\"to\":\"c.zst\",\"codec\":\"zstd:3\"}}",
        absolute.display()
    );
    fs::write(place.path("tasks.jsonl"), &list).unwrap();
    let words = "run --from-jsonl tasks.jsonl --out out --codec zstd:3";
    let dry = place.run(&format!("{words} --dry-run")).await.with_code(0);
    assert!(dry.stdout.contains("in/a -> out/x/first.zst"), "{}", dry.stdout);
    place.run(&format!("{words} --name t -q --workers 1")).await.with_code(0);
    let outcomes = lines(&place.run("results runs/t/staged").await.with_code(0).stdout);
    assert_eq!(outcomes.len(), 3);
    for output in ["x/first.zst", "in/sub/b.zst", "c.zst"] {
        assert!(place.path("out").join(output).is_file(), "{output}");
    }
    place.run("restore runs/t/staged --out back -q --workers 1").await.with_code(0);
    assert_eq!(fs::read(place.path("back/x/first")).unwrap(), b"a");
    assert_eq!(fs::read(place.path("back/c")).unwrap(), b"c");
}

#[tokio::test]
async fn a_line_that_is_no_task_is_named_and_nothing_is_begun() {
    let place = Place::new().await;
    fs::write(place.path("a"), b"a").unwrap();
    fs::write(place.path("b"), b"b").unwrap();
    let first = r#"{"file":"a","to":"one.gz"}"#;
    for (line, said) in [
        (r#"{"file":"b","to":"one.gz"}"#, "would have the same output"),
        (r#"{"file":"a","to":"one.gz"}"#, "would have the same output"),
        (r#"{"file":"one","to":"b.gz","as":1}"#, "unknown field `as`"),
        (r#"{"file":"../b"}"#, "leads upwards"),
        (r#"{"file":"b","codec":"lzma"}"#, "unknown codec"),
        (r#"{"file":"b","codec":"zstd:3","to":"b.gz"}"#, "ends in .zst"),
        (r#"{"file":"b","codec":"store","to":"one.gz"}"#, "would have the same output"),
        (r#"{"file":"b","codec":"noop"}"#, "of all tasks, or of none"),
        (r#"{"generate":{"data":"text","bytes":"1KiB"},"to":"one.gz"}"#, "the same output"),
        (r#"{"generate":{"data":"text"}}"#, "how many bytes"),
        (r#"{"file":"b","generate":{"data":"text","bytes":1}}"#, "more than one input"),
        (r#"{"reference":"obj://b/o"}"#, "give --server URL"),
        ("b", "no JSON object"),
    ] {
        fs::write(place.path("tasks.jsonl"), format!("{first}\n{line}\n")).unwrap();
        let ended = place.run("run --from-jsonl tasks.jsonl --out out").await.with_code(2);
        assert!(ended.stderr.contains("tasks.jsonl:2: "), "{line}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{line}: {}", ended.stderr);
        assert!(!place.path("out").exists(), "{line}");
    }
    for (words, said) in [
        ("run --from-jsonl tasks.jsonl --files-from a --out out", "cannot be used with"),
        ("run a --from-jsonl tasks.jsonl --out out", "cannot be used with"),
        ("run --tasks 2 --from-jsonl tasks.jsonl", "cannot be used with"),
        ("run --from-jsonl none.jsonl --out out", "cannot be read"),
    ] {
        let ended = place.run(words).await.with_code(2);
        assert!(ended.stderr.contains(said), "{words}: {}", ended.stderr);
    }
}
