//! What the keys of the containers open, and what they do not. What each role may do is tested subject by subject where the
//! configuration is made; here it is the one that compose.yaml gives to its server.

use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions};
use bagpress_broker::ids::{Pool, TaskId};
use bagpress_broker::subjects;
use futures::StreamExt;
use futures::future::join_all;
use serde_json::Value;

use crate::cluster::{Cluster, docker};

/// The port that compose.yaml publishes, of the engine's own network.
const SERVER: &str = "nats://127.0.0.1:4222";
/// The volumes of keys that a service has, by its name.
const HAS: [(&str, &str); 4] =
    [("init", "admin"), ("worker", "worker"), ("producer", "producer"), ("observer", "observer")];

/// Somebody who talks to the server as a role does, by this seed.
async fn enter(role: &str, seed: Option<String>) -> Result<Client, ConnectError> {
    let options = seed.map_or_else(ConnectOptions::new, ConnectOptions::with_nkey);
    let options = options.custom_inbox_prefix(format!("_INBOX_{role}"));
    options.request_timeout(Some(Duration::from_secs(1))).connect(SERVER).await
}

/// The seed of a role, by the root of this machine.
fn seed(role: &str) -> String {
    let words = format!(
        "run --rm --user 0 --network none --volume bagpress_auth-{role}:/auth:ro --entrypoint cat bagpress /auth/{role}.nk"
    );
    docker(&words, &[]).expect_code(0).stdout.trim().to_owned()
}

fn seeds() -> Vec<String> {
    HAS.iter().map(|(_, role)| seed(role)).collect()
}

/// All that can be said of the streams and the durable, but the time, and how many requests of workers wait: these run out and
/// are made again.
async fn state(admin: &Client) -> Vec<Value> {
    let durable = subjects::durable(&Pool::default());
    let mut state = Vec::new();
    for stream in [subjects::TASKS, subjects::RESULTS, subjects::ATTEMPTS] {
        let of = |what: &str| format!("$JS.API.{what}");
        let mut asked = vec![of(&format!("STREAM.INFO.{stream}"))];
        if stream == subjects::TASKS {
            asked.push(of(&format!("CONSUMER.INFO.{stream}.{durable}")));
        }
        for subject in asked {
            let answer = admin.request(subject, "".into()).await.unwrap();
            let mut answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            let fields = answer.as_object_mut().unwrap();
            fields.remove("ts");
            fields.remove("num_waiting");
            state.push(answer);
        }
    }
    state
}

/// What `attacker` is answered to each of these.
async fn answers(attacker: &Client, subjects: &[String], payload: &str) -> Vec<Option<String>> {
    let ask = |subject: &String| attacker.request(subject.clone(), payload.to_owned().into());
    let answers = join_all(subjects.iter().map(ask)).await.into_iter();
    let text =
        |message: async_nats::Message| String::from_utf8_lossy(&message.payload).into_owned();
    answers.map(|answer| answer.ok().map(text)).collect()
}

#[tokio::test]
async fn without_a_key_of_theirs_nobody_gets_into_the_containers_server() {
    let _cluster = Cluster::up();
    let folder = tempfile::tempdir().unwrap();
    let mut bagpress = std::process::Command::new(env!("CARGO_BIN_EXE_bagpress"));
    let made = bagpress.args(["broker", "--auth", "auth"]).current_dir(folder.path()).output();
    assert!(made.unwrap().status.success());
    let foreign = std::fs::read_to_string(folder.path().join("auth/admin/admin.nk")).unwrap();
    for seed in [None, Some(foreign.trim().to_owned())] {
        let refused = enter("admin", seed).await.expect_err("somebody got in");
        assert_eq!(refused.kind(), ConnectErrorKind::AuthorizationViolation, "{refused}");
    }
    for role in HAS.map(|(_, role)| role) {
        enter(role, Some(seed(role))).await.unwrap_or_else(|error| panic!("{role}: {error}"));
    }
}

