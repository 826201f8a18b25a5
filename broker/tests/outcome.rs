//! A task has exactly one outcome, and its gatherer sees it exactly once.

use std::time::Duration;

use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::{BagId, Execution, Pool, TaskId};
use bagpress_broker::result::{Cause, Place, TaskResult};
use bagpress_broker::samples::{bag, done, task};
use bagpress_broker::testing::{NatsServer, eventually};
use bagpress_broker::{
    Address, AttemptRecord, Broker, Committed, Error, Results, Role, Sizes, Submitted, subjects,
};
use futures::TryStreamExt;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const SOON: Duration = Duration::from_secs(20);

fn result(bag: &BagId, index: u32) -> TaskResult {
    let id = TaskId { bag: bag.clone(), index, round: 0 };
    done(&id, &Execution::random(), b"output", Place::Staged)
}

/// Room for a few messages in each stream.
async fn small(server: &NatsServer) -> Outcome<Broker> {
    let broker = Broker::connect(&Address::plain(server.url()), Role::Admin).await?;
    let sizes = Sizes { max_file: Some(64 << 10), replicas: 1 };
    Box::pin(broker.ensure(&Pool::default(), sizes)).await?;
    Ok(broker)
}

#[tokio::test]
async fn the_first_outcome_wins_and_the_second_learns_whose_it_is() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let bag = bag();
    let (first, second) = (result(&bag, 0), result(&bag, 0));
    assert!(broker.committed(&first.id()).await?.is_none());

    assert!(matches!(broker.commit(&first).await?, Committed::Mine));

    let Committed::Other(winner) = broker.commit(&second).await? else {
        return Err("two outcomes".into());
    };
    assert_eq!(*winner, first);
    assert_eq!(broker.committed(&first.id()).await?, Some(first));
    Ok(())
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_still_mine() -> Outcome {
    let server = NatsServer::start().await;
    let (broker, other) = (server.broker(Role::Worker).await, server.broker(Role::Worker).await);
    let result = result(&bag(), 0);

    assert!(matches!(broker.commit(&result).await?, Committed::Mine));
    assert!(matches!(broker.commit(&result).await?, Committed::Mine));
    assert!(matches!(other.commit(&result).await?, Committed::Mine));
    Ok(())
}

#[tokio::test]
async fn of_many_commits_at_once_one_is_mine_and_all_agree() -> Outcome {
    let server = NatsServer::start().await;
    let brokers = [server.broker(Role::Worker).await, server.broker(Role::Worker).await];
    let bag = bag();
    for index in 0..50 {
        let racers: Vec<_> = (0..4).map(|_| result(&bag, index)).collect();
        let racing = racers.iter().enumerate().map(|(n, result)| brokers[n % 2].commit(result));
        let committed = futures::future::try_join_all(racing).await?;
        let winner = brokers[0].committed(&racers[0].id()).await?.expect("an outcome");
        let mut mine = 0;
        for (racer, committed) in racers.iter().zip(committed) {
            match committed {
                Committed::Mine => {
                    assert_eq!(racer, &winner);
                    mine += 1;
                }
                Committed::Other(other) => assert_eq!(*other, winner),
                Committed::Unreadable(why) => return Err(why.into()),
            }
        }
        assert_eq!(mine, 1);
    }
    Ok(())
}

#[tokio::test]
async fn another_round_has_an_outcome_of_its_own() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let first = result(&bag(), 0);
    let anew = TaskResult { round: 1, execution: Execution::random(), ..first.clone() };

    assert!(matches!(broker.commit(&first).await?, Committed::Mine));
    assert!(matches!(broker.commit(&anew).await?, Committed::Mine));
    assert_eq!(broker.committed(&first.id()).await?, Some(first));
    Ok(())
}

