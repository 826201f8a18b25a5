//! How many offers a worker takes at a time, by a real server and a gatherer that is played by hand.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails says why")]

use std::time::Duration;

use bagpress_broker::descriptor::{DeliveryPath, Input, ResultPath, TaskDescriptor};
use bagpress_broker::ids::{BagId, Pool};
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{Address, Broker, Desk, Heard, Role, Verdict, samples};
use bagpress_codec::DataKind;
use bagpress_consumer::Options;
use bagpress_objstore::staging::Allowed;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_mins(1);
const SHORT: u64 = 0;
/// Takes minutes.
const LONG: u64 = 1 << 40;

fn worker(server: &NatsServer) -> Options {
    Options {
        address: Address::plain(server.url()),
        slots: 1,
        pool: Pool::default(),
        delivery: Some(DeliveryPath::QueueGroup),
        allowed: Allowed::default(),
        idle_exit: None,
        time_limit: None,
        any_codec_version: false,
    }
}

fn task(bag: &BagId, index: u64, bytes: u64) -> Bytes {
    let input = Input::Generate { data: DataKind::Zeros, seed: 0, bytes };
    let codec: bagpress_codec::Codec = "noop".parse().unwrap();
    let library = codec.library();
    let index = u32::try_from(index).unwrap();
    let task = samples::task(bag, index, ResultPath::Objects);
    TaskDescriptor { input, codec, library, ..task }.encode().into()
}

async fn desk(gatherer: &Broker, bag: &BagId) -> Desk {
    Desk::open(gatherer, bag, &Pool::default()).await.unwrap()
}

async fn next(desk: &mut Desk) -> Heard {
    tokio::time::timeout(SOON, desk.next()).await.unwrap().unwrap()
}

/// Offers short tasks, one after the other, until the worker would take `most` more; then it has their outcomes counted.
async fn until_it_takes(most: u32, desk: &mut Desk, bag: &BagId) {
    let (mut taken, mut counted) = (0, 0);
    let mut is_over = false;
    while !is_over || counted < taken {
        if !is_over {
            desk.offer(taken, 1, task(bag, taken, SHORT)).await.unwrap();
        }
        loop {
            match next(desk).await {
                Heard::Leased(_, lease, _) => {
                    taken += 1;
                    is_over = lease.more >= Some(most);
                }
                Heard::Outcome(result, reply) => {
                    assert!(result.done().is_some(), "{result:?}");
                    counted += 1;
                    reply.answer(&Verdict::Counted).await;
                }
                // It has not begun, or is no member for a moment.
                Heard::Nobody(_) | Heard::Passed(_) => {}
                other => panic!("{other:?}"),
            }
            if counted == taken {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_tasks_are_taken_in_numbers_and_of_a_bag_that_is_new_an_idle_slot_takes_one() {
    let server = NatsServer::start().await;
    let gatherer = server.broker(Role::Producer).await;
    let running = bagpress_consumer::run(worker(&server), CancellationToken::new());
    let running = tokio::spawn(Box::pin(running));
    let (short, long) = (samples::bag(), samples::bag());
    let mut desk_of_short = desk(&gatherer, &short).await;
    let short_enough = until_it_takes(8, &mut desk_of_short, &short);
    tokio::time::timeout(SOON, short_enough).await.unwrap();

    let mut desk_of_long = desk(&gatherer, &long).await;
    for number in 0..4 {
        desk_of_long.offer(number, 1, task(&long, number, LONG)).await.unwrap();
    }
    // Two subscriptions may bring them in another order.
    let (mut leased, mut passed) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        match next(&mut desk_of_long).await {
            Heard::Leased(number, lease, _) => leased.push((number, lease.more)),
            Heard::Passed(number) => passed.push(number),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(leased[..], [(_, Some(0))]), "{leased:?}");
    assert_eq!(passed.len(), 3);
    running.abort();
}
