//! A gatherer receives the messages about a lease in the order in which its worker sent them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails says why")]

use std::time::Duration;

use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::Pool;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{Desk, Heard, Holder, Membership, Offered, Role, Verdict, samples};

const TIMES: u32 = 200;
const SOON: Duration = Duration::from_mins(1);

/// A worker that gives everything back at once, as one with another codec version does.
async fn give_back_everything(mut offers: Membership) {
    loop {
        while offers.members() < 4 {
            offers.enter(1).await.unwrap();
        }
        if let Offered::Offer(offer) = offers.receive().await {
            offer.take(0).await;
            let failed = Failed::new(Cause::CodecVersion, "another");
            tokio::spawn(async move { offer.give_back(failed).await });
        }
    }
}

/// Were it heard the other way round, the lease would be kept for a worker that knows nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_heard_of_before_it_is_given_back() {
    let server = NatsServer::start().await;
    let (gatherer, worker) =
        (server.broker(Role::Producer).await, server.broker(Role::Worker).await);
    let (bag, pool) = (samples::bag(), Pool::default());
    let holder = Holder { worker: "W".to_owned(), host: "h".to_owned(), pid: 1 };
    let offers = Membership::join(&worker, &pool, holder).await.unwrap();
    let giving_back = tokio::spawn(give_back_everything(offers));
    let mut desk = Desk::open(&gatherer, &bag, &pool).await.unwrap();
    let hearing = async {
        for index in 0..TIMES {
            let task = samples::task(&bag, index, ResultPath::Staged).encode();
            let mut leased = false;
            desk.offer(index.into(), 1, task.clone().into()).await.unwrap();
            loop {
                // So that both are there when it listens.
                tokio::task::yield_now().await;
                match desk.next().await.unwrap() {
                    Heard::Leased(..) => leased = true,
                    Heard::GivenBack(back, reply) => {
                        assert!(
                            leased,
                            "task {} was given back before it was leased",
                            back.lease.index
                        );
                        reply.answer(&Verdict::Withdrawn).await;
                        break;
                    }
                    // Nobody is a member yet.
                    Heard::Nobody(_) => {
                        desk.offer(index.into(), 1, task.clone().into()).await.unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    };
    tokio::time::timeout(SOON, hearing).await.unwrap();
    giving_back.abort();
}
