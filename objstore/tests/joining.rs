//! Blocks become one file whatever crashes meanwhile, and none goes before what it was joined into is durable.

use std::fs;
use std::path::PathBuf;

use bagpress_broker::ids::Execution;
use bagpress_codec::{Codec, Digest, SEGMENT_BYTES, decompress_all};
use bagpress_objstore::staging::{BlockOutput, Join, Joining, Parts, forget_join};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const FILE: u32 = 3;
const BLOCK: usize = SEGMENT_BYTES;

struct Cut {
    parts: Parts,
    codec: Codec,
    input: Vec<u8>,
    blocks: Vec<BlockOutput>,
    _root: tempfile::TempDir,
}

impl Cut {
    /// A file of so many blocks, the last of which is not full; each rests as a part file.
    fn new(codec: &str, blocks: usize) -> Outcome<Self> {
        let root = tempfile::tempdir()?;
        let parts = Parts::open(&root.path().join("out"), &"b-1".parse()?)?;
        let text = (0..).flat_map(|number: u32| format!("line {number} of it\n").into_bytes());
        let input: Vec<u8> = text.take(BLOCK * blocks - 100).collect();
        let mut cut = Self { parts, codec: codec.parse()?, input, blocks: Vec::new(), _root: root };
        for at in 0..blocks {
            let block = cut.make(at)?;
            cut.blocks.push(block);
        }
        Ok(cut)
    }

    /// Executes a block.
    fn make(&self, at: usize) -> Outcome<BlockOutput> {
        let input = self.input.chunks(BLOCK).nth(at).ok_or("no such block")?;
        let (mut encoder, mut output) = (self.codec.encoder(), Vec::new());
        encoder.announce(input.len() as u64);
        encoder.write(input, &mut output)?;
        encoder.finish(&mut output)?;
        let (execution, key) = (Execution::random(), (u32::try_from(10 + at)?, 0));
        fs::write(self.parts.part(key.0, key.1, &execution), &output)?;
        let (bytes, digest) = (output.len() as u64, Digest::of(&output));
        let (input_bytes, input_digest) = (input.len() as u64, Digest::of(input));
        Ok(BlockOutput { key, execution, bytes, digest, input_bytes, input_digest })
    }

    fn open(&self) -> Outcome<Joining> {
        match Joining::open(&self.parts, FILE, &self.codec, || false)? {
            Join::Open(joining) => Ok(*joining),
            other => Err(format!("{other:?}").into()),
        }
    }

    fn part(&self, at: usize) -> PathBuf {
        let BlockOutput { key, execution, .. } = &self.blocks[at];
        self.parts.part(key.0, key.1, execution)
    }

    /// Which blocks' own part files are there.
    fn resting(&self) -> Vec<usize> {
        (0..self.blocks.len()).filter(|at| self.part(*at).exists()).collect()
    }

    /// Joins the rest, and checks that it is the whole file.
    fn finish(&self, mut joining: Joining) -> Outcome {
        for at in usize::try_from(joining.blocks())?..self.blocks.len() {
            assert!(joining.add(&self.parts, &self.blocks[at])?, "block {at}");
        }
        let whole = joining.finish(&self.parts)?;
        let joined = fs::read(self.parts.part(FILE, 0, &whole.execution))?;
        assert_eq!((joined.len() as u64, Digest::of(&joined)), (whole.bytes, whole.digest));
        assert_eq!(decompress_all(&self.codec, &joined)?, self.input);
        let input = (self.input.len() as u64, Digest::of(&self.input));
        assert_eq!((whole.input_bytes, whole.input_digest), input);
        // Whoever dies now finds it so, also when it has the output's name already.
        fs::remove_file(self.parts.part(FILE, 0, &whole.execution))?;
        let again = Joining::open(&self.parts, FILE, &self.codec, || false)?;
        assert!(matches!(again, Join::Whole(found) if found == whole));
        Ok(())
    }
}