#[tokio::test]
async fn the_containers_workers_key_submits_no_task_and_harms_no_stream() {
    let _cluster = Cluster::up();
    let admin = enter("admin", Some(seed("admin"))).await.unwrap();
    let worker = enter("worker", Some(seed("worker"))).await.unwrap();
    let before = state(&admin).await;
    let task = TaskId { bag: "planted".parse().unwrap(), index: 0, round: 1 };
    let (tasks, results, workers) =
        (subjects::TASKS, subjects::RESULTS, subjects::durable(&Pool::default()));
    let attacks = [
        subjects::task(&Pool::default(), &task),
        format!("$JS.API.STREAM.PURGE.{tasks}"),
        format!("$JS.API.STREAM.DELETE.{results}"),
        format!("$JS.API.STREAM.UPDATE.{results}"),
        format!("$JS.API.CONSUMER.DELETE.{tasks}.{workers}"),
        format!("$JS.API.CONSUMER.CREATE.{tasks}"),
    ];
    assert_eq!(answers(&worker, &attacks, "{}").await, attacks.map(|_| None));
    assert_eq!(state(&admin).await, before);
}

#[tokio::test]
async fn the_containers_workers_key_reads_no_answer_to_somebody_else() {
    let cluster = Cluster::up();
    let worker = enter("worker", Some(seed("worker"))).await.unwrap();
    let mut heard = Vec::new();
    for subject in ["_INBOX_producer.>", "_INBOX_admin.>", "_INBOX.>", ">"] {
        heard.push(worker.subscribe(subject).await.unwrap());
    }
    worker.flush().await.unwrap();
    cluster.run_bag("objects");
    worker.drain().await.unwrap();
    for subscription in heard {
        let messages: Vec<_> = subscription.map(|message| message.subject).collect().await;
        assert!(messages.is_empty(), "{messages:?}");
    }
}

#[tokio::test]
async fn the_containers_observers_key_takes_no_task() {
    let cluster = Cluster::up();
    cluster.compose("stop worker").expect_code(0);
    let submit = "run --rm producer submit --tasks 3 --bytes 65536";
    cluster.compose(submit).expect_code(0);
    let admin = enter("admin", Some(seed("admin"))).await.unwrap();
    let observer = enter("observer", Some(seed("observer"))).await.unwrap();
    let before = state(&admin).await;
    assert_eq!(before[0]["state"]["messages"], 3, "{before:?}");
    let durable = subjects::durable(&Pool::default());
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{durable}", subjects::TASKS);
    assert_eq!(answers(&observer, &[next], r#"{"batch":1}"#).await, [None]);
    assert_eq!(state(&admin).await, before);
    // Nothing owns what waits there any more.
    cluster.compose("down --volumes").expect_code(0);
}

#[test]
fn each_container_reads_its_own_key_and_no_other() {
    let cluster = Cluster::up();
    let seeds = seeds();
    for (service, role) in HAS {
        let read = cluster.shell(service, "cat /auth/*/*.nk");
        let found: Vec<_> =
            HAS.iter().zip(&seeds).filter(|(_, seed)| read.contains(*seed)).collect();
        let roles: Vec<_> = found.iter().map(|((_, role), _)| *role).collect();
        assert_eq!(roles, [role], "{service}");
    }
    let server = cluster.compose("exec nats find /etc/bagpress -type f").expect_code(0).stdout;
    let mut server: Vec<_> = server.lines().collect();
    server.sort_unstable();
    assert_eq!(server, ["/etc/bagpress/auth/server/auth.conf", "/etc/bagpress/nats.conf"]);
}

#[test]
fn no_key_is_in_what_the_containers_are_given_or_say() {
    let cluster = Cluster::up();
    let seeds = seeds();
    let said = [
        cluster.compose("--profile observer config").expect_code(0).stdout,
        cluster.compose("logs --no-color").expect_code(0).stdout,
        format!("{:?}", cluster.containers()),
        docker("image inspect bagpress", &[]).expect_code(0).stdout,
        docker("image history --no-trunc bagpress", &[]).expect_code(0).stdout,
        docker("run --rm --user 0 --network none --entrypoint find bagpress /auth -type f", &[])
            .expect_code(0)
            .stdout,
    ];
    for text in said {
        assert!(!seeds.iter().any(|seed| text.contains(seed)), "a key is in {text}");
    }
}