/// The server answers 10077 both for a full stream and for a subject that is taken.
#[tokio::test]
async fn a_full_stream_is_full_and_a_taken_subject_is_taken() -> Outcome {
    let server = NatsServer::start().await;
    let broker = small(&server).await?;
    let bag = bag();
    let first = result(&bag, 0);
    assert!(matches!(broker.commit(&first).await?, Committed::Mine));

    let mut full = None;
    for index in 1..200 {
        match broker.commit(&result(&bag, index)).await {
            Ok(committed) => assert!(matches!(committed, Committed::Mine)),
            Err(error) => {
                full = Some(error);
                break;
            }
        }
    }

    let full = full.expect("a full stream");
    assert!(matches!(full, Error::Full { .. }) && full.is_transient(), "{full}");
    assert!(full.to_string().contains(subjects::RESULTS), "{full}");
    // Full or not: what was committed stays, and a second execution learns of it.
    assert!(matches!(broker.commit(&first).await?, Committed::Mine));
    assert!(matches!(broker.commit(&result(&bag, 0)).await?, Committed::Other(_)));
    Ok(())
}

#[tokio::test]
async fn a_full_queue_is_full_and_a_waiting_task_waits() -> Outcome {
    let server = NatsServer::start().await;
    let broker = small(&server).await?;
    let (bag, pool) = (bag(), Pool::default());
    let of = |index| task(&bag, index, ResultPath::Staged);
    assert_eq!(broker.submit(&pool, &of(0), false).await?.await?, Submitted::New);
    assert_eq!(broker.submit(&pool, &of(0), false).await?.await?, Submitted::Already);

    let mut full = None;
    for index in 1..200 {
        if let Err(error) = broker.submit(&pool, &of(index), true).await?.await {
            full = Some(error);
            break;
        }
    }

    let full = full.expect("a full queue");
    assert!(matches!(full, Error::Full { .. }) && full.is_transient(), "{full}");
    assert_eq!(broker.submit(&pool, &of(0), false).await?.await?, Submitted::Already);
    Ok(())
}

#[tokio::test]
async fn planned_give_backs_spend_no_attempt() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let id = result(&bag(), 3).id();
    assert_eq!(broker.planned_give_backs(&id).await?, 0);

    let causes = [
        (Cause::Drain, 1),
        (Cause::Full, 2),
        (Cause::TransferError, 2),
        (Cause::GathererAbsent, 3),
        (Cause::WorkerLost, 3),
        (Cause::CodecVersion, 4),
    ];
    for (delivered, (cause, planned)) in (1..).zip(causes) {
        let before = broker.planned_give_backs(&id).await?;
        let record = AttemptRecord::new(&id, delivered, before, cause, "W");
        broker.record_attempt(&id.bag, &record).await?;
        assert_eq!(broker.planned_give_backs(&id).await?, planned, "{cause}");
    }

    let next_round = TaskId { round: 1, ..id.clone() };
    assert_eq!(broker.planned_give_backs(&next_round).await?, 0);
    Ok(())
}

/// Follows until `count` results were seen, and once more than that, in case one comes twice.
async fn follow(results: &mut Results, count: usize) -> Outcome<Vec<u32>> {
    let mut seen = Vec::new();
    let following = async {
        loop {
            let batch = results.next_batch().await?;
            let nothing = batch.is_empty();
            for followed in batch {
                seen.push(followed.result.map_err(|(_, _, why)| why)?.index);
            }
            if seen.len() >= count && nothing {
                return Ok(());
            }
        }
    };
    match tokio::time::timeout(SOON, following).await {
        Ok(followed) => followed.map(|()| seen),
        Err(_) => Err(format!("{seen:?} instead of {count} results").into()),
    }
}

async fn commit_all(broker: &Broker, bag: &BagId, indices: std::ops::Range<u32>) -> Outcome {
    for index in indices {
        broker.commit(&result(bag, index)).await?;
    }
    Ok(())
}

async fn consumers(broker: &Broker) -> Outcome<Vec<String>> {
    Ok(broker.stream(subjects::RESULTS).await?.consumer_names().try_collect().await?)
}

