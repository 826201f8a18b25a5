//! What an object bucket promises while nothing goes wrong.

#[expect(dead_code, reason = "another test uses the rest")]
mod object_ref_support;

use std::collections::HashMap;

use bagpress_codec::Digest;
use bagpress_objstore::object_ref::{self, Bucket, Error, Freed, Lookup};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_ref_support::{CHUNK, MIB, Outcome, create, fixture, sample};
use tokio::io::AsyncReadExt;

const SIZES: [usize; 6] = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * 1024 * 1024 + 3];

#[tokio::test]
async fn get_returns_what_was_put() -> Outcome {
    let fixture = fixture().await?;
    for bytes in SIZES {
        let (name, data) = (format!("o{bytes}"), sample(bytes));
        let stored = fixture.bucket.put(&name, &format!("1-{bytes}"), data.clone()).await?;
        assert!(stored.mine);
        assert_eq!(stored.info.bytes, bytes as u64);
        assert_eq!(stored.info.chunks, bytes.div_ceil(CHUNK) as u64);
        assert_eq!(stored.info.digest, Digest::of(&data));

        let (info, read) = fixture.bucket.get(&name, u64::MAX).await?;
        assert_eq!(info.digest, stored.info.digest);
        assert_eq!(info.sequence, stored.info.sequence);
        assert!(read == data, "{bytes} bytes");
        assert_eq!(fixture.bucket.check_present(&name).await?.chunks, stored.info.chunks);
    }
    Ok(())
}

#[tokio::test]
async fn however_it_is_cut_an_object_is_the_same() -> Outcome {
    let fixture = fixture().await?;
    let data = sample(3 * CHUNK + 77);
    for piece in [1000, CHUNK / 2, CHUNK, CHUNK + 1, 2 * CHUNK] {
        let name = format!("cut{piece}");
        let mut writer = fixture.bucket.writer(&name, &name)?;
        for part in data.chunks(piece) {
            writer.write(Bytes::copy_from_slice(part)).await?;
        }
        let committed = writer.commit_or_adopt().await?;
        assert!(committed.mine, "it is new");
        let info = committed.info;
        assert_eq!((info.chunks, info.digest), (4, Digest::of(&data)));

        let mut reader = fixture.bucket.reader(&info);
        let mut read = Vec::new();
        while let Some(bytes) = reader.next().await? {
            assert!(!bytes.is_empty());
            read.extend_from_slice(&bytes);
        }
        assert!(reader.next().await?.is_none(), "and stays at its end");
        assert!(read == data, "pieces of {piece}");
    }
    Ok(())
}

#[tokio::test]
async fn async_nats_reads_what_we_write() -> Outcome {
    let fixture = fixture().await?;
    let theirs = fixture.theirs().await?;
    for bytes in SIZES {
        let (name, data) = (format!("o {bytes}/ä"), sample(bytes));
        let metadata = HashMap::from([("codec".to_owned(), "zlib:6".to_owned())]);
        let token = format!("1-{bytes}");
        let writer = fixture.bucket.writer(&name, &token)?.description("task 1");
        let mut writer = writer.metadata(metadata.clone());
        writer.write(data.clone()).await?;
        writer.commit_or_adopt().await?;

        let mut object = theirs.get(&name).await?;
        let mut read = Vec::new();
        object.read_to_end(&mut read).await?;
        assert!(read == data, "{bytes} bytes");
        let info = object.info();
        assert_eq!(info.name, name);
        assert_eq!(info.bucket, "b");
        assert_eq!(info.nuid, token);
        assert_eq!((info.size, info.chunks), (bytes, bytes.div_ceil(CHUNK)));
        assert_eq!(info.description.as_deref(), Some("task 1"));
        assert_eq!(info.metadata, metadata);
        assert!(info.modified.is_some());
        let options = info.options.clone().ok_or("no options")?;
        assert_eq!(options.max_chunk_size, Some(CHUNK));
    }
    let listed: Vec<_> = theirs.list().await?.try_collect().await?;
    assert_eq!(listed.len(), SIZES.len());
    Ok(())
}

