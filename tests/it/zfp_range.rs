//! Ranges of arrays of a run, which has recorded where they can be entered.

use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::zfp::{bagpress, field, succeeds};

/// 32 MiB: eight sections of four planes, which are a layer.
const GRID: &str = "f32,32x512x512";
const MODES: [&str; 4] = ["accuracy=1e-3", "precision=20", "reversible", "rate=6"];
const LAYER: usize = 4 * 512 * 512 * 4;

/// What `numpy.save` writes in front of such an array.
fn npy() -> Vec<u8> {
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (32, 512, 512), }";
    let mut header = [&b"\x93NUMPY\x01\x00\x76\x00"[..], text.as_bytes()].concat();
    header.resize(127, b' ');
    header.push(b'\n');
    header
}

/// A run of the array by every mode, as a file of numpy and as bare values: `a.npy.zfp`, `b.zfp` and so on, restored below `back`.
fn compressed(place: &Path) {
    let values = field(GRID);
    fs::write(place.join("values"), &values).unwrap();
    fs::write(place.join("array.npy"), [npy(), values].concat()).unwrap();
    let lines: Vec<_> = MODES
        .iter()
        .enumerate()
        .flat_map(|(at, mode)| {
            [
                format!(r#"{{"file":"array.npy","to":"{at}.npy.zfp","codec":"zfp:{mode}"}}"#),
                format!(r#"{{"file":"values","to":"{at}.zfp","codec":"zfp:{mode},{GRID}"}}"#),
            ]
        })
        .collect();
    fs::write(place.join("list"), lines.join("\n")).unwrap();
    succeeds(place, "run --from-jsonl list --out out --name t --workers 2 -q");
    succeeds(place, "restore runs/t/staged --out back --name r --workers 2 -q");
}

/// The entry points of a file, by the ledger: at which bits they are.
fn entry_points(place: &Path, index: usize) -> Vec<u64> {
    let ledger = fs::read_to_string(place.join("runs/t/staged/manifest.jsonl")).unwrap();
    let mut lines = ledger.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let done = lines.rfind(|line| line["outcome"]["index"] == index).unwrap();
    let points = done["outcome"]["outcome"]["done"]["entry_points"].as_array().unwrap().clone();
    points.iter().map(|point| point["bit"].as_u64().unwrap()).collect()
}

/// The bytes of a file that have the section between two entry points.
fn section(points: &[u64], which: usize) -> Range<usize> {
    let byte = |at: usize| usize::try_from(points[at] / 64 * 8).unwrap();
    byte(which)..byte(which + 1) + 8
}

fn range_of(file: &str, range: &Range<usize>) -> String {
    let Range { start, end } = range;
    format!("restore runs/t/staged {file} --range {start}..{end} --out part")
}

/// Restores a range into `part`, which is read and removed.
fn restored(place: &Path, file: &str, range: &Range<usize>) -> (Vec<u8>, String) {
    let ended = bagpress(place, &range_of(file, range));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{file} {range:?}: {said}");
    let part = fs::read(place.join("part")).unwrap();
    fs::remove_file(place.join("part")).unwrap();
    (part, said)
}

#[test]
fn a_range_of_an_array_of_a_run_reads_its_section_and_is_compared_with_its_digest() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    compressed(place);
    for (at, form) in (0..MODES.len()).flat_map(|at| [(at, ".npy"), (at, "")]) {
        let (file, index) = (format!("{at}{form}.zfp"), 2 * at + usize::from(form.is_empty()));
        let whole = fs::read(place.join("back").join(format!("{at}{form}"))).unwrap();
        let front = if form.is_empty() { 0 } else { 128 };
        let (inside, across) = (front + 3 * LAYER + 5, front + 5 * LAYER - 3);
        for (range, parts) in [
            (inside..inside + 70_000, "read 1 of 8 parts"),
            (across..across + 9, "read 2 of 8 parts"),
            (0..100, "read 1 of 8 parts"),
            (whole.len() - 1..whole.len(), "read 1 of 8 parts"),
        ] {
            let (part, said) = restored(place, &file, &range);
            assert!(part == whole[range.clone()], "{file} {range:?}");
            let compared = format!("{parts}; compared with the digests that the run recorded");
            assert!(said.contains(&compared), "{file} {range:?}: {said}");
        }
        // Whatever the others are, nobody reads them; the length is looked at.
        let (path, range) = (place.join("out").join(&file), inside..inside + 10);
        let good = fs::read(&path).unwrap();
        let here = section(&entry_points(place, index), 3);
        let mut others = good.clone();
        others[32..here.start].fill(0xa5);
        others[here.end..].fill(0x5a);
        fs::write(&path, &others).unwrap();
        assert!(restored(place, &file, &range).0 == whole[range.clone()], "{file}");
        // One bit of these is noticed.
        let mut damaged = good.clone();
        damaged[usize::midpoint(here.start, here.end)] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let ended = bagpress(place, &range_of(&file, &range));
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(1) && said.contains("input-corrupt"), "{file}: {said}");
        assert!(!place.join("part").exists(), "{file}");
        fs::write(&path, &good).unwrap();
    }
}

