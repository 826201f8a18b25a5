//! An output that was uploaded is a durable part file, and nothing under its final name before the
//! gatherer says so.

#[path = "../house/execute.rs"]
mod execute;
#[path = "../house/mod.rs"]
mod house;
mod inputs;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::client::RequestErrorKind;
use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::machine::boot_id;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::testing::eventually;
use bagpress_broker::{limits, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::staging::messages::{Chunked, OFFSET};
use bagpress_objstore::staging::{Permission, Upload};
use bagpress_objstore::{StoreError, Stored};
use bytes::Bytes;
use tokio::sync::mpsc;

use self::execute::Execute;
use self::house::{House, Outcome, sample};

const CHUNK: usize = limits::CHUNK_BYTES;
const SOON: Duration = Duration::from_secs(10);
const AT_ONCE: Duration = Duration::from_millis(500);

/// Gathers no more. The server learns that a moment later, and until then hands requests to nobody.
async fn leave(house: &mut House) {
    house.receiver = None;
    let client = house.gatherer.client_handle();
    eventually("nobody gathers", SOON, async || {
        let asked = client.request(subjects::open(&house.bag), Bytes::new());
        let answer = tokio::time::timeout(AT_ONCE, asked).await.ok()?;
        let nobody = answer.is_err_and(|e| e.kind() == RequestErrorKind::NoResponders);
        nobody.then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_output_of_any_size_becomes_a_part_file_and_gets_its_name_when_placed() -> Outcome {
    let house = House::open(false).await?;
    let sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 << 20, 10 * CHUNK + 7];
    for (index, size) in (0..).zip(sizes) {
        let (execute, output) = (Execute::new(&house, index), sample(size));

        let stored = execute.store(&output).await?;

        assert!(matches!(stored, Stored::Staged), "{size}: {stored:?}");
        assert!(fs::read(execute.part(&house))? == output, "{size}");
        assert_eq!(house.placed(index), None, "{size}");
        execute.place(&house, &output)?;
        assert!(house.placed(index) == Some(output), "{size}");
        assert!(!execute.part(&house).exists(), "{size}");
    }
    Ok(())
}

#[tokio::test]
async fn an_output_handed_over_by_path_is_written_where_it_will_live() -> Outcome {
    let house = House::open(true).await?;
    let (execute, output) = (Execute::below(&house, 0, &[house.folder()]), sample(3 << 20));

    let grant = execute.granted().await?;

    let share = grant.share.as_ref().expect("a share");
    assert_eq!(share.part, execute.part(&house));
    assert_eq!(share.same_kernel, !boot_id().is_empty());
    std::io::Write::write_all(&mut share.create_part()?, &output)?;
    let upload = Upload::by_path(&execute.stager, &grant);
    let stored = upload.close(output.len() as u64, &Digest::of(&output)).await?;
    assert!(matches!(stored, Stored::Staged), "{stored:?}");
    assert_eq!(house.placed(0), None);
    execute.place(&house, &output)?;
    assert!(house.placed(0) == Some(output));
    Ok(())
}

#[tokio::test]
async fn a_folder_that_is_not_allowed_is_not_used() -> Outcome {
    let house = House::open(true).await?;
    let elsewhere = tempfile::tempdir()?;
    for allowed in [&[][..], &[elsewhere.path()][..]] {
        let grant = Execute::below(&house, 0, allowed).granted().await?;
        assert!(grant.share.is_none(), "{allowed:?}");
    }
    let execute = Execute::below(&house, 0, &[elsewhere.path()]);
    assert!(matches!(execute.store(&sample(CHUNK * 2)).await?, Stored::Staged));
    Ok(())
}

#[tokio::test]
async fn another_folder_of_the_same_path_is_not_used() -> Outcome {
    let house = House::open(true).await?;
    // As a container sees it, whose folder of this name is not the gatherer's.
    fs::write(house.parts.nonce().0, "another nonce")?;
    let grant = Execute::below(&house, 0, &[house.folder()]).granted().await?;
    assert!(grant.share.is_none());
    Ok(())
}

#[tokio::test]
async fn who_wants_the_wire_gets_no_share() -> Outcome {
    let house = House::open(false).await?;
    let grant = Execute::below(&house, 0, &[house.folder()]).granted().await?;
    assert!(grant.share.is_none());
    Ok(())
}

#[tokio::test]
async fn what_arrived_changed_is_refused_and_its_bytes_are_never_placed() -> Outcome {
    let house = House::open(true).await?;
    for (index, size) in [(0, 10), (1, CHUNK * 3)] {
        let (execute, made) = (Execute::new(&house, index), sample(size));
        let upload = execute.upload(&made).await?;

        let refused = upload.close(size as u64, &Digest::of(b"other bytes")).await.unwrap_err();

        assert!(matches!(refused, StoreError::Digest(_)), "{refused}");
        assert_eq!(Failed::from(refused).cause, Cause::OutputDigest);
        assert_eq!(house.placed(index), None);
    }
    // By path: somebody else wrote into the part file.
    let execute = Execute::below(&house, 2, &[house.folder()]);
    let grant = execute.granted().await?;
    fs::write(execute.part(&house), b"half of")?;
    let upload = Upload::by_path(&execute.stager, &grant);
    let refused = upload.close(14, &Digest::of(b"half of it all")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Digest(_)), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_task_with_an_outcome_is_not_executed_again() -> Outcome {
    let house = House::open(false).await?;
    let (first, second) = (Execute::new(&house, 4), Execute::new(&house, 4));
    let result = first.result(b"output");
    house.ledger.decide(&result);

    let permission = second.open().await?;

    let Permission::HaveIt(line) = permission else {
        return Err(format!("executed again: {permission:?}").into());
    };
    assert_eq!(*line, result);
    // Another round is another task.
    let anew = TaskId { round: 1, ..second.id.clone() };
    let permission = second.stager.open(&anew, &second.execution, false).await?;
    assert!(matches!(permission, Permission::Go(_)), "{permission:?}");
    Ok(())
}

#[tokio::test]
async fn an_upload_closed_after_the_decision_leaves_nothing() -> Outcome {
    let house = House::open(true).await?;
    let output = sample(CHUNK * 3);
    for (index, size) in [(0, 10), (1, CHUNK * 3)] {
        let (loser, output) = (Execute::new(&house, index), &output[..size]);
        let upload = loser.upload(output).await?;
        let winner = Execute::new(&house, index).result(output);
        house.ledger.decide(&winner);

        let stored = upload.close(size as u64, &Digest::of(output)).await?;

        let Stored::Decided(line) = stored else { return Err("not decided".into()) };
        assert_eq!(*line, winner);
    }
    let loser = Execute::below(&house, 2, &[house.folder()]);
    let grant = loser.granted().await?;
    fs::write(loser.part(&house), &output)?;
    house.ledger.decide(&Execute::new(&house, 2).result(&output));
    let upload = Upload::by_path(&loser.stager, &grant);
    let stored = upload.close(output.len() as u64, &Digest::of(&output)).await?;
    assert!(matches!(stored, Stored::Decided(_)), "{stored:?}");

    assert!(house.parts.listed().is_empty(), "{:?}", house.parts.listed());
    Ok(())
}

#[tokio::test]
async fn an_upload_in_which_the_decision_falls_ends_with_it_and_leaves_nothing() -> Outcome {
    let house = House::open(false).await?;
    let (loser, output) = (Execute::new(&house, 0), sample(CHUNK * 6));
    let grant = loser.granted().await?;
    let (sender, chunks) = mpsc::channel(1);
    let (stager, part) = (loser.stager.clone(), loser.part(&house));
    let uploading = tokio::spawn(async move { stager.upload(&grant, chunks).await });
    let mut pieces = output.chunks(CHUNK).map(Bytes::copy_from_slice);
    for piece in pieces.by_ref().take(3) {
        sender.send(piece).await?;
    }
    eventually("chunks arrived", SOON, async || part.metadata().ok().filter(|m| m.len() > 0)).await;
    let winner = Execute::new(&house, 0).result(&output);
    house.ledger.decide(&winner);

    // The execution that makes the output may finish it: it is told afterwards.
    for piece in pieces {
        sender.send(piece).await?;
    }
    drop(sender);
    let stored = uploading.await??.close(output.len() as u64, &Digest::of(&output)).await?;

    let Stored::Decided(line) = stored else { return Err("not decided".into()) };
    assert_eq!(*line, winner);
    assert!(house.parts.listed().is_empty(), "{:?}", house.parts.listed());
    Ok(())
}

#[tokio::test]
async fn an_absent_gatherer_is_noticed_at_once_and_remembered() -> Outcome {
    let mut house = House::open(false).await?;
    let execute = Execute::new(&house, 0);
    let upload = execute.upload(&sample(CHUNK * 2)).await?;
    leave(&mut house).await;

    let absent = upload.close(1, &Digest::of(b"")).await.unwrap_err();
    assert!(matches!(absent, StoreError::Absent), "{absent}");
    assert!(Failed::from(absent).cause.is_planned());

    // It is back, and this worker has not noticed yet; another one has.
    house.gather().await?;
    assert!(matches!(execute.open().await?, Permission::Absent));
    assert!(matches!(Execute::new(&house, 0).open().await?, Permission::Go(_)));
    let forgotten = limits::GATHERER_ABSENT_FOR + SOON;
    eventually("the worker asks again", forgotten, async || {
        matches!(execute.open().await.ok()?, Permission::Go(_)).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn who_hears_that_a_bag_is_gathered_asks_again_at_once() -> Outcome {
    let mut house = House::open(false).await?;
    let execute = Execute::new(&house, 0);
    leave(&mut house).await;
    assert!(matches!(execute.open().await?, Permission::Absent));
    let mut gatherings = house.worker.gatherings().await?;
    house.worker.flush().await?;
    house.gather().await?;
    assert!(matches!(execute.open().await?, Permission::Absent), "it remembers");

    house.gatherer.announce_gatherer(&house.bag).await?;
    let heard = tokio::time::timeout(SOON, gatherings.next()).await?.ok_or("closed")?;
    assert_eq!(heard, house.bag);
    execute.stager.gathers(&heard);
    assert!(matches!(execute.open().await?, Permission::Go(_)));
    Ok(())
}

#[tokio::test]
async fn an_unknown_task_is_refused_for_good() -> Outcome {
    let house = House::open(false).await?;
    let permission = Execute::new(&house, 100).open().await?;
    let Permission::Refused(failed) = permission else { return Err("granted".into()) };
    assert!(!failed.cause.is_transient(), "{failed:?}");
    Ok(())
}

#[tokio::test]
async fn a_gatherer_that_comes_back_in_mid_upload_goes_on_where_it_was() -> Outcome {
    let mut house = House::open(false).await?;
    let (execute, output) = (Execute::new(&house, 0), sample(CHUNK * 4 + 1));
    let grant = execute.granted().await?;
    let (sender, chunks) = mpsc::channel(8);
    let stager = execute.stager.clone();
    let uploading = tokio::spawn(async move { stager.upload(&grant, chunks).await });
    let mut pieces = output.chunks(CHUNK).map(Bytes::copy_from_slice);
    for piece in pieces.by_ref().take(2) {
        sender.send(piece).await?;
    }
    let part = execute.part(&house);
    eventually("two chunks arrived", SOON, async || {
        (part.metadata().ok()?.len() == 2 * CHUNK as u64).then_some(())
    })
    .await;

    house.receiver = None;
    house.gather().await?;
    for piece in pieces {
        sender.send(piece).await?;
    }
    drop(sender);

    let stored = uploading.await??.close(output.len() as u64, &Digest::of(&output)).await?;
    assert!(matches!(stored, Stored::Staged), "{stored:?}");
    assert!(fs::read(part)? == output);
    Ok(())
}

#[tokio::test]
async fn an_upload_that_meets_no_gatherer_fails_and_costs_no_attempt() -> Outcome {
    let mut house = House::open(false).await?;
    let (execute, output) = (Execute::new(&house, 0), sample(CHUNK * 3));
    let grant = execute.granted().await?;
    leave(&mut house).await;
    let (sender, chunks) = mpsc::channel(8);
    for chunk in output.chunks(CHUNK) {
        sender.send(Bytes::copy_from_slice(chunk)).await?;
    }

    let failed = Failed::from(execute.stager.upload(&grant, chunks).await.unwrap_err());

    assert_eq!(failed.cause, Cause::GathererAbsent);
    assert!(failed.cause.is_planned());
    house.gather().await?;
    assert!(matches!(Execute::new(&house, 0).store(&output).await?, Stored::Staged));
    Ok(())
}

/// One chunk by hand, and the window that comes back.
async fn sent(house: &House, execution: &Execution, n: usize, chunk: &Bytes) -> Outcome<usize> {
    let mut headers = HeaderMap::new();
    headers.insert(OFFSET, (n * chunk.len()).to_string());
    let subject = subjects::chunk(&house.bag, &format!("0_0-{execution}"));
    let client = house.worker.client();
    let answer = client.request_with_headers(subject, headers, chunk.clone()).await?;
    match serde_json::from_slice(&answer.payload)? {
        Chunked::Next { window, offset, .. } => {
            assert_eq!(offset, ((n + 1) * chunk.len()) as u64);
            Ok(window)
        }
        other => Err(format!("{other:?}").into()),
    }
}

#[tokio::test]
async fn all_windows_together_stay_below_their_bound() -> Outcome {
    const MOST: usize = limits::WINDOWS_BYTES / CHUNK;
    let house = House::open(false).await?;
    let chunk = Bytes::from_static(b"a chunk");
    let opened = async || {
        let execute = Execute::new(&house, 0);
        execute.granted().await.map(|_| execute.execution)
    };
    let alone = opened().await?;
    assert_eq!(sent(&house, &alone, 0, &chunk).await?, limits::WINDOW_MAX);
    assert_eq!(Execute::new(&house, 0).granted().await?.window, 1);

    let mut windows = vec![(alone, limits::WINDOW_MAX)];
    for _ in 1..MOST {
        let next = opened().await?;
        let window = sent(&house, &next, 0, &chunk).await?;
        windows.push((next, window));
        let under_way: usize = windows.iter().map(|(_, window)| window).sum();
        // An upload that begins has one at least; earlier ones learn of it with their next chunk.
        let late = windows.len().saturating_sub(MOST / limits::WINDOW_MAX);
        assert!(under_way <= MOST + late, "{windows:?}");
    }
    for (execution, window) in &mut windows {
        *window = sent(&house, execution, 1, &chunk).await?;
    }
    assert!(windows.iter().map(|(_, window)| window).sum::<usize>() <= MOST, "{windows:?}");
    Ok(())
}

#[tokio::test]
async fn many_uploads_at_a_time_all_arrive() -> Outcome {
    let house = Arc::new(House::open(false).await?);
    let uploads: Vec<_> = (0..24)
        .map(|index| {
            let (execute, size) = (Execute::new(&house, index), CHUNK * (index as usize % 5) + 9);
            let part = execute.part(&house);
            tokio::spawn(async move {
                let output = sample(size);
                let stored = execute.store(&output).await.map_err(|error| error.to_string())?;
                let same = fs::read(part).is_ok_and(|part| part == output);
                (matches!(stored, Stored::Staged) && same)
                    .then_some(())
                    .ok_or_else(|| format!("{index}: {stored:?}"))
            })
        })
        .collect();
    for upload in uploads {
        upload.await??;
    }
    assert_eq!(house.parts.listed().len(), 24);
    Ok(())
}
