//! What is found below a folder, and what is not.

use std::fs;
use std::os::unix::fs::symlink;

use bagpress_broker::result::Cause;
use bagpress_objstore::staging::PART_DIR;

use super::existing::Outputs;
use super::find::find;
use super::finder::Found;
use super::folders::FolderEntry;
use super::lists::Sink;
use super::roots::check_roots;
use super::selection::{Existing, FilesFrom, ListForm, Selection};
use super::skipped::Kind;
use super::*;

/// What was found, kept.
#[derive(Debug, Default)]
struct Kept {
    files: Vec<InputEntry>,
    folders: Vec<FolderEntry>,
}

impl Sink for Kept {
    fn file(&mut self, _: &Path, entry: &InputEntry) -> anyhow::Result<()> {
        self.files.push(entry.clone());
        Ok(())
    }

    fn folder(&mut self, entry: &FolderEntry) -> anyhow::Result<()> {
        self.folders.push(entry.clone());
        Ok(())
    }
}

impl Kept {
    fn targets(&self) -> Vec<&[u8]> {
        self.files.iter().map(|entry| entry.target.as_os_str().as_bytes()).collect()
    }
}

fn outputs(root: &Path, existing: Existing) -> Outputs {
    Outputs::new(root.to_owned(), "gzip:6".parse().unwrap(), existing, false)
}

fn codec() -> bagpress_codec::Codec {
    "gzip:6".parse().unwrap()
}

fn found(paths: &[PathBuf], selection: &Selection, outputs: Option<Outputs>) -> (Found, Kept) {
    let mut kept = Kept::default();
    let found = find(paths, (selection, &codec()), outputs, None, &mut kept).unwrap();
    (found, kept)
}

fn plainly(paths: &[PathBuf]) -> (Found, Kept) {
    found(paths, &Selection::default(), None)
}

fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("doc/deep er")).unwrap();
    fs::write(root.join("doc/a.txt"), b"a").unwrap();
    fs::write(root.join("doc/deep er/ü.txt"), b"").unwrap();
    fs::write(root.join("doc").join(OsString::from_vec(b"bad\xff".to_vec())), b"xy").unwrap();
    symlink("a.txt", root.join("doc/link")).unwrap();
    fs::write(root.join("single"), b"s").unwrap();
    folder
}

/// Writes a list as a run has it.
fn write(list: &Path, entries: &[InputEntry]) -> InputList {
    let lines: Vec<_> = entries.iter().map(|e| serde_json::to_string(e).unwrap() + "\n").collect();
    fs::write(list, lines.concat()).unwrap();
    InputList::of(fs::File::open(list).unwrap()).unwrap()
}