#[test]
fn blocks_become_one_file_with_the_digests_of_the_whole() -> Outcome {
    for codec in ["gzip:6", "zlib:1", "gzip:9,full", "zstd:3", "zstd:19,long", "store"] {
        for blocks in [1, 2, 5] {
            let cut = Cut::new(codec, blocks)?;
            cut.finish(cut.open()?)?;
        }
    }
    Ok(())
}

#[test]
fn a_block_goes_only_when_what_it_was_joined_into_is_settled() -> Outcome {
    let cut = Cut::new("gzip:6", 4)?;
    let mut joining = cut.open()?;
    for at in [0, 1] {
        assert!(joining.add(&cut.parts, &cut.blocks[at])?);
    }
    assert!(joining.unsettled_bytes() > 0);
    assert_eq!(cut.resting(), [0, 1, 2, 3]);
    joining.settle(&cut.parts)?;
    assert_eq!((joining.unsettled_bytes(), cut.resting()), (0, vec![2, 3]));
    cut.finish(joining)?;
    assert_eq!(cut.resting(), [2, 3], "until the file's outcome is counted");
    Ok(())
}

#[test]
fn a_join_goes_on_behind_what_was_settled_wherever_it_died() -> Outcome {
    let codecs = ["gzip:6", "zstd:3"].into_iter();
    for (codec, settled) in codecs.flat_map(|codec| (0..=4).map(move |settled| (codec, settled))) {
        for joined in settled..=4 {
            let cut = Cut::new(codec, 4)?;
            let mut joining = cut.open()?;
            for at in 0..joined {
                if at == settled && settled > 0 {
                    joining.settle(&cut.parts)?;
                }
                assert!(joining.add(&cut.parts, &cut.blocks[at])?);
            }
            if joined == settled && settled > 0 {
                joining.settle(&cut.parts)?;
            }
            // As if it were killed: what it had written behind may be there in part.
            drop(joining);
            let again = cut.open()?;
            assert_eq!(again.blocks(), settled as u64, "{joined}");
            cut.finish(again)?;
        }
    }
    Ok(())
}

/// A gatherer that is told to end while it reads what is joined reads no further, and the next one goes on.
#[test]
fn a_join_that_is_stopped_while_it_is_read_again_is_left_as_it_was() -> Outcome {
    for pieces in [0, 1, 2] {
        let cut = Cut::new("store", 4)?;
        let mut joining = cut.open()?;
        for at in [0, 1] {
            assert!(joining.add(&cut.parts, &cut.blocks[at])?);
        }
        joining.settle(&cut.parts)?;
        drop(joining);
        let before = (fs::read(part_of_file(&cut)?)?, fs::read(note_of_file(&cut))?);

        let mut asked = 0;
        let stopped = || {
            asked += 1;
            asked > pieces
        };
        let stopped = Joining::open(&cut.parts, FILE, &cut.codec, stopped)?;
        assert!(matches!(stopped, Join::Stopped), "{stopped:?}");
        assert_eq!(asked, pieces + 1, "it is asked before each piece, and never again");
        assert!(before == (fs::read(part_of_file(&cut)?)?, fs::read(note_of_file(&cut))?));
        let again = cut.open()?;
        assert_eq!(again.blocks(), 2);
        cut.finish(again)?;
    }
    Ok(())
}

#[test]
fn a_block_whose_bytes_are_gone_or_others_is_not_joined_and_another_execution_of_it_is() -> Outcome
{
    for bytes in [None, Some(&b"other bytes"[..])] {
        let mut cut = Cut::new("zlib:6", 3)?;
        let mut joining = cut.open()?;
        assert!(joining.add(&cut.parts, &cut.blocks[0])?);
        match bytes {
            None => fs::remove_file(cut.part(1))?,
            Some(bytes) => fs::write(cut.part(1), bytes)?,
        }
        assert!(!joining.add(&cut.parts, &cut.blocks[1])?);
        assert_eq!(joining.blocks(), 1);
        cut.blocks[1] = cut.make(1)?;
        cut.finish(joining)?;
    }
    Ok(())
}