#[tokio::test]
async fn a_gatherer_sees_each_result_of_its_bag_once_in_order() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Producer).await;
    let (bag, other) = (bag(), bag());
    let mut results = Results::of(&broker, &bag);
    commit_all(&broker, &other, 0..5).await?;
    commit_all(&broker, &bag, 0..600).await?;

    assert!(follow(&mut results, 600).await?.into_iter().eq(0..600));
    assert!(results.caught_up());
    commit_all(&broker, &bag, 600..603).await?;
    assert_eq!(follow(&mut results, 3).await?, [600, 601, 602]);

    results.close().await;
    assert!(consumers(&broker).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_gatherer_whose_consumer_was_deleted_goes_on_behind_what_it_saw() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Producer).await;
    let bag = bag();
    let mut results = Results::of(&broker, &bag);
    commit_all(&broker, &bag, 0..4).await?;
    assert_eq!(follow(&mut results, 4).await?, [0, 1, 2, 3]);

    for name in consumers(&broker).await? {
        broker.jetstream().delete_consumer_from_stream(name, subjects::RESULTS).await?;
    }
    commit_all(&broker, &bag, 4..7).await?;

    assert_eq!(follow(&mut results, 3).await?, [4, 5, 6]);
    Ok(())
}

#[tokio::test]
async fn a_result_in_the_place_of_a_forgotten_one_is_seen_from_the_first() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Admin).await;
    let bag = bag();
    let mut results = Results::of(&broker, &bag);
    commit_all(&broker, &bag, 0..3).await?;
    assert_eq!(follow(&mut results, 3).await?, [0, 1, 2]);

    // A broker that forgot: what comes next takes the sequences of what was seen.
    broker.jetstream().delete_stream(subjects::RESULTS).await?;
    Box::pin(broker.ensure(&Pool::default(), Sizes { max_file: Some(64 << 10), replicas: 1 }))
        .await?;
    commit_all(&broker, &bag, 3..5).await?;

    results.restart().await;
    assert_eq!(follow(&mut results, 2).await?, [3, 4]);
    Ok(())
}

#[tokio::test]
async fn a_gatherer_goes_on_after_the_server_was_killed() -> Outcome {
    let mut server = NatsServer::start().await;
    let broker = server.broker(Role::Producer).await;
    let bag = bag();
    let mut results = Results::of(&broker, &bag);
    commit_all(&broker, &bag, 0..4).await?;
    assert_eq!(follow(&mut results, 4).await?, [0, 1, 2, 3]);
    let connects = broker.connects();

    server.kill_and_restart().await;
    eventually("connected again", SOON, async || (broker.connects() > connects).then_some(()))
        .await;
    commit_all(&broker, &bag, 4..7).await?;

    assert_eq!(follow(&mut results, 3).await?, [4, 5, 6]);
    assert_eq!(follow(&mut Results::of(&broker, &bag), 7).await?, [0, 1, 2, 3, 4, 5, 6]);
    Ok(())
}

#[tokio::test]
async fn a_result_that_cannot_be_read_is_named_by_its_subject() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Producer).await;
    let bag = bag();
    let subject = |index| subjects::result(&TaskId { bag: bag.clone(), index, round: 0 });
    broker.jetstream().publish(subject(5), "junk".into()).await?.await?;
    let moved = result(&bag, 1).encode();
    broker.jetstream().publish(subject(6), moved.into()).await?.await?;
    let mut results = Results::of(&broker, &bag);

    let mut bad = Vec::new();
    while bad.len() < 2 {
        for followed in tokio::time::timeout(SOON, results.next_batch()).await?? {
            let (index, round, why) = followed.result.unwrap_err();
            assert!(!why.is_empty());
            bad.push((index, round));
        }
    }

    assert_eq!(bad, [(5, 0), (6, 0)]);
    Ok(())
}
