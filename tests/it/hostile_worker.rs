//! Claims of a hostile worker are believed only as far as there are bytes for them.

use std::io::Write;

use async_nats::HeaderMap;
use async_nats::jetstream;
use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::{Cause, Failed, Outcome, Place as Stored, TaskResult};
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{limits, samples, subjects};
use bagpress_codec::Digest;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};

use crate::control::{bag_of, broker, context};
use crate::harness::{Place, SOON};
use crate::ledger::{expect_each_done_once, outcomes};

const BYTES: u64 = 64 * 1024;
const BAG: &str = "--tasks 2 --bytes 64KiB --data text --name t";

/// A bag that waits for workers, and where it is.
struct Waiting {
    place: Place,
    server: NatsServer,
    results: &'static str,
    bag: String,
}

impl Waiting {
    async fn submitted(results: &'static str, more: &str) -> Self {
        let (place, server) = Place::with_server().await;
        let submit = format!("submit {BAG} --results {results} {more} --server {}", server.url());
        place.run(&submit).await.with_code(0);
        let bag = bag_of(&place, &format!("t/{results}"));
        Self { place, server, results, bag }
    }

    fn id(&self, index: u32) -> TaskId {
        TaskId { bag: self.bag.parse().unwrap(), index, round: 0 }
    }

    /// A result of a task that was done with this output, which is at this place.
    fn done(&self, index: u32, output: &[u8], place: Stored) -> TaskResult {
        let mut result = samples::done(&self.id(index), &Execution::random(), output, place);
        if let Outcome::Done(done) = &mut result.outcome {
            (done.input_bytes, done.input_digest) = (BYTES, Digest::of(b"whatever"));
        }
        result
    }

    fn object(&self, name: &str) -> Stored {
        let bucket = subjects::bucket(&self.bag.parse().unwrap());
        Stored::Object { bucket, object: name.to_owned(), chunks: 1 }
    }

    async fn publish(&self, subject: String, payload: Vec<u8>) {
        let context = context(&self.server).await;
        context.publish(subject, payload.into()).await.unwrap().await.unwrap();
    }

    /// Gathers with an honest worker; the bag comes to its end, and everything is what it should be.
    async fn expect_all_done(&self) {
        let Self { place, server, results, .. } = self;
        let _worker = place.worker(server);
        let at = format!("--server {}", server.url());
        let gathered = place.run(&format!("gather runs/t/{results} -q {at}")).await;
        gathered.with_code(0);
        let folder = place.folder(&format!("t/{results}"));
        expect_each_done_once(&folder, 2);
        place.run(&format!("verify runs/t/{results} --inputs {at}")).await.with_code(0);
    }

    async fn tasks_left(&self) -> u64 {
        let stream = context(&self.server).await.get_stream(subjects::TASKS).await.unwrap();
        stream.cached_info().state.messages
    }
}

#[tokio::test]
async fn a_staged_task_that_was_done_nowhere_is_not_counted() {
    let waiting = Waiting::submitted("staged", "").await;
    let broker = broker(&waiting.server).await;
    let object = waiting.object("out_1.bin");
    for result in [waiting.done(0, b"", Stored::Nothing), waiting.done(1, b"x", object)] {
        broker.commit(&result).await.unwrap();
    }
    waiting.expect_all_done().await;
    let rounds: Vec<_> = outcomes(&waiting.place.folder("t/staged"));
    assert!(rounds.iter().all(|outcome| outcome["round"] == 1), "{rounds:?}");
}

#[tokio::test]
async fn a_task_of_objects_that_was_done_elsewhere_is_not_counted() {
    let waiting = Waiting::submitted("objects", "").await;
    let broker = broker(&waiting.server).await;
    let other = waiting.object("out_7.bin");
    let bucket = jetstream::new(async_nats::connect(waiting.server.url()).await.unwrap());
    let bucket = bucket.get_object_store(&format!("bag-{}", waiting.bag)).await.unwrap();
    bucket.put("out_7.bin", &mut &b"x"[..]).await.unwrap();
    for result in [waiting.done(0, b"x", Stored::Staged), waiting.done(1, b"x", other)] {
        broker.commit(&result).await.unwrap();
    }
    waiting.expect_all_done().await;
}