/// A worker with another encoder, or one that lies: its bytes have the digest that it says.
#[test]
fn a_block_that_cannot_be_joined_joins_nothing() -> Outcome {
    let mut cut = Cut::new("gzip:6", 3)?;
    let mut joining = cut.open()?;
    assert!(joining.add(&cut.parts, &cut.blocks[0])?);
    let mut lie = cut.make(1)?;
    let part = cut.parts.part(lie.key.0, lie.key.1, &lie.execution);
    let mut bytes = fs::read(&part)?;
    bytes[0] ^= 1;
    fs::write(&part, &bytes)?;
    lie.digest = Digest::of(&bytes);
    let error = joining.add(&cut.parts, &lie).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    joining.settle(&cut.parts)?;
    drop(joining);
    cut.blocks[1] = cut.make(1)?;
    let again = cut.open()?;
    assert_eq!(again.blocks(), 1);
    cut.finish(again)
}

#[test]
fn a_join_whose_file_or_note_is_damaged_begins_anew() -> Outcome {
    type Damage = fn(&Cut) -> Outcome;
    let damages: [Damage; 4] = [
        |cut| Ok(fs::remove_file(part_of_file(cut)?)?),
        |cut| Ok(fs::OpenOptions::new().write(true).open(part_of_file(cut)?)?.set_len(20)?),
        |cut| {
            let part = part_of_file(cut)?;
            let mut bytes = fs::read(&part)?;
            let middle = bytes.len() / 2;
            bytes[middle..middle + 64].fill(0xff);
            Ok(fs::write(part, bytes)?)
        },
        |cut| Ok(fs::write(note_of_file(cut), "not a note")?),
    ];
    // Store has no checksum of its own.
    let each = |codec| damages.map(|damage| (codec, damage));
    for (codec, damage) in ["gzip:6", "store"].into_iter().flat_map(each) {
        let mut cut = Cut::new(codec, 3)?;
        let mut joining = cut.open()?;
        for at in [0, 1] {
            assert!(joining.add(&cut.parts, &cut.blocks[at])?);
        }
        joining.settle(&cut.parts)?;
        drop(joining);
        damage(&cut)?;
        let mut again = cut.open()?;
        assert_eq!(again.blocks(), 0);
        assert!(!again.add(&cut.parts, &cut.blocks[0])?, "it is gone, and is run again");
        for at in [0, 1] {
            cut.blocks[at] = cut.make(at)?;
        }
        cut.finish(again)?;
    }
    Ok(())
}

#[test]
fn two_processes_do_not_join_one_file() -> Outcome {
    let cut = Cut::new("gzip:6", 2)?;
    let joining = cut.open()?;
    let error = Joining::open(&cut.parts, FILE, &cut.codec, || false).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
    drop(joining);
    cut.finish(cut.open()?)
}

/// Of a format without a checksum: nothing else would find it.
#[test]
fn a_stored_block_that_is_not_its_input_joins_nothing() -> Outcome {
    let mut cut = Cut::new("store", 2)?;
    let mut joining = cut.open()?;
    cut.blocks[0].input_digest = Digest::of(b"another input");
    let error = joining.add(&cut.parts, &cut.blocks[0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(joining.blocks(), 0);
    Ok(())
}

#[test]
fn a_file_that_has_its_outcome_leaves_no_note() -> Outcome {
    let cut = Cut::new("gzip:6", 2)?;
    let mut joining = cut.open()?;
    assert!(joining.add(&cut.parts, &cut.blocks[0])?);
    joining.settle(&cut.parts)?;
    assert!(note_of_file(&cut).exists());
    forget_join(&cut.parts, FILE)?;
    assert!(!note_of_file(&cut).exists());
    forget_join(&cut.parts, FILE)?;
    Ok(())
}

fn part_of_file(cut: &Cut) -> Outcome<PathBuf> {
    let found = cut.parts.listed().into_iter().find(|(_, (index, _))| *index == FILE);
    Ok(found.ok_or("no part file")?.0)
}

fn note_of_file(cut: &Cut) -> PathBuf {
    cut.part(0).with_file_name(format!("joined.{FILE}"))
}
