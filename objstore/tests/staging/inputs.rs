//! An input that travels over the wire arrives as the file is, or its task fails with a cause.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use bagpress_broker::result::{Cause, Failed};
use bagpress_objstore::Fetched;
use tokio::sync::mpsc;

use crate::execute::Execute;
use crate::house::{House, Outcome, sample};
use crate::{CHUNK, leave};

/// What the worker gets of an input, until it ends or fails.
async fn fetched(execute: &Execute, bytes: usize) -> Outcome<Result<Vec<u8>, Failed>> {
    let (sender, mut chunks) = mpsc::channel(1);
    let (stager, id) = (execute.stager.clone(), execute.id.clone());
    let fetching = tokio::spawn(async move { stager.fetch_input(&id, bytes as u64, sender).await });
    let (mut whole, mut ended) = (Vec::new(), false);
    while let Some(chunk) = chunks.recv().await {
        match chunk {
            Ok(Fetched::Bytes(chunk)) => whole.extend_from_slice(&chunk),
            Ok(Fetched::End) => ended = true,
            Err(failed) => return Ok(Err(failed)),
        }
    }
    fetching.await?;
    assert!(ended, "the end is not said");
    Ok(Ok(whole))
}

#[tokio::test]
async fn an_input_arrives_as_it_is() -> Outcome {
    let house = House::open(false).await?;
    for (index, size) in (0..).zip([0, 1, CHUNK, CHUNK + 1, 9 * CHUNK + 5]) {
        let input = sample(size);
        let path = house.folder().join(format!("in put {index}"));
        fs::write(&path, &input)?;
        house.ledger.take_input(index, &path)?;

        let whole = fetched(&Execute::new(&house, index), size).await?;

        assert!(whole.is_ok_and(|whole| whole == input), "{size}");
    }
    Ok(())
}

#[tokio::test]
async fn an_input_without_a_size_arrives_with_its_content() -> Outcome {
    let house = House::open(false).await?;
    let path = std::path::Path::new("/proc/version");
    house.ledger.take_input(0, path)?;
    let whole = fetched(&Execute::new(&house, 0), 0).await?;
    assert_eq!(whole.map_err(|failed| failed.message)?, fs::read(path)?);
    Ok(())
}

#[tokio::test]
async fn an_input_that_is_gone_or_another_is_named_by_its_cause() -> Outcome {
    let house = House::open(false).await?;
    let size = 3 * CHUNK;
    let input = |index: u32| -> Outcome<std::path::PathBuf> {
        let path = house.folder().join(format!("input_{index}"));
        fs::write(&path, sample(size))?;
        house.ledger.take_input(index, &path)?;
        Ok(path)
    };
    let later = SystemTime::now() + Duration::from_mins(1);
    fs::remove_file(input(0)?)?;
    File::options().append(true).open(input(1)?)?.set_modified(later)?;
    File::options().write(true).open(input(2)?)?.set_len(CHUNK as u64)?;
    // The same name, size and time; another file.
    let replaced = input(3)?;
    let modified = replaced.metadata()?.modified()?;
    let copy = house.folder().join("copy");
    fs::write(&copy, sample(size))?;
    File::options().append(true).open(&copy)?.set_modified(modified)?;
    fs::rename(&copy, &replaced)?;

    let causes = [
        (0, Cause::InputMissing),
        (1, Cause::InputChanged),
        (2, Cause::InputChanged),
        (3, Cause::InputChanged),
        (4, Cause::InputUnreadable),
    ];
    for (index, cause) in causes {
        let failed = fetched(&Execute::new(&house, index), size).await?.unwrap_err();
        assert_eq!(failed.cause, cause, "{index}: {}", failed.message);
    }
    Ok(())
}

#[tokio::test]
async fn an_input_that_changes_while_it_is_read_fails_its_task() -> Outcome {
    let house = House::open(false).await?;
    let size = 40 * CHUNK;
    let path = house.folder().join("input");
    fs::write(&path, sample(size))?;
    house.ledger.take_input(0, &path)?;
    let execute = Execute::new(&house, 0);
    let (sender, mut chunks) = mpsc::channel(1);
    let (stager, id) = (execute.stager.clone(), execute.id.clone());
    tokio::spawn(async move { stager.fetch_input(&id, size as u64, sender).await });
    assert!(chunks.recv().await.is_some_and(|first| first.is_ok()));

    let later = SystemTime::now() + Duration::from_mins(1);
    File::options().append(true).open(&path)?.set_modified(later)?;

    let mut last = Ok(Fetched::End);
    while let Some(next) = chunks.recv().await {
        last = next;
    }
    assert_eq!(last.unwrap_err().cause, Cause::InputChanged);
    Ok(())
}

#[tokio::test]
async fn an_input_is_not_fetched_from_nobody() -> Outcome {
    let mut house = House::open(false).await?;
    leave(&mut house).await;
    let failed = fetched(&Execute::new(&house, 0), CHUNK).await?.unwrap_err();
    assert_eq!(failed.cause, Cause::GathererAbsent);
    Ok(())
}
