//! Tasks are published in the order of their indices.

use serde_json::Value;

use crate::control::context;
use crate::harness::Place;

/// More tasks than tokio lets one future begin at a time.
const TASKS: u64 = 300;

/// A large file is joined while its blocks come, and only as far as they have come without a gap.
#[tokio::test]
async fn tasks_wait_in_the_queue_in_the_order_of_their_indices() {
    let (place, server) = Place::with_server().await;
    let submit = format!("submit --tasks {TASKS} --bytes 64 --name t --server {}", server.url());
    place.run(&submit).await.with_code(0);
    let queue = context(&server).await.get_stream("BAG_TASKS").await.unwrap();
    let mut indices = Vec::new();
    for sequence in 1..=TASKS {
        let message = queue.get_raw_message(sequence).await.unwrap();
        let task: Value = serde_json::from_slice(&message.payload).unwrap();
        indices.push(task["index"].as_u64().unwrap());
    }
    assert_eq!(indices, (0..TASKS).collect::<Vec<_>>());
}
