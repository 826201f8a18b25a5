//! The broker's disk never fills: what may be stored is compared with the room that there is.

use std::path::Path;

use async_nats::jetstream;
use bagpress_broker::ids::Pool;
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{Address, Broker, Error, Role, Sizes};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[tokio::test]
async fn streams_that_could_outgrow_the_disk_are_refused_with_both_numbers() -> Outcome {
    let server = NatsServer::start().await;
    let broker = Broker::connect(&Address::plain(server.url()), Role::Admin).await?;
    let sizes = Sizes { max_file: Some(1 << 30), replicas: 1 };
    Box::pin(broker.ensure(&Pool::default(), sizes)).await?;
    let context = jetstream::new(async_nats::connect(server.url()).await?);
    let reserved = context.query_account().await?.reserved_storage;
    assert!(reserved > 0 && reserved <= 1 << 30, "{reserved}");

    let store = Path::new("some/store");
    broker.check_room(reserved, store).await?;
    let refused = broker.check_room(reserved - 1, store).await.unwrap_err();
    assert!(matches!(refused, Error::Full { .. }), "{refused}");
    let text = refused.to_string();
    for said in [reserved.to_string(), (reserved - 1).to_string(), store.display().to_string()] {
        assert!(text.contains(&said), "no {said} in: {text}");
    }
    Ok(())
}
