//! A time limit frees a slot: from a task with too much to do, an input that comes slowly, an upload that never ends.

use std::time::Duration;

use async_nats::HeaderMap;
use bagpress_broker::descriptor::{Input, ResultPath, TaskDescriptor};
use bagpress_broker::result::{Cause, Outcome as End};
use bagpress_broker::{limits, subjects};
use bagpress_codec::{Codec, DataKind};
use bagpress_objstore::staging::messages::{CRC, Chunked, Go, Opened};
use bytes::Bytes;
use futures::StreamExt;
use tokio::task::JoinHandle;

use crate::by_hand::*;
use crate::house::Outcome;

const LIMIT: Duration = Duration::from_secs(2);
const HUGE: u64 = limits::INPUT_BYTES_MAX;

fn with(task: TaskDescriptor, codec: &str, input: Input) -> Outcome<TaskDescriptor> {
    let codec: Codec = codec.parse()?;
    let library = codec.library();
    Ok(TaskDescriptor { input, codec, library, attempts: 1, ..task })
}

/// A gatherer that answers an OPEN as it should, an input with a whole chunk in a second, and each chunk with a
/// request to send it again.
async fn stretches(race: &mut Race) -> Outcome<JoinHandle<()>> {
    race.house.receiver = None;
    let client = race.house.gatherer.client_handle();
    let mut asked = client.subscribe(subjects::uploads_of(&race.house.bag)).await?;
    race.house.gatherer.flush().await?;
    let (open, input) = (subjects::open(&race.house.bag), subjects::input(&race.house.bag));
    Ok(tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let client = client.clone();
            let asks = |subject: &str| message.subject.as_str() == subject;
            let (opens, reads) = (asks(&open), asks(&input));
            tokio::spawn(async move {
                let Some(reply) = message.reply else { return };
                let (mut headers, payload) = (HeaderMap::new(), vec![7; limits::CHUNK_BYTES]);
                let json = |answer: serde_json::Result<Vec<u8>>| answer.map(Bytes::from).ok();
                let payload = if opens {
                    json(serde_json::to_vec(&Opened::Go(Go {
                        window: 1,
                        offset: 0,
                        share: None,
                        decided: Vec::new(),
                    })))
                } else if reads {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    headers.insert(CRC, format!("{:08x}", crc32fast::hash(&payload)));
                    Some(payload.into())
                } else {
                    let again = Chunked::Next { offset: 0, window: 1, again: true };
                    json(serde_json::to_vec(&again))
                };
                let answer = payload.unwrap_or_default();
                client.publish_with_headers(reply, headers, answer).await.ok();
            });
        }
    }))
}

/// The only slot is freed, and does something else.
async fn frees_its_slot(race: &Race, task: TaskDescriptor) -> Outcome {
    let small = Input::Generate { data: DataKind::Zeros, seed: 0, bytes: 1 };
    let next = with(TaskDescriptor { index: 1, ..race.task() }, "noop", small)?;
    race.submit_with(task).await?;
    let worker = race.worker_within(1, Some(LIMIT));
    race.submit_with(next).await?;

    // An execution that is stopped may wait for one answer more.
    race.answered().await;
    let outcomes = race.outcomes().await?;
    let of = |index: u32| outcomes.iter().find(|outcome| outcome.index == index).ok_or("none");
    let End::Failed(failed) = &of(0)?.outcome else { return Err("not stopped".into()) };
    assert_eq!(failed.cause, Cause::Timeout, "{}", failed.message);
    assert!(failed.message.contains("--time-limit"), "{}", failed.message);
    assert!(of(1)?.done().is_some(), "{outcomes:?}");
    worker.drained().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_never_ends_frees_its_slot_at_the_time_limit() -> Outcome {
    let race = Race::on(ResultPath::Objects).await?;
    let huge = Input::Generate { data: DataKind::Zeros, seed: 0, bytes: HUGE };
    frees_its_slot(&race, with(race.task(), "noop", huge)?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_comes_slowly_frees_its_slot_at_the_time_limit() -> Outcome {
    let mut race = Race::on(ResultPath::Staged).await?;
    let gatherer = stretches(&mut race).await?;
    let slow = Input::File { name: "slow".to_owned(), bytes: HUGE };
    frees_its_slot(&race, with(race.task(), "noop", slow)?).await?;
    gatherer.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_never_taken_frees_its_slot_at_the_time_limit() -> Outcome {
    let mut race = Race::on(ResultPath::Staged).await?;
    let gatherer = stretches(&mut race).await?;
    let output = Input::Generate { data: DataKind::Random, seed: 0, bytes: 64 << 20 };
    frees_its_slot(&race, with(race.task(), "store", output)?).await?;
    gatherer.abort();
    Ok(())
}
