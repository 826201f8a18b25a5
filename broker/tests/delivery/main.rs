//! A task is delivered to one worker at a time, and comes back when that worker does not answer.

mod presence;
mod streams;

use std::collections::HashMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::{BagId, Pool};
use bagpress_broker::samples::{bag, delivery, delivery_within, join, submit, task};
use bagpress_broker::server::find_program;
use bagpress_broker::testing::{NatsServer, eventually};
use bagpress_broker::{
    Address, Broker, Error, Presence, Role, Service, ServiceStats, Sizes, Submitted, limits,
    subjects,
};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const SOON: Duration = Duration::from_secs(5);
const DURABLE: &str = "workers";

fn sizes() -> Sizes {
    Sizes { max_file: Some(1 << 30), replicas: 1 }
}

async fn ensure(broker: &Broker, pool: &Pool) -> Result<(), Error> {
    // A large future.
    Box::pin(broker.ensure(pool, sizes())).await
}

async fn connect(server: &NatsServer) -> Outcome<Broker> {
    Ok(Broker::connect(&Address::plain(server.url()), Role::Admin).await?)
}

#[tokio::test]
async fn a_task_is_delivered_whole_and_once_submitted_waits_once() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Producer).await;
    let mut queue = join(&broker).await?;
    let task = task(&bag(), 7, ResultPath::Staged);
    let pool = Pool::default();

    assert_eq!(broker.submit(&pool, &task, true).await?.await?, Submitted::New);
    assert_eq!(broker.submit(&pool, &task, true).await?.await?, Submitted::Already);
    assert_eq!(broker.submit(&pool, &task, false).await?.await?, Submitted::Already);

    let delivered = delivery(&mut queue).await?;
    assert_eq!((delivered.task()?, delivered.delivered()), (task.clone(), 1));
    // Executed and gone: the message id still knows it.
    delivered.ack().await?;
    gone(&broker, &task.bag).await;
    assert_eq!(broker.submit(&pool, &task, true).await?.await?, Submitted::Already);
    assert_eq!(broker.submit(&pool, &task, false).await?.await?, Submitted::New);
    Ok(())
}

/// How many tasks of the bag wait or run.
async fn waiting(broker: &Broker, bag: &BagId) -> Outcome<usize> {
    let mut seen = 0;
    broker.waiting(bag, |_| seen += 1).await?;
    Ok(seen)
}

