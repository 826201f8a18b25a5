//! What the tests of object buckets share: a server, a way to it that can be held up, bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, object_store::ObjectStore};
use bagpress_broker::testing::NatsServer;
use bagpress_objstore::object_ref::Bucket;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

pub(crate) const CHUNK: usize = bagpress_broker::limits::CHUNK_BYTES;
pub(crate) const MIB: u64 = 1024 * 1024;

/// A server with other settings in its `jetstream` block, and where it stores.
pub(crate) async fn server_with(jetstream: &str) -> Outcome<(NatsServer, tempfile::TempDir)> {
    let store = tempfile::tempdir()?;
    let folder = store.path().display();
    let extra = format!("jetstream {{ store_dir: \"{folder}\", {jetstream} }}");
    Ok((NatsServer::start_with(&extra).await, store))
}

/// Where a proxy finds a server.
pub(crate) fn address(server: &NatsServer) -> Outcome<SocketAddr> {
    Ok(server.url().trim_start_matches("nats://").parse()?)
}

/// A server, and a bucket of 64 MiB in it.
pub(crate) struct Fixture {
    pub(crate) server: NatsServer,
    pub(crate) context: jetstream::Context,
    pub(crate) bucket: Bucket,
}

pub(crate) async fn fixture() -> Outcome<Fixture> {
    let server = NatsServer::start().await;
    let client = async_nats::connect(server.url()).await?;
    let context = jetstream::new(client.clone());
    let bucket = create(client, "b", 64 * MIB).await?;
    Ok(Fixture { server, context, bucket })
}

pub(crate) async fn create(
    client: async_nats::Client,
    name: &str,
    max_bytes: u64,
) -> Outcome<Bucket> {
    let context = jetstream::new(client.clone());
    let bag = "demo-abcdefgh".parse()?;
    Ok(Bucket::create(client, context, name, "Outputs of bag demo", max_bytes, &bag).await?)
}

impl Fixture {
    pub(crate) async fn theirs(&self) -> Outcome<ObjectStore> {
        Ok(self.context.get_object_store("b").await?)
    }

    pub(crate) async fn stream_state(&self) -> Outcome<jetstream::stream::State> {
        Ok(self.context.get_stream("OBJ_b").await?.cached_info().state.clone())
    }
}

/// Ends a test that waits too long.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    match time::timeout(Duration::from_secs(40), future).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("waited in vain for {what}").into()),
    }
}

/// Bytes that differ in every chunk.
pub(crate) fn sample(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect()
}

/// A way to the server on which its answers can be held up.
pub(crate) struct Proxy {
    pub(crate) url: String,
    held: Arc<watch::Sender<bool>>,
}

impl Proxy {
    pub(crate) async fn start(to: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("nats://{}", listener.local_addr()?);
        let held = Arc::new(watch::Sender::new(false));
        let holds = held.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(to).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, watch::Sender::new(false).into()));
                tokio::spawn(forward(from_server, to_client, holds.clone()));
            }
        });
        Ok(Self { url, held })
    }

    /// Holds up all answers, or lets them through again.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    held: Arc<watch::Sender<bool>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut held = held.subscribe();
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        if held.wait_for(|held| !held).await.is_err()
            || to.write_all(&buffer[..bytes]).await.is_err()
        {
            return;
        }
    }
}
