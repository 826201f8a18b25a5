//! A bag by `auto`: what is chosen for each file is told, and every output is a `.zst` file of its input by every way.

use std::fs;
use std::path::Path;

use bagpress_codec::{Codec, DataKind, decompress_all};
use serde_json::{Value, json};

use crate::death::DELIVERIES;
use crate::files::write;
use crate::harness::Place;
use crate::ledger::{expect_each_done_once, generated};
use crate::taken::run_of;

const KIB: usize = 1024;

/// Files of which each gets another level, or none.
fn files(place: &Place) -> [(&'static str, Vec<u8>); 4] {
    let files = [
        ("text", generated(DataKind::Text, 1, 900 * KIB)),
        ("short", generated(DataKind::Text, 2, 10 * KIB)),
        ("noise", generated(DataKind::Random, 3, 700 * KIB)),
        ("empty", Vec::new()),
    ];
    for (name, bytes) in &files {
        write(&place.path("in").join(name), bytes);
    }
    files
}

fn decoded(output: &Path) -> Vec<u8> {
    let codec: Codec = "zstd".parse().unwrap();
    decompress_all(&codec, &fs::read(output).unwrap()).unwrap()
}

fn summary(place: &Place, run: &str) -> (Value, String) {
    let read = |name: &str| fs::read_to_string(place.path(run).join(name)).unwrap();
    (serde_json::from_str(&read("summary.json")).unwrap(), read("summary.txt"))
}

#[tokio::test]
async fn every_output_is_a_zst_file_and_what_was_chosen_is_told_by_every_way() {
    let ways = DELIVERIES.into_iter().flat_map(|delivery| {
        ["--transfer auto", "--transfer wire", "--results objects"]
            .map(|how| format!("--delivery {delivery} {how}"))
    });
    for how in ways {
        let place = Place::new().await;
        let files = files(&place);
        let run = run_of("t", &how);
        let words = format!("run in --out out --name t -q --goal balanced --workers 2 {how}");
        place.run(&words).await.with_code(0);
        expect_each_done_once(&place.path(&run), files.len() as u64);
        for (name, bytes) in &files {
            assert!(decoded(&place.path(&format!("out/in/{name}.zst"))) == *bytes, "{how} {name}");
        }
        let (json, text) = summary(&place, &run);
        let outputs = |codec: &str| json["choices"][codec]["outputs"].clone();
        for codec in ["zstd:1", "zstd:3", "zstd:4"] {
            assert_eq!(outputs(codec), 1, "{how} {json}");
        }
        let became = |codec: &str| {
            let chosen = &json["choices"][codec];
            let of = |key: &str| chosen[key].as_u64().unwrap();
            (of("predicted_bytes"), of("predicted_became_bytes"))
        };
        // Of text as the generator makes it, a part predicts the whole.
        for (predicted, made) in [became("zstd:1"), became("zstd:3")] {
            assert!(made > 0 && predicted.abs_diff(made) < made / 10, "{predicted} {made}");
        }
        let row = text.lines().find(|line| line.starts_with("chosen")).unwrap();
        assert!(
            row.contains("zstd:1 for 1 output, zstd:3 for 1, zstd:4 for 1; predicted "),
            "{how} {row}"
        );
        let status = place.run(&format!("status {run} in/text")).await.with_code(0);
        assert!(status.stdout.contains("  chosen: zstd:3, predicted "), "{status:?}");
        let status = place.run(&format!("status {run} in/noise")).await.with_code(0);
        assert!(status.stdout.contains("  chosen: zstd:1, predicted "), "{status:?}");
        place.run(&format!("verify {run} --inputs")).await.with_code(0);
        // It is read as any other zstd is.
        place.run(&format!("restore {run} --out back -q")).await.with_code(0);
        for (name, bytes) in &files {
            assert!(fs::read(place.path(&format!("back/in/{name}"))).unwrap() == *bytes, "{name}");
        }
    }
}

#[tokio::test]
async fn each_block_of_a_large_file_has_a_choice_of_its_own() {
    let place = Place::new().await;
    let half = 1024 * KIB;
    let bytes = [generated(DataKind::Text, 1, half), generated(DataKind::Random, 2, half)].concat();
    write(&place.path("in/both"), &bytes);
    let run = "run in --out out --name t -q --codec auto --block 1MiB --workers 2";
    place.run(run).await.with_code(0);
    assert!(decoded(&place.path("out/in/both.zst")) == bytes);
    let (json, text) = summary(&place, "runs/t/staged");
    for codec in ["zstd:1", "zstd:3"] {
        let chosen = &json["choices"][codec];
        assert_eq!((&chosen["outputs"], &chosen["blocks"]), (&json!(0), &json!(1)), "{json}");
    }
    assert!(text.contains("zstd:1 for 1 block, zstd:3 for 1 block"), "{text}");
    assert_eq!(json["output_bytes"], fs::metadata(place.path("out/in/both.zst")).unwrap().len());
}

#[tokio::test]
async fn packed_files_have_a_choice_each_and_the_goal_decides() {
    for (goal, level) in [("ratio", "zstd:19"), ("speed", "zstd:1")] {
        let place = Place::new().await;
        for file in 0..6 {
            let bytes = generated(DataKind::Text, file, 5 * KIB);
            write(&place.path(&format!("in/f{file}")), &bytes);
        }
        let run = format!("run in --out out --name t -q --goal {goal} --pack 3 --workers 1");
        place.run(&run).await.with_code(0);
        let (json, _) = summary(&place, "runs/t/staged");
        assert_eq!(json["choices"][level]["outputs"], 6, "{json}");
        // What is there and not older is left out.
        let again = format!("run in --out out --name u -q --goal {goal} --update --workers 1");
        let again = place.run(&again).await.with_code(0);
        assert!(again.stderr.contains("nothing to do"), "{again:?}");
    }
}
