//! A hostile client with the rights of a worker gets no memory, no files and no places of others.

#[expect(dead_code, reason = "others need more of it")]
#[path = "house/execute.rs"]
mod execute;
#[expect(dead_code, reason = "others need more of it")]
mod flood;
#[expect(dead_code, reason = "others need more of it")]
mod house;

use std::fs;
use std::time::Duration;

use async_nats::HeaderMap;
use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::testing::eventually;
use bagpress_broker::{limits, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::Stored;
use bagpress_objstore::staging::messages::{
    CLOSE, Came, Chunked, Close, Closed, ClosedFile, OFFSET,
};
use bagpress_objstore::staging::{Permission, Upload};
use bytes::Bytes;
use futures::future::join_all;
use serde::de::DeserializeOwned;

use self::execute::Execute;
use self::flood::Hostile;
use self::house::{House, Outcome, sample};

const CHUNK: usize = limits::CHUNK_BYTES;
/// Far less than what the flood cost before: a place was had for 30 s.
const PROMPTLY: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(30);

/// What is answered to one message by hand.
async fn asked<T: DeserializeOwned>(
    house: &House,
    subject: String,
    header: (&str, String),
    payload: Bytes,
) -> Outcome<T> {
    let mut headers = HeaderMap::new();
    headers.insert(header.0, header.1);
    let client = house.worker.client();
    let answer = client.request_with_headers(subject, headers, payload).await?;
    Ok(serde_json::from_slice(&answer.payload)?)
}

async fn chunk(house: &House, xfer: &str, offset: usize, bytes: usize) -> Outcome<Chunked> {
    let subject = subjects::chunk(&house.bag, xfer);
    asked(house, subject, (OFFSET, offset.to_string()), vec![1; bytes].into()).await
}

async fn close(house: &House, close: &Close, payload: &[u8]) -> Outcome<Closed> {
    let header = (CLOSE, serde_json::to_string(close)?);
    asked(house, subjects::close(&house.bag), header, Bytes::copy_from_slice(payload)).await
}

fn closing(execution: &Execution, index: u32, came: Came, bytes: &[u8]) -> Close {
    Close {
        v: limits::WIRE_VERSION,
        index,
        round: 0,
        execution: execution.clone(),
        bytes: bytes.len() as u64,
        digest: Digest::of(bytes),
        came,
        files: Vec::new(),
    }
}

fn is_not_opened(answer: &Chunked) -> bool {
    matches!(answer, Chunked::Wait { open: true, .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_tiny_uploads_keep_no_honest_one_waiting() -> Outcome {
    let house = House::open(false).await?;
    let (honest, output) = (Execute::new(&house, 0), sample(4 * CHUNK + 1));
    let mut hostile = Hostile::connect(&house, "hostile")?;
    // As many places as there are, and some more; a worker's rights are enough to open them.
    let flood: Vec<_> = (0..4_200).map(|_| Execution::random()).collect();
    for batch in flood.chunks(100) {
        let opening = batch.iter().map(|execution| {
            let id = TaskId { bag: house.bag.clone(), index: 1, round: 0 };
            let stager = honest.stager.clone();
            async move { stager.open(&id, execution, false).await }
        });
        for opened in join_all(opening).await {
            assert!(matches!(opened?, Permission::Go(_)));
        }
    }
    for execution in &flood {
        hostile.chunk(1, execution, b"!")?;
    }
    let last = house.parts.part(1, 0, flood.last().ok_or("none")?);
    eventually("the flood arrived", SOON, async || last.exists().then_some(())).await;

    let stored = tokio::time::timeout(PROMPTLY, honest.store(&output)).await??;
    assert!(matches!(stored, Stored::Staged), "{stored:?}");
    assert!(fs::read(honest.part(&house))? == output);
    let small = tokio::time::timeout(PROMPTLY, Execute::new(&house, 2).store(b"small")).await??;
    assert!(matches!(small, Stored::Staged), "{small:?}");
    // Its places are bounded, and so are its files: those of uploads that made room are removed.
    eventually("few files are left", SOON, async || {
        (house.parts.listed().len() <= limits::UPLOADS_MAX + 2).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn outputs_of_a_pack_that_come_in_chunks_are_not_believed() -> Outcome {
    let house = House::open(true).await?;
    let file = ClosedFile { bytes: 5, digest: Digest::of(b"bytes") };
    let said = closing(&Execution::random(), 0, Came::Chunks, b"bytes");
    let answer = close(&house, &Close { files: vec![Some(file)], ..said }, b"").await?;
    assert!(matches!(answer, Closed::Mismatch { .. }), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn an_upload_that_nobody_opened_leaves_no_trace() -> Outcome {
    let house = House::open(true).await?;
    let nobody = Execution::random();
    for index in [0, 99, 100, u32::MAX] {
        let answer = chunk(&house, &format!("{index}_0-{nobody}"), 0, 1).await?;
        assert!(is_not_opened(&answer), "{index}: {answer:?}");
        for came in [Came::Inline, Came::Chunks, Came::ByPath] {
            let said = closing(&nobody, index, came, b"bytes");
            let answer = close(&house, &said, b"bytes").await?;
            if index < limits::BAG_TASKS_MAX {
                assert!(matches!(answer, Closed::Wait { open: true, .. }), "{index}: {answer:?}");
            } else {
                // No bag has so many tasks: it is not even read.
                assert!(matches!(answer, Closed::Mismatch { .. }), "{index}: {answer:?}");
            }
        }
    }
    // One that was opened is one of that task only.
    let execute = Execute::new(&house, 7);
    execute.granted().await?;
    let answer = chunk(&house, &format!("8_0-{}", execute.execution), 0, 1).await?;
    assert!(is_not_opened(&answer), "{answer:?}");
    assert!(house.parts.listed().is_empty(), "{:?}", house.parts.listed());
    // Beyond the bag there is nothing to open.
    let permission = Execute::new(&house, 100).open().await?;
    assert!(matches!(permission, Permission::Refused(_)), "{permission:?}");
    Ok(())
}

#[tokio::test]
async fn a_close_by_path_of_nobody_leaves_the_part_file_of_another_alone() -> Outcome {
    let mut house = House::open(true).await?;
    let (execute, output) = (Execute::below(&house, 0, &[house.folder()]), sample(CHUNK + 9));
    let grant = execute.granted().await?;
    let share = grant.share.as_ref().ok_or("no share")?;
    std::io::Write::write_all(&mut share.create_part()?, &output)?;
    // Its gatherer is another one meanwhile, at which nobody opened it.
    house.receiver = None;
    house.gather().await?;

    let said = closing(&execute.execution, 0, Came::ByPath, b"somebody else's");
    let answer = close(&house, &said, b"").await?;

    assert!(matches!(answer, Closed::Wait { open: true, .. }), "{answer:?}");
    assert!(fs::read(execute.part(&house))? == output);
    // Its owner opens it again, and nothing is executed twice.
    let upload = Upload::by_path(&execute.stager, &grant);
    let stored = upload.close(output.len() as u64, &Digest::of(&output)).await?;
    assert!(matches!(stored, Stored::Staged), "{stored:?}");
    Ok(())
}

#[tokio::test]
async fn an_output_that_was_made_before_its_gatherer_died_is_taken_by_the_next() -> Outcome {
    let mut house = House::open(false).await?;
    let output = sample(CHUNK - 7);
    let execute = Execute::new(&house, 0);
    let upload = execute.upload(&output).await?;
    house.receiver = None;
    house.gather().await?;
    let stored = upload.close(output.len() as u64, &Digest::of(&output)).await?;
    assert!(matches!(stored, Stored::Staged), "{stored:?}");
    assert!(fs::read(execute.part(&house))? == output);
    Ok(())
}

#[tokio::test]
async fn what_is_larger_than_a_chunk_is_refused_and_nothing_of_it_is_kept() -> Outcome {
    let house = House::open(false).await?;
    let execute = Execute::new(&house, 3);
    execute.granted().await?;
    let answer = chunk(&house, &format!("3_0-{}", execute.execution), 0, CHUNK + 1).await?;
    assert!(matches!(answer, Chunked::Refused(_)), "{answer:?}");
    let large = sample(CHUNK + 1);
    let answer =
        close(&house, &closing(&execute.execution, 3, Came::Inline, &large), &large).await?;
    assert!(matches!(answer, Closed::Mismatch { .. }), "{answer:?}");
    // More than was announced is none of it either.
    let said = closing(&execute.execution, 3, Came::Inline, b"short");
    let answer = close(&house, &said, &sample(CHUNK)).await?;
    assert!(matches!(answer, Closed::Mismatch { .. }), "{answer:?}");
    assert!(house.parts.listed().is_empty(), "{:?}", house.parts.listed());
    Ok(())
}

#[tokio::test]
async fn a_close_that_is_refused_leaves_no_part_file() -> Outcome {
    let house = House::open(true).await?;
    let gone = async |execute: &Execute, how: &str| {
        eventually(how, SOON, async || (!execute.part(&house).exists()).then_some(())).await;
    };
    for (index, size) in [(0, 10), (1, 3 * CHUNK)] {
        let (execute, made) = (Execute::new(&house, index), sample(size));
        let upload = execute.upload(&made).await?;
        upload.close(size as u64, &Digest::of(b"other bytes")).await.unwrap_err();
        gone(&execute, "the part file is removed").await;
    }
    let execute = Execute::below(&house, 2, &[house.folder()]);
    let grant = execute.granted().await?;
    fs::write(execute.part(&house), b"half of")?;
    let upload = Upload::by_path(&execute.stager, &grant);
    upload.close(14, &Digest::of(b"half of it all")).await.unwrap_err();
    gone(&execute, "the part file by path is removed").await;
    Ok(())
}
