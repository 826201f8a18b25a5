//! A removal that was confirmed holds, also when the server is killed.

use bagpress_broker::ids::BagId;
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{BagLine, BagState, Broker, Role, samples};

const BAGS: usize = 16;
const REVISIONS: u32 = 4;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

async fn bags(broker: &Broker) -> Outcome<Vec<BagId>> {
    let mut bags = Vec::new();
    for _ in 0..BAGS {
        let (bag, mut revision) = (samples::bag(), 0);
        for done in 0..REVISIONS {
            let line = BagLine { done, ..samples::line(&bag, BagState::Running) };
            revision = broker.write_bag(&line, revision).await?.ok_or("somebody else writes")?;
        }
        bags.push(bag);
    }
    Ok(bags)
}

/// A server that was killed reads its files again: lines that were only purged came back, each in a revision
/// that a newer one had replaced.
#[tokio::test]
async fn lines_that_were_removed_stay_so_when_the_server_is_killed() {
    let mut server = NatsServer::start().await;
    let broker = server.broker(Role::Admin).await;
    let (stay, go) = (bags(&broker).await.unwrap(), bags(&broker).await.unwrap());
    server.kill_and_restart().await;
    for bag in &go {
        assert_eq!(broker.remove_bag(bag).await.unwrap(), 1);
    }
    server.kill_and_restart().await;
    for bag in &go {
        let found = broker.find_bag(bag).await.unwrap();
        assert!(found.removed && found.line.is_none(), "{found:?}");
        assert_eq!(broker.remove_bag(bag).await.unwrap(), 0, "there is none");
    }
    let mut left: Vec<_> = broker.bags().await.unwrap().into_iter().map(|l| l.bag).collect();
    left.sort_unstable();
    let mut stay = stay;
    stay.sort_unstable();
    assert_eq!(left, stay);
}
