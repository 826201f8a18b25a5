//! What a worker counts as failed is what failed.

use std::time::Duration;

use bagpress_broker::descriptor::{Input, Pack, ResultPath, TaskDescriptor};

use crate::by_hand::*;
use crate::house::Outcome;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_failed_is_counted_and_a_pack_whose_files_are_run_alone_is_not() -> Outcome {
    for (pack, failed) in [(None, 1), (Some(Pack { files: 2 }), 0)] {
        let mut race = Race::on(ResultPath::Staged).await?;
        let input = Input::File { name: "in".to_owned(), bytes: 2 };
        let task = TaskDescriptor { attempts: 1, input, pack, ..race.task() };
        race.submit_with(task).await?;
        race.taken_and_lost().await?;

        let worker = race.worker(1);
        race.answered().await;

        let outcomes = race.outcomes().await?;
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        let counted = bagpress_broker::testing::eventually("it is counted", SOON, async || {
            let workers = race.house.gatherer.workers(Duration::from_secs(1)).await.ok()?;
            let [(_, stats)] = workers.as_slice() else { return None };
            // What is not held any more was counted.
            stats.held.is_empty().then_some(stats.failed)
        });
        assert_eq!(counted.await, failed, "{pack:?}");
        worker.drained().await?;
    }
    Ok(())
}