#[tokio::test]
async fn we_read_what_async_nats_writes() -> Outcome {
    let fixture = fixture().await?;
    let theirs = fixture.theirs().await?;
    for bytes in SIZES {
        let (name, data) = (format!("o{bytes}"), sample(bytes));
        let written = theirs.put(name.as_str(), &mut data.as_ref()).await?;

        let (info, read) = fixture.bucket.get(&name, u64::MAX).await?;
        assert!(read == data, "{bytes} bytes");
        assert_eq!(info.token, written.nuid);
        assert_eq!(info.chunks, written.chunks as u64);
        assert!(info.modified.is_some());
    }
    let mut listing = fixture.bucket.list();
    let mut names = Vec::new();
    while let Some(info) = listing.next().await? {
        names.push(info.name);
    }
    assert_eq!(names, SIZES.map(|bytes| format!("o{bytes}")));
    Ok(())
}

#[tokio::test]
async fn both_sides_agree_on_what_is_deleted() -> Outcome {
    let fixture = fixture().await?;
    let (bucket, theirs) = (&fixture.bucket, fixture.theirs().await?);
    for name in ["ours", "theirs", "stays"] {
        bucket.put(name, &format!("1-{name}"), sample(CHUNK + 1)).await?;
    }
    assert!(bucket.remove("ours").await?);
    theirs.delete("theirs").await?;

    for name in ["ours", "theirs"] {
        assert!(theirs.info(name).await?.deleted);
        assert!(theirs.get(name).await.is_err());
        assert!(matches!(bucket.info(name).await?, Lookup::Deleted { .. }), "{name}");
        let error = bucket.get(name, u64::MAX).await.unwrap_err();
        assert!(matches!(error, Error::Deleted { .. }), "{error}");
        assert_eq!(bucket.count_chunks(&format!("1-{name}")).await?, 0);
        assert!(!bucket.remove(name).await?, "once is enough");
    }
    let listed: Vec<_> = theirs.list().await?.map_ok(|info| info.name).try_collect().await?;
    assert_eq!(listed, ["stays"]);
    let mut listing = bucket.list();
    assert_eq!(listing.next().await?.ok_or("nothing")?.name, "stays");
    assert!(listing.next().await?.is_none());
    assert!(!bucket.remove("never").await?);
    Ok(())
}

#[tokio::test]
async fn a_deleted_name_can_be_put_again() -> Outcome {
    let fixture = fixture().await?;
    let bucket = &fixture.bucket;
    bucket.put("o", "1-a", sample(10)).await?;
    bucket.remove("o").await?;
    let stored = bucket.put("o", "1-b", sample(CHUNK + 5)).await?;
    assert!(stored.mine);
    assert!(bucket.get("o", u64::MAX).await?.1 == sample(CHUNK + 5));
    Ok(())
}

