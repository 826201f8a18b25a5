//! What an object bucket promises when chunks vanish, room runs out or the server goes away.

#[expect(dead_code, reason = "another test uses the rest")]
mod object_ref_support;

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, ContextBuilder, object_store::ObjectStore};
use bagpress_objstore::object_ref::{Bucket, Error, Written};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_ref_support::{
    CHUNK, MIB, Outcome, Proxy, address, create, fixture, sample, server_with, within,
};
use tokio::io::AsyncReadExt;
use tokio::time;

/// Long enough for every retry.
const SOON: Duration = Duration::from_secs(5);

async fn removed_chunk(context: &jetstream::Context, token: &str, number: usize) -> Outcome {
    let stream = context.get_stream("OBJ_b").await?;
    let mut sequence = 0;
    for _ in 0..=number {
        let get = stream.direct_get_builder().sequence(sequence + 1);
        sequence = get.next_by_subject(format!("$O.b.C.{token}")).send().await?.sequence;
    }
    stream.delete_message(sequence).await?;
    Ok(())
}

/// Makes an object whose chunks are not what its metadata says.
async fn put_flipped(theirs: &ObjectStore, context: &jetstream::Context, chunks: usize) -> Outcome {
    let mut bytes = sample(chunks * CHUNK).to_vec();
    let mut info = theirs.put("right", &mut bytes.as_slice()).await?;
    bytes[chunks * CHUNK / 2] ^= 1;
    for chunk in bytes.chunks(CHUNK) {
        let chunk = Bytes::copy_from_slice(chunk);
        context.publish("$O.b.C.7-flipped", chunk).await?.await?;
    }
    (info.name, info.nuid, info.chunks) = ("o".into(), "7-flipped".into(), chunks);
    context.publish("$O.b.M.bw==", serde_json::to_vec(&info)?.into()).await?.await?;
    Ok(())
}

#[tokio::test]
async fn a_flipped_bit_is_a_digest_error() -> Outcome {
    for chunks in [1, 3] {
        let fixture = fixture().await?;
        put_flipped(&fixture.theirs().await?, &fixture.context, chunks).await?;
        let error = fixture.bucket.get("o", u64::MAX).await.unwrap_err();
        assert!(matches!(error, Error::Digest { .. }), "{error}");
        assert!(!error.is_transient() && error.is_broken_object());
    }
    Ok(())
}

#[tokio::test]
async fn vanished_chunks_are_lost_and_nobody_waits_for_them() -> Outcome {
    let fixture = fixture().await?;
    let bucket = &fixture.bucket;
    for (name, chunks) in [("one", 1), ("some", 3), ("many", 40)] {
        bucket.put(name, name, sample(chunks * CHUNK)).await?;
    }
    removed_chunk(&fixture.context, "many", 20).await?;
    bucket.purge_chunks("one").await?;
    bucket.purge_chunks("some").await?;
    for (name, found, wanted) in [("one", 0, 1), ("some", 0, 3), ("many", 39, 40)] {
        let began = Instant::now();
        let error = bucket.get(name, u64::MAX).await.unwrap_err();
        let (bucket_name, object) = ("b".to_owned(), name.to_owned());
        assert_eq!(error, Error::Lost { bucket: bucket_name, object, found, wanted });
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!(bucket.check_present(name).await.unwrap_err(), error);
    }
    Ok(())
}

#[tokio::test]
async fn a_broken_object_is_replaced_and_not_adopted() -> Outcome {
    let fixture = fixture().await?;
    let (bucket, data) = (&fixture.bucket, sample(3 * CHUNK));
    put_flipped(&fixture.theirs().await?, &fixture.context, 3).await?;
    assert!(bucket.put("o", "7-second", data.clone()).await?.mine);
    assert!(bucket.get("o", u64::MAX).await?.1 == data);

    removed_chunk(&fixture.context, "7-second", 1).await?;
    assert!(bucket.put("o", "7-third", data.clone()).await?.mine);
    assert!(bucket.get("o", u64::MAX).await?.1 == data);

    fixture.context.publish("$O.b.M.bw==", "junk".into()).await?.await?;
    assert!(bucket.put("o", "7-fourth", data.clone()).await?.mine);
    assert!(bucket.get("o", u64::MAX).await?.1 == data);

    // Nobody deletes chunks of another's execution, broken or not.
    let orphans: Vec<_> = bucket.orphans().await?.into_iter().map(|orphan| orphan.token).collect();
    assert_eq!(orphans, ["7-flipped", "7-second", "7-third"]);
    Ok(())
}

