//! What a hostile gatherer, or a user who may write into a folder, gets of a worker that hands files over by path: nothing.

#[expect(dead_code, reason = "another test uses the rest")]
#[path = "house/execute.rs"]
mod execute;
#[expect(dead_code, reason = "another test uses the rest")]
mod house;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bagpress_broker::limits;
use bagpress_broker::result::Cause;
use bagpress_broker::subjects;
use bagpress_broker::testing::eventually;
use bagpress_codec::Digest;
use bagpress_objstore::Stored;
use bagpress_objstore::staging::messages::{Go, Opened, Share, SharedInput};
use bagpress_objstore::staging::{Grant, InputFile, OpenInput, mtime_ns};
use futures::StreamExt;

use self::execute::Execute;
use self::house::{House, Outcome, sample};

const CHUNK: usize = limits::CHUNK_BYTES;
/// Waiting for a FIFO never ends.
const SOON: Duration = Duration::from_secs(10);

/// A worker that may read and write below `allowed`, and a gatherer that is played.
struct Played {
    house: House,
    place: tempfile::TempDir,
}

impl Played {
    async fn new() -> Outcome<Self> {
        let mut house = House::open(true).await?;
        house.receiver = None;
        let place = tempfile::tempdir()?;
        for folder in ["allowed/parts", "elsewhere/parts"] {
            fs::create_dir_all(place.path().join(folder))?;
            fs::set_permissions(place.path().join(folder), fs::Permissions::from_mode(0o700))?;
            fs::write(place.path().join(folder).join("nonce"), "the nonce")?;
        }
        fs::write(place.path().join("elsewhere/secret"), b"secret")?;
        Ok(Self { house, place })
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.place.path().join(relative)
    }

    /// An honest share, in which a test changes something.
    fn share(&self) -> Share {
        Share {
            nonce_file: self.path("allowed/parts/nonce"),
            nonce: "the nonce".to_owned(),
            part: self.path("allowed/parts/any name"),
            same_kernel: true,
            input: None,
            inputs: Vec::new(),
        }
    }

    /// What a worker makes of a share.
    async fn granted(&self, share: Share) -> Outcome<Grant> {
        let client = self.house.gatherer.client_handle();
        let mut opens = client.subscribe(subjects::open(&self.house.bag)).await?;
        self.house.gatherer.flush().await?;
        let execute = Execute::below(&self.house, 0, &[&self.path("allowed")]);
        let answering = async {
            let open = opens.next().await.ok_or("no OPEN")?;
            let go =
                Opened::Go(Go { window: 1, offset: 0, share: Some(share), decided: Vec::new() });
            client.publish(open.reply.ok_or("no reply")?, serde_json::to_vec(&go)?.into()).await?;
            Outcome::Ok(())
        };
        let (granted, answered) =
            tokio::time::timeout(SOON, async { tokio::join!(execute.granted(), answering) })
                .await?;
        answered?;
        granted
    }
}

#[tokio::test]
async fn a_worker_uses_no_folder_but_one_that_is_allowed_closed_and_proved() -> Outcome {
    let played = Played::new().await?;
    assert!(played.granted(played.share()).await?.share.is_some());

    // A link in the allowed folder leads out of it.
    symlink(played.path("elsewhere/parts"), played.path("allowed/link"))?;
    let below = |folder: &str| Share {
        nonce_file: played.path(folder).join("nonce"),
        part: played.path(folder).join("part"),
        ..played.share()
    };
    for folder in ["allowed/link", "elsewhere/parts", "allowed/../elsewhere/parts"] {
        assert!(played.granted(below(folder)).await?.share.is_none(), "{folder}");
    }
    // The nonce proves one folder, and the part lies in another.
    let part = played.path("allowed/part");
    assert!(played.granted(Share { part, ..played.share() }).await?.share.is_none());
    // Others may write into it, and so rename what is in it.
    let parts = played.path("allowed/parts");
    for mode in [0o777, 0o730] {
        fs::set_permissions(&parts, fs::Permissions::from_mode(mode))?;
        let share = Share { nonce: "another".to_owned(), ..played.share() };
        fs::write(parts.join("nonce"), "another")?;
        assert!(played.granted(share).await?.share.is_none(), "{mode:o}");
    }
    Ok(())
}

