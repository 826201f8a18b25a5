//! A task that waits out a delay can be woken, and what that does to one that does not wait.

use std::time::{Duration, Instant};

use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::result::Cause;
use bagpress_broker::samples::{bag, delivery, delivery_within, join, submit, task};
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{AttemptRecord, Delivery, LastGiveBack, Role, limits};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const LONG: Duration = Duration::from_secs(50);

#[tokio::test]
async fn a_delayed_task_is_woken_at_once_also_after_a_restart() -> Outcome {
    let mut server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let mut queue = join(&broker).await?;
    submit(&broker, &task(&bag(), 0, ResultPath::Staged)).await?;
    let first = delivery(&mut queue).await?;
    first.nak(LONG).await?;
    broker.flush().await?;
    assert!(delivery_within(&mut queue, limits::PULL_EXPIRES).await?.is_none());

    let since = Instant::now();
    broker.nak_for(first.reply()).await?;
    let second = delivery(&mut queue).await?;
    assert_eq!(second.delivered(), 2);
    assert!(since.elapsed() < LONG / 5, "{:?}", since.elapsed());

    // By the subject of an older delivery too, and whatever the server remembers.
    second.nak(LONG).await?;
    broker.flush().await?;
    server.kill_and_restart().await;
    let broker = server.broker(Role::Worker).await;
    broker.nak_for(first.reply()).await?;
    let third = delivery(&mut join(&broker).await?).await?;
    // It records a delivery a moment after it answers: the second one may be forgotten.
    assert!((2..=3).contains(&third.delivered()), "{}", third.delivered());
    Ok(())
}

/// Why who wakes must know that nobody has the task: the server does not look which delivery is meant.
#[tokio::test]
async fn a_late_wake_hands_a_task_out_twice_and_one_of_an_answered_task_does_nothing() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let mut queue = join(&broker).await?;
    submit(&broker, &task(&bag(), 0, ResultPath::Staged)).await?;
    let first = delivery(&mut queue).await?;
    first.nak(Duration::ZERO).await?;
    let live = delivery(&mut queue).await?;
    broker.nak_for(first.reply()).await?;
    assert_eq!(delivery(&mut queue).await?.delivered(), 3, "the second one is still at work");

    live.ack().await?;
    broker.flush().await?;
    broker.nak_for(first.reply()).await?;
    assert!(delivery_within(&mut queue, limits::PULL_EXPIRES).await?.is_none());
    Ok(())
}

async fn give_back(
    broker: &bagpress_broker::Broker,
    given: &Delivery,
    cause: Cause,
    planned: u32,
) -> Outcome {
    let delay = cause.give_back_delay(planned);
    let id = given.id();
    let mut record = AttemptRecord::new(id, given.delivered(), planned, cause, "W");
    record.reply = (!delay.is_zero()).then(|| given.reply().to_owned());
    broker.record_attempt(&id.bag, &record).await?;
    Ok(given.nak(delay).await?)
}

#[tokio::test]
async fn the_last_word_of_each_task_tells_how_long_it_waits() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    let mut queue = join(&broker).await?;
    let of = bag();
    for index in 0..3 {
        submit(&broker, &task(&of, index, ResultPath::Staged)).await?;
    }
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(delivery(&mut queue).await?);
    }
    give_back(&broker, &taken[0], Cause::Drain, 0).await?;
    give_back(&broker, &taken[1], Cause::GathererAbsent, 0).await?;
    give_back(&broker, &taken[1], Cause::GathererAbsent, 7).await?;
    give_back(&broker, &taken[2], Cause::TransferError, 0).await?;

    let mut words: Vec<LastGiveBack> = Vec::new();
    let next = broker.last_give_backs(&of, 0, |_, word| words.push(word)).await?;
    let word = |index: u32| words.iter().filter(move |w| w.record.index == index);
    assert_eq!(words.len(), 3, "{words:?}");
    assert_eq!(word(0).map(LastGiveBack::left).collect::<Vec<_>>(), [Duration::ZERO]);
    let left = word(1).next().map(LastGiveBack::left).unwrap_or_default();
    let delay = Cause::GathererAbsent.give_back_delay(7);
    assert!(left <= delay && left + LONG / 2 > delay, "{left:?}");
    assert!(word(2).all(|w| w.left() <= limits::GIVE_BACK_DELAY), "{words:?}");

    // From there on only what is new.
    give_back(&broker, &taken[2], Cause::Full, 0).await?;
    let mut news = Vec::new();
    let end =
        broker.last_give_backs(&of, next, |at, word| news.push((at, word.record.cause))).await?;
    assert_eq!(news, [(next, Cause::Full)]);
    assert_eq!(broker.last_give_backs(&of, end, |_, _| {}).await?, end);
    Ok(())
}