#[tokio::test]
async fn an_object_that_was_planted_gives_way_to_the_output() {
    for delivery in ["jetstream", "queue-group"] {
        let waiting = Waiting::submitted("objects", &format!("--delivery {delivery}")).await;
        let at = format!("--server {}", waiting.server.url());
        let gather = waiting.place.spawn(&format!("gather runs/t/objects -q {at}"));
        let context = context(&waiting.server).await;
        let name = format!("bag-{}", waiting.bag);
        let bucket = bagpress_broker::testing::eventually("there is a bucket", SOON, async || {
            context.get_object_store(&name).await.ok()
        })
        .await;
        bucket.put("out_0.bin", &mut &b"planted"[..]).await.unwrap();
        let _worker = waiting.place.worker(&waiting.server);
        gather.ended(&waiting.place).await.with_code(0);
        expect_each_done_once(&waiting.place.folder("t/objects"), 2);
        waiting.place.run(&format!("verify runs/t/objects --inputs {at}")).await.with_code(0);
        // Nothing but the outputs has a name.
        let mut list = bucket.list().await.unwrap();
        let mut names = Vec::new();
        while let Some(object) = futures::StreamExt::next(&mut list).await {
            names.push(object.unwrap().name);
        }
        names.sort();
        assert_eq!(names, ["out_0.bin", "out_1.bin"]);
    }
}

#[tokio::test]
async fn an_outcome_that_is_handed_over_without_bytes_is_not_counted() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let run = place.spawn(&format!("run {BAG} -q --delivery queue-group {at}"));
    crate::control::until_there(&place, "t/staged").await;
    let bag = bag_of(&place, "t/staged");
    let waiting = Waiting { place, server, results: "staged", bag };
    let client = async_nats::connect(waiting.server.url()).await.unwrap();
    let subject = format!("bag.lease.{}.outcome", waiting.bag);
    for place in [Stored::Nothing, Stored::Staged, waiting.object("out_0.bin")] {
        let payload = waiting.done(0, b"x", place).encode();
        let answer = bagpress_broker::testing::eventually("somebody gathers", SOON, async || {
            client.request(subject.clone(), payload.clone().into()).await.ok()
        });
        assert_eq!(answer.await.payload, r#""withdrawn""#);
    }
    let _worker = waiting.place.worker(&waiting.server);
    run.ended(&waiting.place).await.with_code(0);
    expect_each_done_once(&waiting.place.folder("t/staged"), 2);
    waiting.place.run("verify runs/t/staged --inputs").await.with_code(0);
}