#[tokio::test]
async fn a_nonce_that_never_ends_or_never_comes_holds_no_worker() -> Outcome {
    let played = Played::new().await?;
    let nonce = played.path("allowed/parts/nonce");
    fs::remove_file(&nonce)?;
    rustix::fs::mkfifoat(rustix::fs::CWD, &nonce, rustix::fs::Mode::RWXU)?;
    assert!(played.granted(played.share()).await?.share.is_none(), "a FIFO");
    for target in ["/dev/zero", "elsewhere/parts/nonce"] {
        fs::remove_file(&nonce)?;
        symlink(played.path(target), &nonce)?;
        assert!(played.granted(played.share()).await?.share.is_none(), "a link to {target}");
    }
    fs::remove_file(&nonce)?;
    for (bytes, used) in [(limits::NONCE_BYTES_MAX, true), (limits::NONCE_BYTES_MAX + 1, false)] {
        let long = "n".repeat(bytes);
        fs::write(&nonce, &long)?;
        let share = Share { nonce: long, ..played.share() };
        assert_eq!(played.granted(share).await?.share.is_some(), used, "{bytes}");
    }
    Ok(())
}

#[tokio::test]
async fn a_part_file_is_new_closed_and_of_the_workers_own_name() -> Outcome {
    let played = Played::new().await?;
    let dotfile = played.path("allowed/parts/.profile");
    fs::write(&dotfile, b"the victim's")?;
    let grant = played.granted(Share { part: dotfile.clone(), ..played.share() }).await?;
    let share = grant.share.ok_or("no share")?;
    assert_ne!(share.part, dotfile);
    let made = share.create_part()?.metadata()?;
    assert_eq!(made.mode() & 0o7777, 0o600);
    // What has that name, and be it a link, is never written to.
    fs::remove_file(&share.part)?;
    symlink(&dotfile, &share.part)?;
    assert!(share.create_part().is_err());
    assert_eq!(fs::read(&dotfile)?, b"the victim's");
    Ok(())
}

#[tokio::test]
async fn a_link_in_the_place_of_a_part_file_changes_nothing_elsewhere() -> Outcome {
    let house = House::open(true).await?;
    let victim = house.folder().join("victim");
    fs::write(&victim, b"the victim's")?;
    for (index, size) in [(0, 10), (1, CHUNK * 2 + 1)] {
        let (execute, output) = (Execute::new(&house, index), sample(size));
        symlink(&victim, execute.part(&house))?;
        // A new file in its place, or a refusal: it is tried again as another execution.
        let stored = execute.store(&output).await;
        if let Ok(stored) = stored {
            assert!(matches!(stored, Stored::Staged), "{stored:?}");
            execute.place(&house, &output)?;
            assert!(house.placed(index) == Some(output));
        }
        assert_eq!(fs::read(&victim)?, b"the victim's", "{size}");
        eventually("what was planted is removed", SOON, async || {
            execute.part(&house).symlink_metadata().is_err().then_some(())
        })
        .await;
    }
    Ok(())
}

#[tokio::test]
async fn an_input_is_read_below_the_allowed_folders_only_and_behind_no_link() -> Outcome {
    let played = Played::new().await?;
    symlink(played.path("elsewhere"), played.path("allowed/link"))?;
    let shared =
        |path: PathBuf| SharedInput { path, bytes: 6, mtime_ns: 0, inode: 0, section: None };
    for path in ["elsewhere/secret", "allowed/../elsewhere/secret"] {
        let input = Some(shared(played.path(path)));
        assert!(played.granted(Share { input, ..played.share() }).await?.share.is_none(), "{path}");
    }
    // What lies below by its text, and does not: its file is never opened.
    let path = played.path("allowed/link/secret");
    let found = fs::metadata(&path)?;
    let input = InputFile {
        path,
        bytes: found.len(),
        mtime_ns: mtime_ns(&found),
        inode: found.ino(),
        section: None,
    };
    let failed = OpenInput::open(input).expect_err("behind a link");
    assert_eq!(failed.cause, Cause::InputUnreadable);
    assert!(failed.message.contains("symbolic link"), "{}", failed.message);
    Ok(())
}

#[tokio::test]
async fn no_part_file_is_open_to_others_whatever_way_it_comes() -> Outcome {
    let house = House::open(true).await?;
    let mode = |path: &Path| fs::metadata(path).map(|found| found.mode() & 0o7777);
    let folder = house.parts.nonce().0;
    let folder = folder.parent().ok_or("no folder")?;
    assert_eq!(mode(folder)?, 0o700);
    assert_eq!(mode(&house.parts.nonce().0)?, 0o600);
    for (index, size) in [(0, 10), (1, CHUNK * 3)] {
        let (execute, output) = (Execute::new(&house, index), sample(size));
        let upload = execute.upload(&output).await?;
        if size > CHUNK {
            assert_eq!(mode(&execute.part(&house))?, 0o600, "while it comes");
        }
        upload.close(size as u64, &Digest::of(&output)).await?;
        assert_eq!(mode(&execute.part(&house))?, 0o600);
    }
    Ok(())
}
