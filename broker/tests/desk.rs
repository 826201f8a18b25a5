//! What a gatherer and a member of the queue group hear of each other, by a real server.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails says why")]

use std::time::Duration;

use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::ids::Pool;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{
    Broker, Desk, Heard, Holder, Membership, Offer, Offered, Presence, Role, Verdict, samples,
};

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

/// A member that has joined for so many offers, and has got the first of them.
async fn joined_for(
    members: usize,
    desk: &mut Desk,
    offers: &mut Membership,
    task: &bytes::Bytes,
) -> Offer {
    offers.enter(members).await.unwrap();
    loop {
        desk.offer(0, 1, task.clone()).await.unwrap();
        tokio::select! {
            offered = offers.receive() => match offered {
                Offered::Offer(offer) => return offer,
                other => panic!("{other:?}"),
            },
            heard = desk.next() => assert!(matches!(heard, Some(Heard::Nobody(0))), "{heard:?}"),
        }
    }
}

async fn desk_and_member(gatherer: &Broker, worker: &Broker) -> (Desk, Membership, bytes::Bytes) {
    let (bag, pool) = (samples::bag(), Pool::default());
    let holder = Holder { worker: "W".to_owned(), host: "h".to_owned(), pid: 1 };
    let offers = Membership::join(worker, &pool, holder).await.unwrap();
    let desk = Desk::open(gatherer, &bag, &pool).await.unwrap();
    (desk, offers, samples::task(&bag, 0, ResultPath::Staged).encode().into())
}

#[tokio::test]
async fn a_member_gets_as_many_offers_as_it_joined_for_and_says_how_many_more_it_takes() {
    let server = NatsServer::start().await;
    let (gatherer, worker) =
        (server.broker(Role::Producer).await, server.broker(Role::Worker).await);
    let (mut desk, mut offers, task) = desk_and_member(&gatherer, &worker).await;
    let first = joined_for(3, &mut desk, &mut offers, &task).await;
    assert_eq!(offers.members(), 2);
    first.take(7).await;
    let heard = desk.next().await.unwrap();
    assert!(matches!(&heard, Heard::Leased(0, lease, _) if lease.more == Some(7)), "{heard:?}");
    for number in 1..=4 {
        desk.offer(number, 1, task.clone()).await.unwrap();
    }
    for members in [1, 0] {
        let Offered::Offer(offer) = offers.receive().await else { panic!("no offer") };
        assert_eq!(offers.members(), members);
        offer.pass().await;
    }
    let (mut passed, mut nobody) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        match tokio::time::timeout(SOON, desk.next()).await.unwrap().unwrap() {
            Heard::Passed(number) => passed.push(number),
            Heard::Nobody(number) => nobody.push(number),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((passed, nobody), (vec![1, 2], vec![3, 4]));
}

#[tokio::test]
async fn a_member_that_leaves_passes_the_offers_that_have_come() {
    let server = NatsServer::start().await;
    let (gatherer, worker) =
        (server.broker(Role::Producer).await, server.broker(Role::Worker).await);
    let (mut desk, mut offers, task) = desk_and_member(&gatherer, &worker).await;
    joined_for(4, &mut desk, &mut offers, &task).await;
    for number in [1, 2] {
        desk.offer(number, 1, task.clone()).await.unwrap();
    }
    // An answer on each connection: behind it everything has come that was sent before.
    for broker in [&gatherer, &worker] {
        assert_eq!(broker.probe("nobody", SOON).await, Presence::Gone);
    }
    offers.leave().await;
    for number in [1, 2] {
        let heard = tokio::time::timeout(SOON, desk.next()).await.unwrap();
        assert!(matches!(heard, Some(Heard::Passed(passed)) if passed == number), "{heard:?}");
    }
}