#[tokio::test]
async fn a_second_writer_adopts_and_leaves_no_chunks() -> Outcome {
    let fixture = fixture().await?;
    let bucket = &fixture.bucket;
    let first = bucket.put("o", "7-first", sample(3 * CHUNK)).await?;
    let second = bucket.put("o", "7-second", sample(3 * CHUNK)).await?;
    assert!(!second.mine);
    assert_eq!(second.info, bucket.info("o").await?.found("b", "o")?);
    assert_eq!(second.info.token, first.info.token);
    assert_eq!(bucket.count_chunks("7-second").await?, 0);
    assert_eq!(bucket.count_chunks("7-first").await?, 3);
    assert!(bucket.orphans().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn of_many_writers_of_one_name_one_wins() -> Outcome {
    let fixture = fixture().await?;
    let puts = (0..16).map(|n| {
        let bucket = fixture.bucket.clone();
        async move { bucket.put("o", &format!("0-{n}"), sample(CHUNK + 1)).await }
    });
    let stored: Vec<_> = futures::future::try_join_all(puts).await?;
    assert_eq!(stored.iter().filter(|stored| stored.mine).count(), 1);
    assert!(stored.iter().all(|other| other.info.token == stored[0].info.token));
    assert!(fixture.bucket.orphans().await?.is_empty());
    assert_eq!(fixture.stream_state().await?.messages, 3);
    Ok(())
}

#[tokio::test]
async fn a_token_in_use_is_refused_and_a_purged_one_is_not() -> Outcome {
    let fixture = fixture().await?;
    let bucket = &fixture.bucket;
    bucket.put("o", "7-x", sample(9)).await?;
    let mut writer = bucket.writer("p", "7-x")?;
    let error = writer.write(sample(20 * CHUNK)).await.unwrap_err();
    assert!(matches!(error, Error::TokenUsed { .. }), "{error}");
    assert!(!error.is_transient());
    writer.abandon().await?;
    assert_eq!(bucket.count_chunks("7-x").await?, 1);
    assert!(bucket.get("o", u64::MAX).await?.1 == sample(9), "and the object is untouched");

    let mut writer = bucket.writer("q", "7-y")?;
    writer.write(sample(3 * CHUNK)).await?;
    writer.abandon().await?;
    assert_eq!(bucket.count_chunks("7-y").await?, 0);
    assert!(bucket.put("q", "7-y", sample(3 * CHUNK)).await?.mine);
    assert!(bucket.get("q", u64::MAX).await?.1 == sample(3 * CHUNK));
    Ok(())
}

#[tokio::test]
async fn bytes_that_are_not_those_expected_become_no_object() -> Outcome {
    let fixture = fixture().await?;
    let bucket = &fixture.bucket;
    let data = sample(CHUNK + 9);
    for (bytes, digest) in [(9, Digest::of(&data)), (data.len() as u64, Digest::of(b"other"))] {
        let mut writer = bucket.writer("o", "7-x")?.expecting(bytes, digest);
        writer.write(data.clone()).await?;
        let error = writer.commit_or_adopt().await.unwrap_err();
        assert!(matches!(error, Error::Digest { .. }), "{error}");
        assert!(bucket.orphans().await?.is_empty());
    }
    let mut writer = bucket.writer("o", "7-x")?.expecting(data.len() as u64, Digest::of(&data));
    writer.write(data).await?;
    assert!(writer.commit_or_adopt().await?.mine);
    Ok(())
}

#[tokio::test]
async fn what_a_crashed_writer_leaves_is_found_by_its_token() -> Outcome {
    let fixture = fixture().await?;
    let bucket = &fixture.bucket;
    bucket.put("o", "1-done", sample(CHUNK + 1)).await?;
    let mut writer = bucket.writer("p", "2-crashed")?;
    writer.write(sample(10 * CHUNK)).await?;
    drop(writer);
    // Messages in flight may still arrive.
    while bucket.count_chunks("2-crashed").await? < 10 {}

    let orphans = bucket.orphans().await?;
    assert_eq!(orphans.len(), 1);
    assert_eq!((orphans[0].token.as_str(), orphans[0].chunks), ("2-crashed", 10));
    bucket.purge_chunks("2-crashed").await?;
    assert!(bucket.orphans().await?.is_empty());
    assert!(matches!(bucket.info("p").await?, Lookup::Missing));
    Ok(())
}

#[tokio::test]
async fn more_gets_than_a_stream_allows_consumers_make_none() -> Outcome {
    let fixture = fixture().await?;
    fixture.bucket.put("small", "1-a", sample(10)).await?;
    fixture.bucket.put("large", "1-b", sample(CHUNK + 1)).await?;
    futures::stream::iter(0..1_100)
        .map(|n| fixture.bucket.get(if n % 2 == 0 { "small" } else { "large" }, u64::MAX))
        .buffer_unordered(8)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    assert_eq!(fixture.stream_state().await?.consumer_count, 0);
    Ok(())
}

#[tokio::test]
async fn a_bucket_is_made_once_and_only_alike_or_larger() -> Outcome {
    let fixture = fixture().await?;
    let client = async_nats::connect(fixture.server.url()).await?;
    create(client.clone(), "b", 64 * MIB).await?;
    let error = create(client.clone(), "b", 65 * MIB).await.unwrap_err();
    assert!(error.to_string().contains("max_bytes"), "{error}");
    create(client.clone(), "b", 63 * MIB).await?; // it is larger
    let other = "other-abcdefgh".parse()?;
    let context = fixture.context.clone();
    let made = Bucket::create(client.clone(), context.clone(), "b", "", 64 * MIB, &other).await;
    assert!(matches!(made, Err(Error::Unfit { field: "bag.id", .. })), "{made:?}");

    fixture.bucket.delete().await?;
    fixture.bucket.delete().await?;
    let error = fixture.bucket.get("o", 1).await.unwrap_err();
    assert!(matches!(error, Error::NoBucket { .. }), "{error}");
    assert!(Bucket::new(client, context, "a.*").is_err());
    Ok(())
}

#[tokio::test]
async fn more_than_the_caller_allows_is_not_read() -> Outcome {
    let fixture = fixture().await?;
    fixture.bucket.put("o", "1-a", sample(101)).await?;
    let error = fixture.bucket.get("o", 100).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes: 101, max: 100, .. }), "{error}");
    assert!(fixture.bucket.writer("", "t").is_err());
    assert!(fixture.bucket.writer("o", "a.>").is_err());
    Ok(())
}