#[tokio::test]
async fn a_full_bucket_is_full_and_nothing_is_lost() -> Outcome {
    let fixture = fixture().await?;
    let client = async_nats::connect(fixture.server.url()).await?;
    let bucket = create(client, "small", 5 * MIB).await?;
    bucket.put("first", "1-a", sample(3 * CHUNK)).await?;

    let error = bucket.put("second", "2-a", sample(12 * CHUNK)).await.unwrap_err();
    assert!(matches!(&error, Error::Full { why, .. } if why.contains("maximum bytes")), "{error}");
    assert!(error.is_transient());
    assert!(bucket.orphans().await?.is_empty(), "what did not fit is gone again");
    assert!(bucket.get("first", u64::MAX).await?.1 == sample(3 * CHUNK));

    bucket.remove("first").await?;
    let again = bucket.put("second", "2-a", sample(9 * CHUNK)).await?;
    assert!(again.mine, "and the same execution may try again");
    assert!(bucket.get("second", u64::MAX).await?.1 == sample(9 * CHUNK));
    Ok(())
}

#[tokio::test]
async fn who_finds_the_bucket_full_of_its_own_object_adopts_it() -> Outcome {
    let fixture = fixture().await?;
    let client = async_nats::connect(fixture.server.url()).await?;
    let bucket = create(client, "one", 5 * MIB).await?;
    let mut second = bucket.writer("out_7.bin", "7-second")?;
    assert_eq!(second.adoptable().await, None, "there is none");
    let first = bucket.put("out_7.bin", "7-first", sample(6 * CHUNK)).await?;

    let error = second.write(sample(16 * CHUNK)).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(second.adoptable().await, Some(first.info));
    assert!(bucket.orphans().await?.is_empty(), "its own chunks are gone again");
    // One that is completely in flight before the bucket says so.
    let third = bucket.put("out_7.bin", "7-third", sample(6 * CHUNK)).await?;
    assert!(!third.mine && third.info.token == "7-first");

    bucket.purge_chunks("7-first").await?;
    assert_eq!(second.adoptable().await, None, "it does not read back");
    Ok(())
}

#[tokio::test]
async fn who_finds_the_bucket_full_of_other_bytes_does_not_adopt_them() -> Outcome {
    let fixture = fixture().await?;
    let client = async_nats::connect(fixture.server.url()).await?;
    let bucket = create(client, "one", 5 * MIB).await?;
    bucket.put("out_7.bin", "7-planted", sample(6 * CHUNK)).await?;
    let own = sample(6 * CHUNK).slice(1..);
    let mut writer = bucket.writer("out_7.bin", "7-own")?;
    let full = match writer.write(own).await {
        Err(error) => error,
        Ok(()) => writer.commit_beside().await.unwrap_err(),
    };
    assert!(matches!(full, Error::Full { .. }), "{full}");
    assert!(bucket.get("out_7.bin", u64::MAX).await?.1 == sample(6 * CHUNK));
    Ok(())
}

#[tokio::test]
async fn a_reservation_that_does_not_fit_names_both_numbers() -> Outcome {
    let (server, _store) = server_with("max_file: 100MB").await?;
    let client = async_nats::connect(server.url()).await?;
    create(client.clone(), "first", 60_000_000).await?;
    let context = jetstream::new(client.clone());
    let bag = "demo-abcdefgh".parse()?;
    let made = Bucket::create(client, context, "second", "", 60_000_001, &bag).await;
    let Err(error @ Error::Full { .. }) = made else { panic!("{made:?}") };
    let text = error.to_string();
    assert!(text.contains("60000001") && text.contains("60000000"), "{text}");
    Ok(())
}

/// A bucket behind a proxy, whose messages count as lost after 300 ms.
async fn impatient(proxy: &Proxy) -> Outcome<Bucket> {
    let client = async_nats::connect(&proxy.url).await?;
    let context = ContextBuilder::new().timeout(Duration::from_millis(300)).build(client.clone());
    Ok(Bucket::new(client, context, "b")?)
}

