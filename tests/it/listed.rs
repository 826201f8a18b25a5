//! Lists of tasks: each with its own input, codec and name of its output, by every way, there and back.

use std::fs;
use std::path::Path;

use bagpress_codec::{Codec, DataKind, Generator, decompress_all};
use serde_json::Value;

use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, generated};
use crate::objects::{at, put};
use crate::taken::run_of;

const KIB: usize = 1024;

/// A file, its codec if it is not the bag's, and what its output is called.
type Listed = (&'static str, Vec<u8>, Option<&'static str>, &'static str);

fn listed() -> Vec<Listed> {
    let text = |index, kib: usize| generated(DataKind::Text, index, kib * KIB);
    vec![
        ("a", text(1, 30), None, "x/a.gz"),
        ("b", text(2, 30), Some("zstd:9"), "x/b.zst"),
        ("c", text(3, 1), Some("zstd:9"), "c.zst"),
        ("d", text(4, 1), Some("zlib:1"), "deep/er/d.zz"),
        ("e", Vec::new(), Some("store"), "e"),
        // Equal in content: `g` gets the output of `f`, and `h` has another codec.
        ("f", text(5, 200), Some("zstd:3"), "f.zst"),
        ("g", text(5, 200), Some("zstd:3"), "g.zst"),
        ("h", text(5, 200), None, "h.gz"),
        // Cut into blocks.
        ("i", text(6, 3000), Some("zstd:1"), "i.zst"),
        ("j", text(7, 2500), None, "j.gz"),
        ("k", text(8, 600), Some("auto"), "k.zst"),
    ]
}

fn write_list(place: &Place, listed: &[Listed]) {
    let mut lines = Vec::new();
    for (name, bytes, codec, to) in listed {
        write(&place.path("in").join(name), bytes);
        let codec = codec.map(|codec| format!(",\"codec\":\"{codec}\"")).unwrap_or_default();
        lines.push(format!("{{\"file\":\"in/{name}\",\"to\":\"{to}\"{codec}}}\n"));
    }
    fs::write(place.path("list"), lines.concat()).unwrap();
}

/// What an output gives by the codec that made it.
fn decoded(output: &Path, codec: &str) -> Vec<u8> {
    let codec: Codec = codec.parse().unwrap();
    let bytes = fs::read(output).unwrap_or_else(|error| panic!("{}: {error}", output.display()));
    decompress_all(&codec, &bytes).unwrap()
}

fn data(place: &Place, run: &str) -> Value {
    let bag = fs::read(place.path(run).join("bag.json")).unwrap();
    serde_json::from_slice::<Value>(&bag).unwrap()["data"].clone()
}

#[tokio::test]
async fn each_task_of_a_list_has_its_own_codec_by_every_way_and_comes_back() {
    let ways = DELIVERIES.into_iter().flat_map(|delivery| {
        ["--transfer auto", "--transfer wire", "--results objects"]
            .map(|how| format!("--delivery {delivery} {how}"))
    });
    for how in ways {
        let place = Place::new().await;
        let listed = listed();
        write_list(&place, &listed);
        let run = run_of("t", &how);
        let words =
            format!("--from-jsonl list --out out --pack 4 --block 1MiB --workers 2 -q {how}");
        place.run(&format!("run {words} --name t")).await.with_code(0);
        let tasks = fs::read_to_string(place.path(&run).join("summary.json")).unwrap();
        let summary: Value = serde_json::from_str(&tasks).unwrap();
        assert_eq!(summary["completed"], 11, "{how}: {summary}");
        assert_eq!(summary["codec"], "gzip:6, zstd:9, zlib:1, 4 more", "{how}");
        // An earlier version, which would compress all by one codec, knows no such data.
        assert_eq!(data(&place, &run)["listed"]["codecs"].as_array().unwrap().len(), 6, "{how}");
        for (name, bytes, codec, to) in &listed {
            let output = place.path("out").join(to);
            assert!(decoded(&output, codec.unwrap_or("gzip:6")) == *bytes, "{how}: {name}");
        }
        place.run(&format!("verify {run} --inputs")).await.with_code(0);
        place.run(&format!("restore {run} --out back -q --workers 2")).await.with_code(0);
        for (name, bytes, _, to) in &listed {
            let back = place.path("back").join(to).with_extension("");
            assert!(fs::read(&back).unwrap() == *bytes, "{how}: {name}");
        }
        // A part of a file that was cut, by its own codec.
        for (file, from) in [("i.zst", 2 << 20), ("j.gz", (2 << 20) + 77)] {
            let range =
                format!("restore {run} {file} --range {from}..+1000 --out part --overwrite");
            place.run(&range).await.with_code(0);
            let (_, bytes, ..) = listed.iter().find(|(_, _, _, to)| *to == file).unwrap();
            assert!(fs::read(place.path("part")).unwrap() == bytes[from..from + 1000], "{how}");
        }
        let again = place.run(&format!("run {words} --name u --update")).await.with_code(0);
        assert!(again.stderr.contains("nothing to do"), "{how}: {again:?}");
        assert!(!place.path("runs/u").exists(), "{how}");
    }
}

#[tokio::test]
async fn an_output_of_another_codec_is_no_equal_contents_output() {
    let place = Place::new().await;
    write_list(&place, &listed());
    place.run("run --from-jsonl list --out out --name t -q --workers 1").await.with_code(0);
    let twins = fs::read_to_string(place.path("runs/t/staged/twins.jsonl")).unwrap();
    assert_eq!(twins, "{\"index\":6,\"first\":5}\n");
    // Whoever says otherwise is not believed.
    place.run("submit --from-jsonl list --out two --name u --server nats://127.0.0.1:1 --connect-timeout 0s").await;
    let folder = place.folder("u/staged");
    assert!(folder.join("bag.json").is_file());
    fs::write(folder.join("twins.jsonl"), "{\"index\":7,\"first\":5}\n").unwrap();
    place.run("gather runs/u/staged -q --workers 1").await.with_code(0);
    let (_, bytes, ..) = &listed()[7];
    assert!(decoded(&place.path("two/h.gz"), "gzip") == *bytes);
}

#[tokio::test]
async fn the_ledger_of_a_list_is_rebuilt_from_outputs_of_each_codec_and_a_spoilt_one_is_made_again()
{
    let place = Place::new().await;
    write_list(&place, &listed());
    place.run("run --from-jsonl list --out out --name t -q --workers 1").await.with_code(0);
    // One that is spoilt is made again, by its own codec.
    fs::write(place.path("out/x/b.zst"), b"spoilt").unwrap();
    place.run("verify runs/t/staged").await.with_code(1);
    place.run("gather runs/t/staged --repair -q --workers 1").await.with_code(0);
    assert!(decoded(&place.path("out/x/b.zst"), "zstd") == listed()[1].1);
    let folder = place.folder("t/staged");
    for name in ["manifest.jsonl", "summary.json", "summary.txt"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let gathered = place.run("gather runs/t/staged --repair --workers 1").await.with_code(0);
    assert!(gathered.stderr.contains("11 ledger lines rebuilt"), "{gathered:?}");
    place.run("verify runs/t/staged --inputs").await.with_code(0);
}

#[tokio::test]
async fn files_objects_and_generated_data_are_tasks_of_one_list() {
    for how in ["", "--results objects"] {
        let (place, server) = Place::with_server().await;
        let (at, _worker) = (at(&server), place.worker(&server));
        write(&place.path("in/a"), b"a file");
        put(&place, &at, "deep/b", b"an object").await.with_code(0);
        let list = [
            r#"{"file":"in/a","codec":"zstd:9","to":"a.zst"}"#,
            r#"{"reference":"obj://objects/deep/b","codec":"zlib:9"}"#,
            r#"{"reference":"obj://objects/deep/b","to":"again.gz"}"#,
            r#"{"generate":{"data":"text","seed":7,"bytes":"300KiB"},"to":"made/text.gz"}"#,
            r#"{"generate":{"data":"random","bytes":1000},"codec":"store"}"#,
        ];
        fs::write(place.path("list"), list.join("\n")).unwrap();
        let words = format!("run --from-jsonl list --out out --name t -q --pack 8 {how} {at}");
        let dry = place.run(&format!("{words} --dry-run")).await.with_code(0);
        assert!(dry.stdout.contains("obj://objects/deep/b -> out/objects/deep/b.zz"), "{dry:?}");
        place.run(&words).await.with_code(0);
        let run = run_of("t", how);
        expect_each_done_once(&place.path(&run), 5);
        let made = |kind, seed, index, bytes: usize| {
            let mut buffer = vec![0; bytes];
            Generator::new(kind, seed, index, bytes as u64).fill(&mut buffer);
            buffer
        };
        let expected = [
            ("a.zst", "zstd", b"a file".to_vec()),
            ("objects/deep/b.zz", "zlib", b"an object".to_vec()),
            ("again.gz", "gzip", b"an object".to_vec()),
            ("made/text.gz", "gzip", made(DataKind::Text, 7, 3, 300 * KIB)),
            ("out_4", "store", made(DataKind::Random, 0, 4, 1000)),
        ];
        for (name, codec, bytes) in &expected {
            assert!(decoded(&place.path("out").join(name), codec) == *bytes, "{how} {name}");
        }
        place.run(&format!("verify {run}")).await.with_code(0);
        place.run(&format!("restore {run} --out back -q {at}")).await.with_code(0);
        for (name, _, bytes) in &expected {
            let back = place.path("back").join(name).with_extension("");
            assert!(fs::read(back).unwrap() == *bytes, "{how} {name}");
        }
        let outcomes = place.run(&format!("results {run}")).await.with_code(0).stdout;
        assert!(!outcomes.contains("generated"), "what is generated is no file: {outcomes}");
    }
}

#[tokio::test]
async fn a_list_of_one_kind_needs_no_file_and_a_reference_in_it_is_waited_for() {
    let (place, server) = Place::with_server().await;
    let (at, _worker) = (at(&server), place.worker(&server));
    let list = r#"{"generate":{"data":"text","seed":1,"bytes":4096},"codec":"zstd:19","to":"a.zst"}
{"generate":{"data":"text","seed":2,"bytes":4096},"to":"b.gz"}"#;
    fs::write(place.path("made"), list).unwrap();
    place.run(&format!("run --from-jsonl made --out out --name m -q {at}")).await.with_code(0);
    expect_each_done_once(&place.folder("m/staged"), 2);
    place.run("verify runs/m/staged --inputs").await.with_code(0);
    fs::write(place.path("refs"), "{\"reference\":\"obj://objects/late\",\"codec\":\"zstd\"}")
        .unwrap();
    let running = place.spawn(&format!("run --from-jsonl refs --results objects --name r {at}"));
    crate::control::until_status(&place, "it waits for its input", &at, |all| {
        all.to_string().contains("1 of 1 inputs are not there yet").then_some(())
    })
    .await;
    put(&place, &at, "late", b"it came").await.with_code(0);
    running.ended(&place).await.with_code(0);
    expect_each_done_once(&place.folder("r/objects"), 1);
    let buckets = place.run(&format!("object ls {at}")).await.with_code(0).stdout;
    assert!(!buckets.contains("-in "), "nothing of a list of objects is put: {buckets}");
}

#[tokio::test]
async fn a_file_with_two_codecs_comes_back_once_and_what_would_have_its_name_is_refused() {
    let place = Place::new().await;
    write(&place.path("a"), b"content");
    write(&place.path("b"), b"another");
    let list = r#"{"file":"a","to":"x.gz"}
{"file":"a","to":"x.zst","codec":"zstd:9"}
{"file":"b","to":"x.zz","codec":"zlib:9"}"#;
    fs::write(place.path("list"), list).unwrap();
    place.run("run --from-jsonl list --out out --name t -q --workers 1").await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), 3);
    let back = place.run("restore runs/t/staged --out back -q --workers 1").await.with_code(1);
    assert!(back.stderr.contains("gives what another output gives"), "{back:?}");
    assert!(back.stderr.contains("comes back by the same name, and is another file"), "{back:?}");
    assert_eq!(fs::read(place.path("back/x")).unwrap(), b"content");
    fs::create_dir(place.path("elsewhere")).unwrap();
    fs::rename(place.path("out/x.zz"), place.path("elsewhere/x.zz")).unwrap();
    place.run("restore elsewhere/x.zz --out b2 -q --workers 1").await.with_code(0);
    assert_eq!(fs::read(place.path("b2/x")).unwrap(), b"another");
}

