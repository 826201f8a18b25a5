//! Texts from strangers move no cursor and forge no line, wherever they are shown.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use async_nats::Client;
use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::{Cause, Failed, Outcome, Place as Stored};
use bagpress_broker::testing::eventually;
use bagpress_broker::{AttemptRecord, Gatherer, samples};
use futures::StreamExt;
use serde_json::json;

use crate::control::{bag_of, broker};
use crate::harness::{Ended, Place, SOON};

/// Forges a line, sets colours and a title, moves the cursor in two ways, and turns the direction of writing.
const EVIL: &str = "x\nerror: forged\r\u{1b}[31m\u{1b}]0;title\u{7}\u{9b}2J\u{8}\u{202e}y";

fn expect_harmless(ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        let moves = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
        assert!(!text.contains(moves), "{ended:#?}");
        assert!(!text.lines().any(|line| line.starts_with("error: forged")), "{ended:#?}");
    }
}

/// A worker that says what it is, and nothing else.
async fn played_worker(client: &Client) {
    let stats = json!({"host": EVIL, "pid": 1, "pool": EVIL, "slots": 1, "running": 1, "done": 1, "failed": 1,
        "input_bytes": u64::MAX, "output_bytes": u64::MAX, "codecs": [EVIL], "any_codec_version": false,
        "version": EVIL, "held": {}});
    let answer = json!({"name": "bag-worker", "id": EVIL, "version": "1.0.0",
        "endpoints": [{"name": "status", "subject": "x", "data": stats}]});
    let mut asked = client.subscribe("$SRV.STATS.bag-worker").await.unwrap();
    let client = client.clone();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let reply = message.reply.unwrap();
            client.publish(reply, answer.to_string().into()).await.unwrap();
        }
    });
}

#[tokio::test]
async fn words_of_workers_and_gatherers_move_no_cursor() {
    let (place, server) = Place::with_server().await;
    let at = format!("--server {}", server.url());
    let submit = "submit --tasks 2 --bytes 1KiB --results objects --name t";
    place.run(&format!("{submit} {at}")).await.with_code(0);
    let id = bag_of(&place, "t/objects");
    let broker = broker(&server).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    played_worker(&client).await;
    for index in 0..2 {
        let task = TaskId { bag: id.parse().unwrap(), index, round: 0 };
        let mut result = samples::done(&task, &Execution::random(), b"output", Stored::Staged);
        result.outcome = Outcome::Failed(Failed::new(Cause::CodecError, EVIL));
        (result.worker, result.host) = (EVIL.to_owned(), EVIL.to_owned());
        let mut record = AttemptRecord::new(&task, 1, 0, Cause::TransferError, EVIL);
        (record.message, record.host) = (EVIL.to_owned(), EVIL.to_owned());
        broker.record_attempt(&task.bag, &record).await.unwrap();
        broker.commit(&result).await.unwrap();
    }
    let found = broker.find_bag(&id.parse().unwrap()).await.unwrap();
    let mut line = found.line.unwrap();
    (line.codec, line.library) = (EVIL.to_owned(), EVIL.to_owned());
    line.waits = Some(EVIL.to_owned());
    let (id_of, host, lock) = (EVIL.to_owned(), EVIL.to_owned(), EVIL.to_owned());
    let processes = EVIL.to_owned();
    line.gatherer = Some(Gatherer { id: id_of, host, pid: 1, since_us: 1, lock, processes });
    broker.write_bag(&line, found.revision).await.unwrap().unwrap();

    let mut shown = Vec::new();
    let looks = ["", &id, &format!("{id} 0"), &format!("{id} --failed")].map(str::to_owned);
    for words in &looks {
        for json in ["", "--json"] {
            let ended = place.run(&format!("status {words} {json} {at}")).await.with_code(0);
            expect_harmless(&ended);
            shown.push(ended.stdout);
        }
    }
    assert!(shown[0].contains(r"x\nerror: forged\r\u{1b}[31m"), "{shown:#?}");
    // For scripts they are what they are.
    let overview: serde_json::Value = serde_json::from_str(&shown[1]).unwrap();
    assert_eq!(overview["workers"][0]["host"], EVIL);
    let verbs = [
        ("gather runs/t/objects", 1),
        ("gather runs/t/objects --json -q --retry-failed --deadline 1s", 4),
        ("status runs/t/objects", 0),
        ("status runs/t/objects 0", 0),
        ("status runs/t/objects --failed", 0),
        ("status runs/t/objects --failed --json", 0),
        ("verify runs/t/objects", 1),
        ("cancel runs/t/objects", 0),
        ("cancel runs/t/objects --json", 0),
        ("rm --orphans --dry-run", 0),
        ("rm runs/t/objects", 0),
    ];
    for (verb, code) in verbs {
        let offline = ["--failed", "--dry-run"].iter().any(|flag| verb.contains(flag));
        let words = if offline { verb.to_owned() } else { format!("{verb} {at}") };
        expect_harmless(&place.run(&words).await.with_code(code));
    }
}