#[tokio::test]
async fn lost_acknowledgements_double_no_chunk() -> Outcome {
    let fixture = fixture().await?;
    let proxy = Proxy::start(address(&fixture.server)?).await?;
    let (bucket, data) = (impatient(&proxy).await?, sample(9 * CHUNK));
    let mut writer = bucket.writer("o", "1-a")?;
    writer.write(data.slice(..CHUNK)).await?;
    proxy.hold(true);
    let release = async {
        time::sleep(Duration::from_millis(900)).await;
        proxy.hold(false);
        Ok::<(), Error>(())
    };
    let written = async {
        writer.write(data.slice(CHUNK..)).await?;
        Box::pin(writer.commit_or_adopt()).await
    };
    let both = Box::pin(futures::future::try_join(written, release));
    let (committed, ()) = within("the writer", async { Ok(both.await?) }).await?;
    assert!(committed.mine);
    assert_eq!(fixture.bucket.count_chunks("1-a").await?, 9);
    let mut read = Vec::new();
    fixture.theirs().await?.get("o").await?.read_to_end(&mut read).await?;
    assert!(read == data);
    Ok(())
}

#[tokio::test]
async fn metadata_whose_acknowledgement_was_lost_is_still_mine() -> Outcome {
    let fixture = fixture().await?;
    let proxy = Proxy::start(address(&fixture.server)?).await?;
    let bucket = impatient(&proxy).await?;
    let writer = bucket.writer("o", "1-a")?; // no chunks: the first message is metadata
    proxy.hold(true);
    let release = async {
        time::sleep(Duration::from_millis(500)).await;
        proxy.hold(false);
        Ok::<(), Error>(())
    };
    let (stored, ()) = within("the writer", async {
        Ok(futures::future::try_join(Box::pin(writer.commit_or_adopt()), release).await?)
    })
    .await?;
    assert!(stored.mine);
    assert_eq!(stored.info, fixture.bucket.info("o").await?.found("b", "o")?);
    Ok(())
}

#[tokio::test]
async fn a_server_killed_under_a_writer_costs_time_only() -> Outcome {
    let mut fixture = fixture().await?;
    let data = sample(40 * CHUNK);
    let mut writer = fixture.bucket.writer("o", "1-a")?;
    writer.write(data.slice(..20 * CHUNK)).await?;
    let rest = data.slice(20 * CHUNK..);
    let writing = tokio::spawn(async move {
        writer.write(rest).await?;
        writer.commit_or_adopt().await
    });
    fixture.server.kill_and_restart().await;
    let stored = within("the writer", async { Ok(writing.await?) }).await?;
    match stored {
        Ok(Written { mine, .. }) => assert!(mine),
        // It cannot know in which order the rest was stored; the caller begins again.
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            fixture.bucket.put("o", "1-b", data.clone()).await?;
        }
    }
    assert!(fixture.bucket.get("o", u64::MAX).await?.1 == data);
    Ok(())
}

#[tokio::test]
async fn a_server_killed_under_a_reader_costs_time_only() -> Outcome {
    let mut fixture = fixture().await?;
    let data = sample(100 * CHUNK);
    fixture.bucket.put("o", "1-a", data.clone()).await?;
    let info = fixture.bucket.check_present("o").await?;
    let mut reader = fixture.bucket.reader(&info);
    let mut read = reader.next().await?.ok_or("empty")?.to_vec();
    fixture.server.kill_and_restart().await;
    within("the reader", async {
        while let Some(bytes) = reader.next().await? {
            read.extend_from_slice(&bytes);
        }
        Ok(())
    })
    .await?;
    assert!(read == data);
    Ok(())
}

#[tokio::test]
async fn too_many_requests_never_put_chunks_out_of_order() -> Outcome {
    let (server, _store) = server_with("max_buffered_size: 2MB").await?;
    let client = async_nats::connect(server.url()).await?;
    let bucket = create(client.clone(), "b", 256 * MIB).await?;
    let put_until_stored = |n: usize| {
        let bucket = bucket.clone();
        async move {
            let data = sample(16 * CHUNK + n);
            for attempt in 0..20 {
                match bucket.put(&format!("o{n}"), &format!("{n}-{attempt}"), data.clone()).await {
                    Err(error) => assert!(error.is_transient(), "{error}"),
                    Ok(stored) => return Outcome::Ok(stored.mine),
                }
            }
            Err("20 attempts were not enough".into())
        }
    };
    let puts = futures::stream::iter(0..16).map(put_until_stored).buffer_unordered(8);
    let mine: Vec<bool> = within("all writers", puts.try_collect()).await?;
    assert_eq!(mine, [true; 16]);
    assert!(bucket.orphans().await?.is_empty());
    let theirs = jetstream::new(client).get_object_store("b").await?;
    for n in 0..16 {
        let mut read = Vec::new();
        theirs.get(format!("o{n}")).await?.read_to_end(&mut read).await?;
        assert!(read == sample(16 * CHUNK + n));
    }
    Ok(())
}