#[tokio::test]
async fn a_line_that_is_no_task_is_named_with_its_key_and_what_would_do() {
    let place = Place::new().await;
    write(&place.path("a"), b"content");
    let mut refused = vec![
        (
            r#"{"generate":{"data":"text","bytes":-1}}"#,
            "`-1`",
            "\"bytes\" to be a number from 0 on",
        ),
        (r#"{"file":""}"#, "\"file\" is empty", "{\"file\":\"path\"}"),
        (r#"{"file":"a","codec":"gzip:10"}"#, "\"codec\" is \"gzip:10\"", "9"),
        (r#"{"file":"a","codec":3}"#, "`3`", "\"codec\" to be a text"),
        (r#"{"generate":"text"}"#, "\"text\"", "\"generate\" to be an object such as {\"data\""),
        (
            r#"{"generate":{"data":"text","seed":-1,"bytes":1}}"#,
            "`-1`",
            "\"seed\" to be a number from 0 on",
        ),
        (
            r#"{"generate":{"data":"text","bytes":"-5MiB"}}"#,
            "\"bytes\" is \"-5MiB\"",
            "no size such as \"2MiB\"",
        ),
        (r#"{"generate":{"data":"field","bytes":1}}"#, "\"field\"", "\"field:f32,"),
        (r#"{"file":null}"#, "null", "\"file\" to be a path"),
        (r#"{"file":{"base64":"*"}}"#, "\"file\" is no path", "\"*\" is no base64"),
    ];
    if cfg!(feature = "zfp") {
        let line = r#"{"file":"a","codec":"zfp,f32,3"}"#;
        refused.push((line, "\"codec\" is \"zfp,f32,3\"", "zfp:MODE,f32,3"));
    }
    for (line, wrong, right) in refused {
        fs::write(place.path("list"), format!("{{\"file\":\"a\"}}\n{line}\n")).unwrap();
        let ended = place.run("run --from-jsonl list --out out --workers 1").await.with_code(2);
        for said in ["list:2: ", wrong, right] {
            assert!(ended.stderr.contains(said), "{said}: {ended:?}");
        }
        let runs = fs::read_dir(place.path("runs")).map_or(0, Iterator::count);
        assert_eq!(runs, 0, "nothing began");
    }
}

#[tokio::test]
async fn outputs_that_would_lie_in_each_other_are_refused_before_anything_begins() {
    let place = Place::new().await;
    write(&place.path("a"), b"content");
    let (outer, inner) = (r#"{"file":"a","to":"x.gz"}"#, r#"{"file":"a","to":"x.gz/y/z.gz"}"#);
    let made = r#"{"generate":{"data":"text","bytes":9},"to":"x.gz/m.gz"}"#;
    for (list, said) in [
        ([outer, inner], "its output x.gz/y/z.gz lies in x.gz, which is another output"),
        ([inner, outer], "its output x.gz is the folder of another output"),
        ([outer, made], "its output x.gz/m.gz lies in x.gz"),
        ([made, outer], "its output x.gz is the folder of another output"),
    ] {
        fs::write(place.path("list"), list.join("\n")).unwrap();
        let ended = place.run("run --from-jsonl list --out out --workers 1").await.with_code(2);
        assert!(ended.stderr.contains("list:2: ") && ended.stderr.contains(said), "{ended:?}");
        assert!(!place.path("out").exists(), "nothing began");
    }
}

#[tokio::test]
async fn a_list_without_a_task_is_refused_and_a_byte_order_mark_is_passed_over() {
    let place = Place::new().await;
    write(&place.path("a"), b"content");
    for empty in ["", "\n\n", "\u{feff}", "\u{feff}\n"] {
        fs::write(place.path("list"), empty).unwrap();
        let ended = place.run("run --from-jsonl list --out out --workers 1").await.with_code(2);
        assert!(ended.stderr.contains("the list list has no task"), "{empty:?}: {ended:?}");
        assert!(ended.stderr.contains("{\"file\":\"path\"}"), "{ended:?}");
    }
    fs::write(place.path("list"), "\u{feff}{\"file\":\"a\"}\n").unwrap();
    place.run("run --from-jsonl list --out out --name t -q --workers 1").await.with_code(0);
    expect_each_done_once(&place.folder("t/staged"), 1);
}