/// Equal tasks give equal bytes: other bytes under the name of an output are no output of an earlier run, or one whose outcome may
/// count. The gatherer decides.
#[tokio::test]
async fn other_bytes_are_not_adopted_and_stay_until_who_counts_decides() -> Outcome {
    let fixture = fixture().await?;
    let bucket = &fixture.bucket;
    let planted = sample(CHUNK);
    for (at, size) in [9, CHUNK, 3 * CHUNK].into_iter().enumerate() {
        let (name, own) = (format!("out_{at}.bin"), sample(size).slice(1..));
        bucket.put(&name, &format!("{at}-planted"), planted.clone()).await?;
        let mut writer = bucket.writer(&name, &format!("{at}-own"))?;
        writer.write(own.clone()).await?;
        let stored = writer.commit_beside().await?;
        assert!(stored.mine && stored.info.name == format!("{name}~{at}-own"));
        assert!(bucket.get(&name, u64::MAX).await?.1 == planted);
        assert!(bucket.orphans().await?.is_empty());
        for _ in 0..2 {
            bucket.rename(&stored.info, &name).await?;
            let (info, bytes) = bucket.get(&name, u64::MAX).await?;
            assert!(info.token == format!("{at}-own") && bytes == own);
            assert!(matches!(bucket.info(&stored.info.name).await?, Lookup::Missing));
        }
        // What is the very same is adopted as ever.
        let mut writer = bucket.writer(&name, &format!("{at}-late"))?;
        writer.write(own).await?;
        let late = writer.commit_beside().await?;
        assert!(!late.mine && late.info.token == format!("{at}-own"));
        let orphans: Vec<_> = bucket.orphans().await?.into_iter().map(|o| o.token).collect();
        assert_eq!(orphans, [format!("{at}-planted")], "nobody names it any more");
        bucket.purge_chunks(&orphans[0]).await?;
    }
    Ok(())
}

/// Nobody but the producer has anything to put among the inputs.
#[tokio::test]
async fn an_input_that_was_planted_is_replaced() -> Outcome {
    let fixture = fixture().await?;
    let bucket = &fixture.bucket;
    bucket.put("in_0", "0-planted", sample(CHUNK)).await?;
    let own = sample(3 * CHUNK);
    let put = bucket.put("in_0", "0-own", own.clone()).await?;
    assert!(put.mine && bucket.get("in_0", u64::MAX).await?.1 == own);
    assert!(!bucket.put("in_0", "0-again", own).await?.mine);
    Ok(())
}

#[tokio::test]
async fn an_object_that_was_pinned_since_it_was_looked_at_is_not_freed() -> Outcome {
    let fixture = fixture().await?;
    let bucket = &fixture.bucket;
    let seen = bucket.put("o", "1-a", sample(10)).await?.info;
    let pinned = bucket.relabel("o", |labels| object_ref::pin(labels, "p", "me")).await?;
    assert_eq!((&pinned.token, pinned.digest), (&seen.token, seen.digest));
    let freed = Freed { by: "me".to_owned(), is_input: false, at: None };
    assert!(!bucket.free_exactly(&seen, &freed).await?);
    assert_eq!(object_ref::pins(&bucket.find("o").await?.metadata), [("p", "me")]);
    let unpinned = bucket.relabel("o", |labels| object_ref::unpin(labels, "p")).await?;
    assert!(bucket.free_exactly(&unpinned, &freed).await?);
    match bucket.find("o").await {
        Err(Error::Freed { freed, .. }) => assert!(freed.by == "me" && freed.at.is_some()),
        other => panic!("{other:?}"),
    }
    assert_eq!(bucket.count_chunks("1-a").await?, 0);
    // A tombstone has no labels to change, and keeps what the name stands for.
    assert!(bucket.relabel("o", |labels| object_ref::pin(labels, "p", "me")).await.is_err());
    let mut writer = bucket.writer("o", "2-b")?;
    writer.write(sample(11)).await?;
    assert!(matches!(writer.commit_new().await, Err(Error::Exists { .. })));
    assert_eq!(bucket.count_chunks("2-b").await?, 0);
    Ok(())
}