/// Offers and answers of somebody who plays a gatherer, on the stderr of a worker that has no log.
#[tokio::test]
async fn words_of_a_gatherer_move_no_cursor_at_a_worker() {
    let (place, server) = Place::with_server().await;
    let mut worker = place.bagpress(&format!("worker --slots 1 --server {}", server.url()));
    worker.env("BAGPRESS_LOG", "debug");
    let worker = place.start(worker);
    let client = async_nats::connect(server.url()).await.unwrap();
    let bag = samples::bag();
    let task = samples::task(&bag, 0, bagpress_broker::descriptor::ResultPath::Staged);
    let mut opened = client.subscribe(format!("bag.up.{bag}.open")).await.unwrap();
    // No descriptor at all, and one of a codec that a later version may have.
    for junk in [json!({"v": 1, "bag": EVIL}), json!({"v": 1, "bag": EVIL, "codec": EVIL})] {
        let refused = eventually("a member takes the offer", SOON, async || {
            client.request("bag.run.default", junk.to_string().into()).await.ok()
        });
        assert!(refused.await.payload.starts_with(b"{\"refused\""));
    }
    eventually("a member takes the offer", SOON, async || {
        client.request("bag.run.default", task.encode().into()).await.ok()
    })
    .await;
    let asked = tokio::time::timeout(SOON, opened.next()).await.unwrap().unwrap();
    let refused = json!({"refused": {"cause": "input-missing", "message": EVIL}});
    client.publish(asked.reply.unwrap(), refused.to_string().into()).await.unwrap();
    place
        .until("it says so", || {
            let said = worker.stderr();
            let lines = said.lines().filter(|line| line.contains("forged")).count();
            (lines >= 2).then_some(())
        })
        .await;
    worker.signal(rustix::process::Signal::TERM);
    expect_harmless(&worker.ended(&place).await);
}

/// A server that says such words to whoever connects.
#[tokio::test]
async fn words_of_a_server_move_no_cursor() {
    let place = Place::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let info = json!({"server_id": EVIL, "server_name": EVIL, "version": EVIL, "proto": 1, "go": EVIL,
                "host": EVIL, "port": 1, "headers": true, "max_payload": 1 << 20, "jetstream": true});
            write!(stream, "INFO {info}\r\n-ERR 'Authorization {}'\r\n", EVIL.replace('\n', " "))
                .ok();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(line)) = lines.next() {
                if line.starts_with("PING") {
                    write!(stream, "PONG\r\n").ok();
                }
            }
        }
    });
    for verb in ["status", "run --tasks 1 --name t", "submit --tasks 1 --name t", "broker --init"] {
        let wait = if verb.starts_with("broker") { "" } else { "--connect-timeout 1s" };
        let ended = place.run(&format!("{verb} {wait} --server {url}")).await;
        assert_ne!(ended.code, Some(0), "{ended:?}");
        expect_harmless(&ended);
    }
}
