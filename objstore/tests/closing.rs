//! The end of an upload, when it takes long.

use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{Role, limits, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::Stored;
use bagpress_objstore::staging::messages::Closed;
use bagpress_objstore::staging::{Allowed, Grant, Stager};
use futures::StreamExt;
use tokio::sync::mpsc;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A large output takes longer to be read back and synced than a request may: its worker asks until it is durable.
#[tokio::test]
async fn who_closes_asks_again_for_as_long_as_the_output_is_being_read() -> Outcome {
    let server = NatsServer::start().await;
    let (worker, gatherer) =
        (server.broker(Role::Worker).await, server.broker(Role::Producer).await);
    // A bag that is gathered here, by hand.
    let id = TaskId { bag: "by-hand".parse()?, index: 0, round: 0 };
    let client = gatherer.client_handle();
    let mut closes = client.subscribe(subjects::close(&id.bag)).await?;
    gatherer.flush().await?;
    let answering = tokio::spawn(async move {
        // More often than a lost answer is asked for again.
        for number in 0..=2 * limits::GET_RETRIES {
            let message = closes.next().await?;
            let answer =
                if number < 2 * limits::GET_RETRIES { Closed::Reading } else { Closed::Durable };
            let answer = serde_json::to_vec(&answer).ok()?;
            client.publish(message.reply?, answer.into()).await.ok()?;
        }
        Some(())
    });
    let stager = Stager::new(&worker, Allowed::default());
    let grant = Grant {
        id,
        execution: Execution::random(),
        window: 1,
        share: None,
        decided: Vec::new(),
        inputs: Vec::new(),
    };
    let (sender, chunks) = mpsc::channel(1);
    drop(sender);
    let stored = stager.upload(&grant, chunks).await?.close(0, &Digest::of(b"")).await?;
    assert!(matches!(stored, Stored::Staged), "{stored:?}");
    answering.await?.ok_or("not answered")?;
    Ok(())
}
