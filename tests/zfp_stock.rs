//! What the stock `zfp` command and zfpy make of the outputs of a bag, and we of theirs: `make test-peers`.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use bagpress_codec::{DataKind, Generator, Grid};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/zfpy");

/// Runs a program in a folder; fails unless it succeeds.
fn run(folder: &Path, program: &str, words: &[&str]) -> Vec<u8> {
    let command =
        Command::new(program).args(words).env("PYTHONPATH", PYTHON).current_dir(folder).output();
    let ran = command.unwrap_or_else(|error| {
        panic!("{program}: {error}; `make test-peers` says what to install")
    });
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {words:?}: {said}");
    ran.stdout
}

fn bagpress(folder: &Path, words: &str) {
    let words: Vec<_> = words.split(' ').collect();
    run(folder, env!("CARGO_BIN_EXE_bagpress"), &words);
}

fn field(kind: &str, grid: &Grid) -> Vec<u8> {
    let kind: DataKind = format!("{kind}:{grid}").parse().unwrap();
    let mut bytes = vec![0; usize::try_from(grid.bytes()).unwrap()];
    Generator::new(kind, 0, 0, grid.bytes()).fill(&mut bytes);
    bytes
}

/// The words by which the stock command is told a type and a shape: the fastest dimension first.
fn dimensions(grid: &Grid) -> Vec<String> {
    let extents = grid.shape.extents();
    let words = extents.iter().rev().map(ToString::to_string);
    let counted = [format!("-{}", extents.len())].into_iter().chain(words);
    let scalar = match grid.scalar.to_string().as_str() {
        "f32" => "-f",
        "f64" => "-d",
        other => panic!("{other}: the test has floats"),
    };
    [scalar.to_owned()].into_iter().chain(counted).collect()
}

/// By both readers, what is in a file of ours; with the header alone.
const DECODE: &str = "import sys, zfpy\n\
    sys.stdout.buffer.write(zfpy.decompress_numpy(open(sys.argv[1], 'rb').read()).tobytes())";

#[test]
fn zfp_and_zfpy_read_every_mode_type_and_shape_as_we_do() {
    for (grid, modes) in [
        ("f32,20x30x41", &["reversible", "accuracy=1e-3", "precision=20", "rate=8"][..]),
        ("f64,1003", &["reversible", "accuracy=1e-9", "rate=12.25"]),
        ("i32,65x66", &["reversible", "precision=24", "rate=16"]),
        ("i64,5x6x7x9", &["reversible", "precision=40", "rate=20"]),
        ("f64,64x7", &["accuracy=1e300", "precision=64"]),
    ] {
        let grid: Grid = grid.parse().unwrap();
        for mode in modes {
            let place = tempfile::tempdir().unwrap();
            let place = place.path();
            let values = field("field-rough", &grid);
            fs::create_dir(place.join("in")).unwrap();
            fs::write(place.join("in/a.raw"), &values).unwrap();
            let (scalar, shape) = (grid.scalar, grid.shape);
            bagpress(
                place,
                &format!(
                    "run in --out out --name t -q --workers 1 --codec zfp:{mode} --dtype {scalar} --shape {shape}"
                ),
            );
            bagpress(place, "restore runs/t/staged --out back --name r -q --workers 1");
            let ours = fs::read(place.join("back/in/a.raw")).unwrap();
            run(place, "zfp", &["-q", "-h", "-z", "out/in/a.raw.zfp", "-o", "stock"]);
            assert!(fs::read(place.join("stock")).unwrap() == ours, "zfp: {grid} {mode}");
            let python = run(place, "python3", &["-c", DECODE, "out/in/a.raw.zfp"]);
            assert!(python == ours, "zfpy: {grid} {mode}");
            if *mode == "reversible" {
                assert!(ours == values);
            }
        }
    }
}

#[test]
fn we_read_what_zfp_writes_and_write_the_same() {
    let grid: Grid = "f32,20x30x41".parse().unwrap();
    for (flags, mode) in [
        (&["-R"][..], "reversible"),
        (&["-a", "1e-3"], "accuracy=1e-3"),
        (&["-p", "20"], "precision=20"),
        (&["-r", "8"], "rate=8"),
    ] {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        fs::create_dir(place.join("in")).unwrap();
        fs::write(place.join("in/a.raw"), field("field", &grid)).unwrap();
        let dimensions = dimensions(&grid);
        let words: Vec<_> = ["-q", "-h", "-i", "in/a.raw", "-z", "stock.zfp"]
            .into_iter()
            .chain(dimensions.iter().map(String::as_str))
            .chain(flags.iter().copied())
            .collect();
        run(place, "zfp", &words);
        bagpress(
            place,
            &format!("run in --out out --name t -q --workers 1 --codec zfp:{mode},{grid}"),
        );
        let (stock, ours) =
            (fs::read(place.join("stock.zfp")), fs::read(place.join("out/in/a.raw.zfp")));
        let (stock, ours) = (stock.unwrap(), ours.expect("a file"));
        // Debian builds it with words of one byte, and ours have eight, as zfp has by itself: the last one is filled up.
        let (same, rest) = ours.split_at_checked(stock.len()).unwrap();
        assert!(same == stock && rest.len() < 8 && rest.iter().all(|byte| *byte == 0), "{mode}");
        bagpress(place, "restore stock.zfp --out back --name s -q --workers 1");
        run(place, "zfp", &["-q", "-h", "-z", "stock.zfp", "-o", "decoded"]);
        let (back, decoded) = (fs::read(place.join("back/stock")), fs::read(place.join("decoded")));
        assert!(back.unwrap() == decoded.expect("a file"), "{mode}");
    }
}

#[test]
fn a_file_of_numpy_comes_back_byte_for_byte_and_zfpy_reads_its_array() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    fs::create_dir(place.join("in")).unwrap();
    let save = "import numpy as n\n\
        for name, a in {'a': n.zeros(60, dtype='<f4').reshape(3, 4, 5), 'b': n.ones(1000, dtype='<i8'), 'c': n.ones((7, 9))}.items():\n    \
        n.save('in/' + name, a)\n\
        n.save('in/fortran', n.asfortranarray(n.ones((3, 4))))\n\
        n.save('in/half', n.ones(9, dtype='<f2'))";
    run(place, "python3", &["-c", save]);
    let words = "run in --out out --name t -q --workers 1 --codec zfp";
    let words: Vec<_> = words.split(' ').collect();
    let ran = Command::new(env!("CARGO_BIN_EXE_bagpress"))
        .args(words)
        .current_dir(place)
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(1), "two of them are no arrays for zfp");
    bagpress(place, "restore out --out back --name r -q --workers 1");
    for name in ["a", "b", "c"] {
        let file = |path: String| fs::read(place.join(path)).unwrap();
        let original = file(format!("in/{name}.npy"));
        assert!(original == file(format!("back/out/in/{name}.npy")), "{name}");
        let values = run(place, "python3", &["-c", DECODE, &format!("out/in/{name}.npy.zfp")]);
        assert!(values == original[128..], "{name}");
    }
}