/// Rewrites the ledger, line by line, each with its checksum.
fn rewrite(place: &Path, change: impl Fn(&mut Value)) {
    let path: PathBuf = place.join("runs/t/staged/manifest.jsonl");
    let (ledger, mut file) = (fs::read_to_string(&path).unwrap(), fs::File::create(&path).unwrap());
    for line in ledger.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("crc");
        change(&mut line);
        let text = line.to_string();
        let text = text.strip_suffix('}').unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(text.as_bytes());
        writeln!(file, "{text},\"crc\":\"{:08x}\"}}", crc.sum()).unwrap();
    }
}

#[test]
fn a_ledger_that_is_wrong_about_an_array_gives_no_other_bytes_and_one_without_entry_points_is_enough()
 {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let (array, from) = ([npy(), field(GRID)].concat(), 128 + 3 * LAYER);
    fs::write(place.join("a.npy"), &array).unwrap();
    succeeds(place, "run a.npy --out out --name t --workers 1 -q --codec zfp");
    let ledger = place.join("runs/t/staged/manifest.jsonl");
    let (right, range) = (fs::read(&ledger).unwrap(), from..from + 50);
    let words = range_of("a.npy", &range);
    let points = |line: &mut Value, change: &dyn Fn(&mut Vec<Value>)| {
        let points = &mut line["outcome"]["outcome"]["done"]["entry_points"];
        change(points.as_array_mut().unwrap());
    };
    // As it is, and as an earlier version writes it.
    rewrite(place, |_| {});
    let (part, said) = restored(place, "a.npy", &range);
    assert!(part == array[range.clone()] && said.contains("read 1 of 8 parts"), "{said}");
    rewrite(place, |line| {
        line["outcome"]["outcome"]["done"].as_object_mut().unwrap().remove("entry_points");
    });
    let (part, said) = restored(place, "a.npy", &range);
    let whole =
        "read from the start: no index, and to its end; compared with the digest that the run";
    assert!(part == array[range.clone()] && said.contains(whole), "{said}");
    // Of another section; of no section; in no order.
    for change in [
        &(|points: &mut Vec<Value>| points[3]["digest"] = points[4]["digest"].clone())
            as &dyn Fn(&mut Vec<Value>),
        &|points| points[3]["bit"] = Value::from(points[3]["bit"].as_u64().unwrap() + 1),
        &|points| points[4]["part"] = Value::from(5),
    ] {
        fs::write(&ledger, &right).unwrap();
        rewrite(place, |line| points(line, change));
        let ended = bagpress(place, &words);
        let said = String::from_utf8_lossy(&ended.stderr);
        let is_damaged = ended.status.code() == Some(1) && said.contains("input-corrupt");
        assert!(is_damaged || said.contains("does not fit it"), "{said}");
        assert!(!is_damaged || !place.join("part").exists());
        if !is_damaged {
            assert!(fs::read(place.join("part")).unwrap() == array[range.clone()]);
            fs::remove_file(place.join("part")).unwrap();
        }
    }
    fs::write(&ledger, &right).unwrap();
    rewrite(place, |line| points(line, &|points| points.swap(2, 5)));
    let (part, said) = restored(place, "a.npy", &range);
    assert!(part == array[range.clone()] && said.contains("does not fit it"), "{said}");
    // Outputs alone say nothing of it, and a run without verification has decoded nothing.
    fs::write(&ledger, b"").unwrap();
    succeeds(place, "gather runs/t/staged --repair");
    let (part, said) = restored(place, "a.npy", &range);
    assert!(part == array[range.clone()] && said.contains(whole), "{said}");
    succeeds(place, "run a.npy --out unseen --name u --workers 1 -q --codec zfp --verify none");
    let unseen = words.replace("runs/t", "runs/u");
    let said = bagpress(place, &unseen);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("read from the start: no index"), "{said}");
    assert!(fs::read(place.join("part")).unwrap() == array[range]);
}
