//! A message that nobody can ever get again, as `max_deliver` makes one, does not come about.

use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::Pool;
use bagpress_broker::samples::{bag, delivery, join, submit, task};
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{Error, Role, subjects};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[tokio::test]
async fn no_number_of_give_backs_takes_a_task_out_of_reach() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Worker).await;
    submit(&broker, &task(&bag(), 0, ResultPath::Staged)).await?;
    let mut queue = join(&broker).await?;
    for delivered in 1..=100 {
        let again = delivery(&mut queue).await?;
        assert_eq!(again.delivered(), delivered);
        again.nak(Duration::ZERO).await?;
    }
    delivery(&mut queue).await?.ack().await?;
    broker.flush().await?;
    Ok(())
}

#[tokio::test]
async fn a_durable_that_gives_up_on_tasks_is_refused() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Admin).await;
    let context = broker.jetstream();
    let durable: Consumer<pull::Config> =
        context.get_consumer_from_stream("workers", subjects::TASKS).await?;
    let mut config = durable.cached_info().config.clone();
    config.max_deliver = 3;
    context.delete_consumer_from_stream("workers", subjects::TASKS).await?;
    context.get_stream(subjects::TASKS).await?.create_consumer(config).await?;

    let unfit = broker.require(&Pool::default()).await.unwrap_err();

    let Error::Unfit { field, found, .. } = &unfit else { return Err(unfit.into()) };
    assert_eq!((*field, found.as_str()), ("max_deliver", "3"));
    Ok(())
}