/// Uploads an output as a worker does, and returns whose it is.
async fn upload(waiting: &Waiting, index: u32, output: &[u8], close: bool) -> Execution {
    let client = async_nats::connect(waiting.server.url()).await.unwrap();
    let execution = Execution::random();
    let up = format!("bag.up.{}", waiting.bag);
    let open = json!({"v": 1, "index": index, "round": 0, "execution": execution, "by_path": null});
    let opened = client.request(format!("{up}.open"), open.to_string().into()).await.unwrap();
    assert!(opened.payload.starts_with(br#"{"go""#), "{opened:?}");
    if !close {
        // A chunk, and no CLOSE: its bytes are there, and nobody has looked at them.
        let mut headers = HeaderMap::new();
        headers.insert("Bag-Offset", "0");
        let subject = format!("{up}.x.{index}_0-{execution}");
        let chunk = client.request_with_headers(subject, headers, output.to_vec().into()).await;
        let answer: Value = serde_json::from_slice(&chunk.unwrap().payload).unwrap();
        assert_eq!(answer["next"]["offset"], output.len());
        return execution;
    }
    let mut headers = HeaderMap::new();
    let digest = Digest::of(output).to_string();
    let said = json!({"v": 1, "index": index, "round": 0, "execution": execution,
        "bytes": output.len(), "digest": digest, "came": "inline"});
    headers.insert("Bag-Close", said.to_string());
    let closed =
        client.request_with_headers(format!("{up}.close"), headers, output.to_vec().into());
    assert_eq!(closed.await.unwrap().payload, r#""durable""#);
    execution
}

fn zlib(input: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(input).unwrap();
    encoder.finish().unwrap()
}

/// The result of a worker that made an output from something else, and says so consistently.
fn forged(waiting: &Waiting, index: u32, input: &[u8], place: Stored) -> TaskResult {
    let mut result = waiting.done(index, &zlib(input), place);
    if let Outcome::Done(done) = &mut result.outcome {
        (done.input_bytes, done.input_digest) = (input.len() as u64, Digest::of(input));
    }
    result
}

async fn until_gathered(waiting: &Waiting) {
    let client = async_nats::connect(waiting.server.url()).await.unwrap();
    let open = format!("bag.up.{}.open", waiting.bag);
    bagpress_broker::testing::eventually("somebody gathers", SOON, async || {
        client.request(open.clone(), "".into()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn an_output_that_was_begun_and_never_closed_is_not_counted() {
    let waiting = Waiting::submitted("staged", "").await;
    let at = format!("--server {}", waiting.server.url());
    let gather = waiting.place.spawn(&format!("gather runs/t/staged -q {at}"));
    until_gathered(&waiting).await;
    let execution = upload(&waiting, 0, b"half of it", false).await;
    let said = waiting.done(0, b"half of i!", Stored::Staged);
    broker(&waiting.server).await.commit(&TaskResult { execution, ..said }).await.unwrap();
    let _worker = waiting.place.worker(&waiting.server);
    gather.ended(&waiting.place).await.with_code(0);
    expect_each_done_once(&waiting.place.folder("t/staged"), 2);
    waiting.place.run("verify runs/t/staged --inputs").await.with_code(0);
}

#[tokio::test]
async fn a_consistent_forgery_is_found_by_its_input() {
    let waiting = Waiting::submitted("staged", "").await;
    let at = format!("--server {}", waiting.server.url());
    let gather = waiting.place.spawn(&format!("gather runs/t/staged -q {at}"));
    until_gathered(&waiting).await;
    let input = vec![b'!'; usize::try_from(BYTES).unwrap()];
    let result = forged(&waiting, 0, &input, Stored::Staged);
    let execution = upload(&waiting, 0, &zlib(&input), true).await;
    broker(&waiting.server).await.commit(&TaskResult { execution, ..result }).await.unwrap();
    let _worker = waiting.place.worker(&waiting.server);
    gather.ended(&waiting.place).await.with_code(0);

    // Without its input nobody can tell.
    waiting.place.run("verify runs/t/staged").await.with_code(0);
    let found = waiting.place.run("verify runs/t/staged --inputs").await.with_code(1);
    assert!(found.stdout.contains("not of its input: "), "{found:?}");
    assert!(found.stdout.contains("out_0.bin"), "{found:?}");
    assert!(!found.stdout.contains("out_1.bin"), "{found:?}");
    let json = waiting.place.run("verify runs/t/staged --inputs --json").await.with_code(1);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["good"], json["bad"].as_array().map(Vec::len)), (&json!(1), Some(0)));
    assert_eq!(json["not_of_input"].as_array().map(Vec::len), Some(1), "{json}");

    // As the hint says: once it is gone it is made again, by an honest worker.
    std::fs::remove_file(waiting.place.folder("t/staged/results/out_0.bin")).unwrap();
    let repair = format!("gather runs/t/staged --repair -q {at}");
    waiting.place.run(&repair).await.with_code(0);
    waiting.place.run("verify runs/t/staged --inputs").await.with_code(0);
}

#[tokio::test]
async fn a_consistent_forgery_of_an_object_is_found_by_its_input() {
    let waiting = Waiting::submitted("objects", "").await;
    let input = vec![b'!'; usize::try_from(BYTES).unwrap()];
    let bucket = context(&waiting.server).await;
    let bucket = bucket.get_object_store(&format!("bag-{}", waiting.bag)).await.unwrap();
    bucket.put("out_0.bin", &mut &zlib(&input)[..]).await.unwrap();
    let result = forged(&waiting, 0, &input, waiting.object("out_0.bin"));
    broker(&waiting.server).await.commit(&result).await.unwrap();
    let at = format!("--server {}", waiting.server.url());
    let _worker = waiting.place.worker(&waiting.server);
    waiting.place.run(&format!("gather runs/t/objects -q {at}")).await.with_code(0);
    waiting.place.run(&format!("verify runs/t/objects {at}")).await.with_code(0);
    let found = waiting.place.run(&format!("verify runs/t/objects --inputs {at}")).await;
    let found = found.with_code(1);
    assert!(found.stdout.contains("not of its input: "), "{found:?}");
    assert!(found.stdout.contains("out_0.bin"), "{found:?}");
}

#[tokio::test]
async fn a_source_that_changed_is_told_apart_from_a_forgery() {
    let place = Place::new().await;
    std::fs::create_dir(place.path("in")).unwrap();
    for name in ["same", "changed", "gone"] {
        std::fs::write(place.path("in").join(name), name).unwrap();
    }
    for results in ["staged", "objects"] {
        let words = format!("run in --out {results} --name {results} --results {results} -q");
        place.run(&format!("{words} --workers 1")).await.with_code(0);
        let verify = format!("verify runs/{results}/{results} --inputs");
        let all = place.run(&verify).await.with_code(0);
        assert!(all.stdout.starts_with("3 good, 0 bad"), "{all:?}");
    }
    std::fs::write(place.path("in/changed"), "other bytes").unwrap();
    std::fs::remove_file(place.path("in/gone")).unwrap();
    for results in ["staged", "objects"] {
        let verify = format!("verify runs/{results}/{results}");
        place.run(&verify).await.with_code(0);
        let found = place.run(&format!("{verify} --inputs")).await.with_code(1);
        let lines: Vec<_> = found.stdout.lines().collect();
        assert!(
            lines[0].starts_with("not compared: ") && lines[0].contains("changed"),
            "{found:?}"
        );
        assert!(lines[1].starts_with("not compared: ") && lines[1].contains("gone"), "{found:?}");
        assert!(lines[2].contains("0 not of their input, 2 not compared"), "{found:?}");
        assert!(found.stderr.contains("cannot be compared"), "{found:?}");
        assert!(!found.stderr.contains("--repair"), "{found:?}");
    }
}

#[tokio::test]
async fn rounds_that_nobody_began_and_numbers_that_cannot_be_are_not_believed() {
    for results in ["staged", "objects"] {
        let waiting = Waiting::submitted(results, "").await;
        let failed = || Outcome::Failed(Failed::new(Cause::CodecError, "it is said to be broken"));
        for round in [1, 5, limits::ROUND_MAX, limits::ROUND_MAX + 1, u32::MAX] {
            let id = TaskId { round, ..waiting.id(0) };
            let mut result = samples::done(&id, &Execution::random(), b"x", Stored::Nothing);
            result.outcome = failed();
            waiting.publish(subjects::result(&id), result.encode()).await;
        }
        let said = waiting.done(1, b"x", Stored::Nothing);
        let said = String::from_utf8(said.encode()).unwrap();
        let max = u64::MAX.to_string();
        let huge = said
            .replace(r#""input_bytes":65536"#, &format!(r#""input_bytes":{max}"#))
            .replace(r#""output_bytes":1"#, &format!(r#""output_bytes":{max}"#))
            .replace(r#""queue_us":0"#, &format!(r#""queue_us":{max}"#))
            .replace(r#""place":"nothing""#, r#""place":"staged""#);
        assert_eq!(huge.matches(&max).count(), 3);
        waiting.publish(subjects::result(&waiting.id(1)), huge.into()).await;
        waiting.expect_all_done().await;
        let folder = waiting.place.folder(&format!("t/{results}"));
        let summary = std::fs::read(folder.join("summary.json")).unwrap();
        let summary: Value = serde_json::from_slice(&summary).unwrap();
        assert_eq!(summary["input_bytes"], 2 * BYTES, "{summary}");
        let rounds: Vec<_> = outcomes(&folder).iter().map(|o| o["round"].clone()).collect();
        assert!(rounds.iter().all(|round| round.as_u64() <= Some(1)), "{rounds:?}");
    }
}

#[tokio::test]
async fn a_result_that_nobody_can_read_leaves_no_task_in_the_queue() {
    let waiting = Waiting::submitted("objects", "").await;
    let later = br#"{"v":2,"of":"a later version"}"#.to_vec();
    for (index, junk) in [(0, b"junk".to_vec()), (1, later)] {
        waiting.publish(subjects::result(&waiting.id(index)), junk).await;
    }
    assert_eq!(waiting.tasks_left().await, 2);
    let worker = waiting.place.worker(&waiting.server);
    // Nobody gathers: only a worker can end them.
    bagpress_broker::testing::eventually("the queue is empty", SOON, async || {
        (waiting.tasks_left().await == 0).then_some(())
    })
    .await;
    drop(worker);
    waiting.expect_all_done().await;
    assert_eq!(waiting.tasks_left().await, 0);
}

/// Somebody who answers what a gatherer is asked.
#[tokio::test]
async fn the_outcome_of_another_task_is_no_answer_and_is_not_committed() {
    use futures::StreamExt;
    let waiting = Waiting::submitted("staged", "--attempts 2").await;
    let client = async_nats::connect(waiting.server.url()).await.unwrap();
    let mut asked = client.subscribe(format!("bag.up.{}.open", waiting.bag)).await.unwrap();
    client.flush().await.unwrap();
    let other = TaskId { bag: samples::bag(), index: 0, round: 0 };
    let lies = [
        samples::done(&other, &Execution::random(), b"x", Stored::Staged),
        samples::done(&waiting.id(7), &Execution::random(), b"x", Stored::Staged),
        samples::done(&waiting.id(0), &Execution::random(), b"x", Stored::Nothing),
    ];
    let answering = tokio::spawn(async move {
        for lie in lies.iter().cycle() {
            let Some(message) = asked.next().await else { return };
            let Some(reply) = message.reply else { continue };
            let answer = json!({ "have-it": serde_json::to_value(lie).unwrap() }).to_string();
            client.publish(reply, answer.into()).await.unwrap();
        }
    });
    let _worker = waiting.place.worker(&waiting.server);
    bagpress_broker::testing::eventually("both tasks have an outcome", SOON, async || {
        (waiting.tasks_left().await == 0).then_some(())
    })
    .await;
    answering.abort();
    let stream = context(&waiting.server).await.get_stream(subjects::RESULTS).await.unwrap();
    let mut found = std::collections::BTreeMap::new();
    let mut subjects_of = stream.info_with_subjects(">").await.unwrap();
    while let Some(subject) = futures::TryStreamExt::try_next(&mut subjects_of).await.unwrap() {
        found.insert(subject.0, subject.1);
    }
    let own = [0, 1].map(|index| (subjects::result(&waiting.id(index)), 1));
    assert_eq!(found, own.into());
    // What they have is what an honest worker says of such answers.
    let result = broker(&waiting.server).await.committed(&waiting.id(1)).await.unwrap().unwrap();
    let Outcome::Failed(failed) = result.outcome else { panic!("it was believed: {result:?}") };
    assert_eq!(failed.cause, Cause::TransferError);
    assert!(failed.message.contains("was not asked for"), "{failed:?}");
}