#[test]
fn a_target_that_leads_out_is_refused_however_it_is_written() {
    let base64 = r#"{"base64":"Li4vb3V0/w=="}"#; // ../out and a byte that is no UTF-8
    for target in
        [r#""/etc/cron.d/x""#, r#""../x""#, r#""a/../../x""#, r#""a/..""#, r#""""#, base64]
    {
        let read: Result<FolderEntry, _> =
            serde_json::from_str(&format!(r#"{{"target":{target},"mode":493,"mtime_ns":0}}"#));
        let error = read.expect_err(target).to_string();
        assert!(error.contains("leads out of the outputs' folder"), "{target}: {error}");
        let line = format!(
            r#"{{"path":"/in/x","target":{target},"bytes":1,"mtime_ns":0,"mode":420,"inode":1}}"#
        );
        let read: Result<InputEntry, _> = serde_json::from_str(&line);
        assert!(read.expect_err(target).to_string().contains("leads out"), "{target}");
        assert!(serde_json::from_str::<InputEntry>(&line.replace(target, r#""a/..b""#)).is_ok());
    }
}

#[test]
fn folders_keep_their_last_component_and_every_name_reads_back() {
    let folder = tree();
    let (found, kept) = plainly(&[folder.path().join("doc"), folder.path().join("single")]);
    let counts = (found.files, found.bytes, found.skipped.of(Kind::SymbolicLink), found.largest);
    assert_eq!(counts, (4, 4, 1, 2));
    let wanted: [&[u8]; 4] =
        [b"doc/a.txt", b"doc/bad\xff", "doc/deep er/ü.txt".as_bytes(), b"single"];
    assert_eq!(kept.targets(), wanted);
    let inputs = write(&folder.path().join("list"), &kept.files);
    for (index, entry) in kept.files.iter().enumerate() {
        assert_eq!(inputs.get(u32::try_from(index).unwrap()).unwrap(), *entry);
    }
    assert!(inputs.get(4).is_err());
    let entries: Vec<_> = inputs.entries().map(Result::unwrap).collect();
    assert_eq!(entries, kept.files);
}

#[test]
fn every_index_of_a_long_list_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("many");
    fs::create_dir(&root).unwrap();
    for number in 0..100 {
        fs::write(root.join(format!("{number:03}")), vec![0; number]).unwrap();
    }
    let inputs = write(&folder.path().join("list"), &plainly(&[root]).1.files);
    for index in [0, 1, 15, 16, 17, 63, 64, 99] {
        assert_eq!(inputs.get(index).unwrap().bytes, u64::from(index));
    }
    assert!(inputs.get(100).is_err() && inputs.get(112).is_err());
}

#[test]
fn the_output_folder_is_left_out_of_its_own_input_by_whatever_path() {
    let folder = tree();
    symlink("doc", folder.path().join("by link")).unwrap();
    let out = folder.path().join("doc/deep er");
    for root in ["doc", "by link"] {
        let outputs = outputs(&out, Existing::Refuse);
        let (found, _) = found(&[folder.path().join(root)], &Selection::default(), Some(outputs));
        assert_eq!((found.files, found.skipped.of(Kind::OutFolder)), (2, 1), "{root}");
    }
    let error = check_roots(&[folder.path().join("by link")], Some(&folder.path().join("doc")));
    assert!(error.unwrap_err().to_string().contains("folder of the outputs"));
}

#[test]
fn part_files_of_a_bag_that_is_not_finished_are_no_inputs() {
    let folder = tree();
    let doc = folder.path().join("doc");
    let parts = doc.join("deep er").join(PART_DIR).join("other-abcdefgh");
    fs::create_dir_all(&parts).unwrap();
    fs::write(parts.join("0.0-x"), b"half").unwrap();
    let (found, _) = plainly(&[doc]);
    assert_eq!((found.files, found.skipped.of(Kind::PartFolder)), (3, 1));
}

#[test]
fn runs_are_no_inputs_and_what_only_looks_like_one_is() {
    let folder = tree();
    let doc = folder.path().join("doc");
    for run in ["runs/t/staged", "runs/new/objects", "elsewhere"] {
        fs::create_dir_all(doc.join(run)).unwrap();
        fs::write(doc.join(run).join("inputs.jsonl"), b"").unwrap();
    }
    let specification = r#"{"v":7,"bag":"t-abcdefgh","name":"t","codec":"gzip:6","results":"staged",
        "tasks":1,"data":{}}"#;
    fs::write(doc.join("runs/t/staged/bag.json"), specification).unwrap();
    // One that is being made at this moment.
    for part in ["results", "logs"] {
        fs::create_dir(doc.join("runs/new/objects").join(part)).unwrap();
    }
    fs::write(doc.join("runs/new/objects/.lock"), b"1\n").unwrap();
    // Somebody's own bag.json.
    fs::write(doc.join("elsewhere/bag.json"), r#"{"v":1,"bag":"of tricks"}"#).unwrap();
    let (found, kept) = plainly(std::slice::from_ref(&doc));
    assert_eq!((found.files, found.skipped.of(Kind::RunFolder)), (5, 2));
    assert!(kept.targets().contains(&&b"doc/elsewhere/bag.json"[..]));
    // A file that was named explicitly is wanted.
    assert_eq!(plainly(&[doc.join("runs/t/staged")]).0.files, 2);
}

#[test]
fn one_target_for_two_inputs_is_refused_with_both_names() {
    let folder = tree();
    let other = folder.path().join("deep");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("single"), b"other").unwrap();
    let paths = [folder.path().join("single"), other.join("single")];
    let error = check_roots(&paths, None).unwrap_err().to_string();
    assert!(paths.iter().all(|p| error.contains(p.to_str().unwrap())), "{error}");
}

#[test]
fn a_link_that_leads_nowhere_is_called_so() {
    let folder = tempfile::tempdir().unwrap();
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    symlink("loop", folder.path().join("loop")).unwrap();
    for (name, word) in [("dangling", "dangling symbolic link, to nowhere"), ("loop", "in a loop")]
    {
        let error = check_roots(&[folder.path().join(name)], None).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn names_that_outputs_cannot_have_are_refused_and_the_others_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir(&root).unwrap();
    fs::create_dir_all(&out).unwrap();
    for length in [252, 253, 255] {
        fs::write(root.join("x".repeat(length)), b"x").unwrap();
    }
    fs::write(out.join("in"), b"a file where a folder is needed").unwrap();
    let (all, kept) = found(&[root], &Selection::default(), Some(outputs(&out, Existing::Refuse)));
    assert_eq!((all.files, all.refused, all.bytes), (3, 3, 0));
    let reasons: Vec<_> = kept.files.iter().map(|e| e.refused.clone().unwrap()).collect();
    assert!(reasons.iter().all(|failed| failed.cause == Cause::OutputUnwritable));
    assert!(reasons[0].message.ends_with("Not a directory (os error 20)"), "{reasons:?}");
    assert!(reasons[1].message.ends_with("File name too long (os error 36)"), "{reasons:?}");
    fs::remove_file(out.join("in")).unwrap();
    let (all, _) = found(
        &[folder.path().join("in")],
        &Selection::default(),
        Some(outputs(&out, Existing::Refuse)),
    );
    assert_eq!((all.files, all.refused), (3, 2));
}

#[test]
fn only_folders_without_any_file_are_made_those_below_first() {
    let folder = tree();
    let doc = folder.path().join("doc");
    for path in ["empty", "nested/one/two", "with link", "excluded only", "deep er/hollow"] {
        fs::create_dir_all(doc.join(path)).unwrap();
    }
    symlink("a", doc.join("with link/link")).unwrap();
    fs::write(doc.join("excluded only/a.tmp"), b"").unwrap();
    fs::write(doc.join("a.tmp"), b"before everything else that is in it").unwrap();
    let selection = Selection { exclude: vec!["*.tmp".to_owned()], ..Selection::default() };
    let outputs = outputs(&folder.path().join("out"), Existing::Refuse);
    let (found, kept) = found(&[doc], &selection, Some(outputs));
    let made: Vec<_> = kept.folders.iter().map(|f| f.target.to_str().unwrap()).collect();
    let wanted = [
        "doc/deep er/hollow",
        "doc/empty",
        "doc/nested/one/two",
        "doc/nested/one",
        "doc/nested",
        "doc/with link",
    ];
    assert_eq!(made, wanted);
    assert_eq!((found.folders, found.skipped.of(Kind::Excluded)), (6, 2));
}

fn update(checksum: bool) -> Selection {
    Selection { existing: Existing::Update { checksum }, ..Selection::default() }
}

#[test]
fn an_output_is_up_to_date_by_time_and_size_or_by_content() {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(out.join("in")).unwrap();
    let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    for (name, compressed, dated) in [
        ("same", "same content", true),
        ("other time", "other time content", false),
        ("other size", "other", true),
        ("other bytes", "OTHER BYTES CONTENT", true),
    ] {
        let source = root.join(name);
        fs::write(&source, format!("{name} content")).unwrap();
        let output = out.join("in").join(format!("{name}.gz"));
        let mut encoder = GzEncoder::new(File::create(&output).unwrap(), Compression::fast());
        encoder.write_all(compressed.as_bytes()).unwrap();
        let file = encoder.finish().unwrap();
        let back = std::time::Duration::from_secs(if dated { 0 } else { 5 });
        file.set_modified(time(&source) - back).unwrap();
    }
    fs::write(root.join("new"), b"new").unwrap();
    let look = |selection: &Selection| {
        let outputs = outputs(&out, selection.existing);
        let (found, kept) = found(std::slice::from_ref(&root), selection, Some(outputs));
        assert!(kept.files.iter().all(|e| e.replaces.is_some() != (e.target.ends_with("new"))));
        let names = kept.files.iter().map(|e| e.target.file_name().unwrap().to_owned());
        (found.selected.to_string(), names.collect::<Vec<_>>())
    };
    let (said, names) = look(&update(false));
    assert_eq!(said, "1 new, 2 changed, 2 up to date");
    assert_eq!(names, ["new", "other size", "other time"]);
    let (said, names) = look(&update(true));
    assert_eq!(said, "1 new, 2 changed, 2 up to date");
    assert_eq!(names, ["new", "other bytes", "other size"]);
    let overwrite = Selection { existing: Existing::Overwrite, ..Selection::default() };
    assert_eq!(look(&overwrite).0, "1 new, 4 changed, 0 up to date");
}

#[test]
fn what_is_no_file_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir_all(&root).unwrap();
    for name in ["a", "b"] {
        fs::write(root.join(name), name).unwrap();
    }
    fs::create_dir_all(out.join("in/a.gz")).unwrap();
    symlink("somewhere", out.join("in/b.gz")).unwrap();
    for selection in [update(true), Selection { existing: Existing::Overwrite, ..update(false) }] {
        let outputs = outputs(&out, selection.existing);
        let (found, kept) = found(std::slice::from_ref(&root), &selection, Some(outputs));
        assert_eq!(found.refused, 2);
        let cause = |e: &InputEntry| e.refused.as_ref().unwrap().cause;
        assert!(kept.files.iter().all(|e| cause(e) == Cause::OutputExists));
    }
}

#[test]
fn outputs_beside_their_sources_are_no_inputs_of_the_next_run() {
    let folder = tree();
    let doc = folder.path().join("doc");
    fs::write(doc.join("a.txt.gz"), b"of an earlier run").unwrap();
    fs::write(doc.join("alone.gz"), b"somebody's").unwrap();
    let beside = outputs(folder.path(), Existing::Overwrite);
    let selection = Selection { existing: Existing::Overwrite, ..Selection::default() };
    let (found_beside, kept) = found(std::slice::from_ref(&doc), &selection, Some(beside));
    assert_eq!((found_beside.files, found_beside.skipped.of(Kind::Ours)), (4, 1));
    assert!(kept.targets().contains(&&b"doc/alone.gz"[..]));
    // Elsewhere they are files like any other.
    let elsewhere = outputs(&folder.path().join("out"), Existing::Overwrite);
    assert_eq!(found(&[doc], &selection, Some(elsewhere)).0.files, 5);
}

#[test]
fn a_list_keeps_relative_paths_and_takes_each_file_once() {
    let folder = tree();
    let at = |name: &str| folder.path().join("doc").join(name).into_os_string().into_vec();
    let lines = [
        at("a.txt"),
        at("./a.txt"),
        at("bad\u{fffd}"),
        [at(""), b"bad\xff".to_vec()].concat(),
        Vec::new(),
        at("deep er"),
        at("link"),
    ];
    let list = folder.path().join("list");
    for form in [ListForm::Lines, ListForm::Zeros] {
        let end: &[u8] = if form == ListForm::Zeros { b"\0" } else { b"\n" };
        fs::write(&list, lines.join(end)).unwrap();
        let from = FilesFrom { path: list.clone(), form, has_broker: false };
        let selection = Selection { files_from: Some(from), ..Selection::default() };
        let outputs = outputs(&folder.path().join("out"), Existing::Refuse);
        let (found, kept) = found(&[], &selection, Some(outputs));
        assert_eq!((found.files, found.refused, found.folders), (3, 1, 1));
        assert_eq!(kept.files[1].refused.as_ref().unwrap().cause, Cause::InputMissing);
        assert_eq!((found.skipped.of(Kind::Twice), found.skipped.of(Kind::SymbolicLink)), (1, 1));
        let below_root = folder.path().strip_prefix("/").unwrap().join("doc");
        assert_eq!(kept.files[0].target, below_root.join("a.txt"));
        assert!(kept.files[2].target.as_os_str().as_bytes().ends_with(b"bad\xff"));
        assert_eq!(kept.folders[0].target, below_root.join("deep er"));
    }
}

#[test]
fn a_line_that_leads_upwards_is_refused_by_its_number() {
    let folder = tree();
    let list = folder.path().join("list");
    fs::write(&list, "\na/../b\n").unwrap();
    let from = FilesFrom { path: list, form: ListForm::Lines, has_broker: false };
    let selection = Selection { files_from: Some(from), ..Selection::default() };
    let error = find(&[], (&selection, &codec()), None, None, &mut Kept::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 2 of the list") && error.contains("a/../b"), "{error}");
}
