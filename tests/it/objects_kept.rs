//! What is known of an object by its name outlives a repair, and what cannot be known is not replaced.

use async_nats::jetstream::object_store::ObjectInfo;
use bagpress_broker::testing::NatsServer;

use crate::control::context;
use crate::harness::Place;
use crate::objects::{about, answers, at, put};

const NAME: &str = "obj://objects/n";

/// The metadata of an object, as it is stored.
async fn metadata(server: &NatsServer, name: &str) -> (String, ObjectInfo) {
    let stream = context(server).await.get_stream("OBJ_objects").await.unwrap();
    let subject = format!("$O.objects.M.{}", data_encoding::BASE64URL.encode(name.as_bytes()));
    let message = stream.get_last_raw_message_by_subject(&subject).await.unwrap();
    (subject, serde_json::from_slice(&message.payload).unwrap())
}

#[tokio::test]
async fn a_pin_outlives_the_repair_of_its_object() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    put(&place, &at, "n", b"bytes").await.with_code(0);
    place.run(&format!("object pin {NAME} --as mine {at}")).await.with_code(0);
    let (_, info) = metadata(&server, "n").await;
    let stream = context(&server).await.get_stream("OBJ_objects").await.unwrap();
    stream.purge().filter(format!("$O.objects.C.{}", info.nuid)).await.unwrap();
    put(&place, &at, "n", b"bytes").await.with_code(0);
    let found = answers(&place.run(&format!("object info {NAME} {at} --json")).await.with_code(0));
    assert_eq!(about(&found, NAME)["pins"][0]["name"], "mine", "{found:?}");
    let refused = place.run(&format!("object free {NAME} {at}")).await.with_code(1);
    assert!(refused.stdout.contains("pinned as \"mine\""), "{refused:?}");
}

#[tokio::test]
async fn what_cannot_be_read_stands_for_something_and_is_not_replaced() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    put(&place, &at, "other", b"makes the bucket").await.with_code(0);
    put(&place, &at, "n", b"theirs").await.with_code(0);
    let (subject, mut info) = metadata(&server, "n").await;
    info.digest = Some("MD5=unknown".to_owned());
    let payload = serde_json::to_vec(&info).unwrap();
    let theirs = context(&server).await;
    theirs.publish(subject, payload.into()).await.unwrap().await.unwrap();
    let refused = put(&place, &at, "n", b"ours").await.with_code(1);
    assert_eq!(about(&answers(&refused), NAME)["state"], "unreadable", "{refused:?}");
    assert_eq!(metadata(&server, "n").await.1.nuid, info.nuid);
}

#[tokio::test]
async fn an_object_that_expires_is_none_for_who_wants_one_that_stays() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    put(&place, &format!("{at} --ttl 1h"), "n", b"bytes").await.with_code(0);
    let refused = put(&place, &at, "n", b"bytes").await.with_code(1);
    assert!(refused.stdout.contains("but expires"), "{refused:?}");
    put(&place, &at, "stays", b"bytes").await.with_code(0);
    let refused = put(&place, &format!("{at} --ttl 1h"), "stays", b"bytes").await.with_code(1);
    assert!(refused.stdout.contains("does not expire"), "{refused:?}");
}

#[tokio::test]
async fn a_name_that_no_file_can_have_ends_no_other_fetch() {
    let (place, server) = Place::with_server().await;
    let at = at(&server);
    let long = "n".repeat(300);
    for name in [long.as_str(), "fine"] {
        put(&place, &at, name, b"bytes").await.with_code(0);
    }
    let get = format!("object get obj://objects/{long} obj://objects/fine --out got {at} --json");
    let ended = place.run(&get).await.with_code(1);
    let found = answers(&ended);
    assert_eq!(about(&found, "obj://objects/fine")["ok"], true, "{found:?}");
    let why = about(&found, &format!("obj://objects/{long}"))["why"].as_str().unwrap();
    assert!(why.contains("too long"), "{why}");
    assert_eq!(std::fs::read(place.path("got/fine")).unwrap(), b"bytes");
}