/// Waits until the server has worked off an answer.
async fn gone(broker: &Broker, bag: &BagId) {
    eventually("no task of the bag is left", SOON, async || {
        (waiting(broker, bag).await.ok()? == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn waiting_lists_the_tasks_of_one_bag_running_or_not() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Producer).await;
    let (bag, other) = (bag(), bag());
    for index in 0..3 {
        submit(&broker, &task(&bag, index, ResultPath::Staged)).await?;
    }
    submit(&broker, &task(&other, 9, ResultPath::Staged)).await?;
    let running = delivery(&mut join(&broker).await?).await?;

    let mut seen = Vec::new();
    broker.waiting(&bag, |id| seen.push((id.index, id.round))).await?;

    seen.sort_unstable();
    assert_eq!(seen, [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(running.id().index, 0);
    broker.purge_tasks(&bag).await?;
    gone(&broker, &bag).await;
    assert_eq!(waiting(&broker, &other).await?, 1);
    Ok(())
}

#[tokio::test]
async fn an_unanswered_delivery_returns_after_its_lease_and_not_before() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    submit(&broker, &task(&bag(), 0, ResultPath::Staged)).await?;
    let first = delivery(&mut join(&broker).await?).await?;
    let since = Instant::now();
    let mut queue = join(&broker).await?;

    let again = delivery_within(&mut queue, limits::LEASE * 2).await?.expect("a delivery");

    assert_eq!((again.delivered(), again.id()), (2, first.id()));
    assert!(since.elapsed() + Duration::from_secs(1) > limits::LEASE, "{:?}", since.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_renewed_lease_does_not_end() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    submit(&broker, &task(&bag(), 0, ResultPath::Staged)).await?;
    let held = delivery(&mut join(&broker).await?).await?;
    let mut queue = join(&broker).await?;

    for _ in 0..4 {
        held.renew().await?;
        assert!(delivery_within(&mut queue, limits::LEASE_RENEWAL).await?.is_none());
    }
    Ok(())
}

#[tokio::test]
async fn a_delivery_given_back_comes_again_after_its_delay() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let mut queue = join(&broker).await?;
    submit(&broker, &task(&bag(), 0, ResultPath::Staged)).await?;

    delivery(&mut queue).await?.nak(Duration::ZERO).await?;
    let second = delivery(&mut queue).await?;
    assert_eq!(second.delivered(), 2);

    let (delay, since) = (Duration::from_millis(700), Instant::now());
    second.nak(delay).await?;
    assert_eq!(delivery(&mut queue).await?.delivered(), 3);
    assert!(since.elapsed() >= delay, "{:?}", since.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_terminated_task_is_gone() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let mut queue = join(&broker).await?;
    let task = task(&bag(), 0, ResultPath::Staged);
    submit(&broker, &task).await?;

    delivery(&mut queue).await?.term("failed").await?;

    gone(&broker, &task.bag).await;
    assert!(delivery_within(&mut queue, Duration::from_secs(1)).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_subject_without_an_index_is_taken_out_of_the_queue() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let mut queue = join(&broker).await?;
    let stray = format!("bag.task.default.{}.first.0", bag());
    broker.jetstream().publish(stray, "junk".into()).await?.await?;
    let task = task(&bag(), 0, ResultPath::Staged);
    submit(&broker, &task).await?;

    assert_eq!(delivery(&mut queue).await?.id(), &task.id());

    eventually("the stray message is gone", SOON, async || {
        let left = broker.stream(subjects::TASKS).await.ok()?.cached_info().state.messages;
        (left == 1).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn who_leaves_gets_what_still_arrives_and_loses_nothing() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let bag = bag();
    let mut leaver = join(&broker).await?;
    leaver.request(2).await?;
    broker.flush().await?;

    // These come after it decided to leave: two go to its request, which the server still has.
    let leaving = leaver.leave();
    for index in 0..5 {
        submit(&broker, &task(&bag, index, ResultPath::Staged)).await?;
    }
    let left = leaving.await;
    assert_eq!(left.len(), 2);
    for delivery in &left {
        delivery.nak(Duration::ZERO).await?;
    }

    let mut stayer = join(&broker).await?;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(delivery(&mut stayer).await?.id().index);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    Ok(())
}

#[tokio::test]
async fn after_one_left_the_next_task_goes_to_another_at_once() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let (mut leaver, mut stayer) = (join(&broker).await?, join(&broker).await?);
    leaver.request(8).await?;
    assert!(leaver.leave().await.is_empty());

    submit(&broker, &task(&bag(), 0, ResultPath::Staged)).await?;

    assert_eq!(delivery(&mut stayer).await?.delivered(), 1);
    Ok(())
}

#[tokio::test]
async fn what_a_dead_worker_held_is_given_back_in_its_name() -> Outcome {
    let server = NatsServer::start().await;
    let (dead, gatherer) = (server.broker(Role::Worker).await, server.broker(Role::Producer).await);
    submit(&gatherer, &task(&bag(), 0, ResultPath::Staged)).await?;
    let held = delivery(&mut join(&dead).await?).await?.reply().to_owned();
    drop(dead);

    gatherer.nak_for(&held).await?;

    // Long before the lease.
    assert_eq!(delivery(&mut join(&gatherer).await?).await?.delivered(), 2);
    Ok(())
}

#[tokio::test]
async fn what_was_handed_out_can_be_given_back_by_who_never_saw_it() -> Outcome {
    let server = NatsServer::start().await;
    let (dead, gatherer) = (server.broker(Role::Worker).await, connect(&server).await?);
    let (bag, pool) = (bag(), Pool::default());
    assert_eq!(gatherer.unanswered_tasks(&pool, &bag, 8).await?, []);
    for index in 0..4 {
        submit(&gatherer, &task(&bag, index, ResultPath::Staged)).await?;
    }
    let mut queue = join(&dead).await?;
    queue.request(3).await?;
    let first = delivery(&mut queue).await?;
    let second = delivery(&mut queue).await?;
    let third = delivery(&mut queue).await?;
    second.ack().await?;

    // The answered one is gone, once the server has written it down; the one that still waits was never handed out.
    let expected = [first.id().clone(), third.id().clone()];
    let found = eventually("the answer counts", SOON, async || {
        let found = gatherer.unanswered_tasks(&pool, &bag, 8).await.ok()?;
        found.iter().map(|task| &task.id).eq(&expected).then_some(found)
    })
    .await;
    assert_eq!(gatherer.unanswered_tasks(&pool, &bag, 1).await?, found[..1]);

    for task in &found {
        gatherer.nak_for(&task.reply).await?;
    }
    let mut again = Vec::new();
    let mut other = join(&gatherer).await?;
    other.request(3).await?;
    for _ in 0..3 {
        let delivery = delivery(&mut other).await?;
        again.push((delivery.id().index, delivery.delivered()));
    }
    again.sort_unstable();
    assert_eq!(again, [(0, 2), (2, 2), (3, 1)]);
    Ok(())
}

#[tokio::test]
async fn a_queue_goes_on_after_the_server_was_killed() -> Outcome {
    let mut server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let mut queue = join(&broker).await?;
    let task = task(&bag(), 0, ResultPath::Staged);
    submit(&broker, &task).await?;
    queue.request(4).await?;
    let before = delivery(&mut queue).await?;
    let connects = broker.connects();

    server.kill_and_restart().await;
    eventually("connected again", SOON, async || (broker.connects() > connects).then_some(()))
        .await;

    before.nak(Duration::ZERO).await?;
    assert_eq!(delivery(&mut queue).await?.id(), &task.id());
    Ok(())
}
