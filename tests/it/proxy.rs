//! A TCP proxy that delays, stops or cuts what goes through it.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// They pass.
    Up,
    /// Each piece waits so long, at most 64 KiB at a time.
    Slow(Duration),
    /// They wait, and connections stay open: a network that lost its way.
    Still,
    /// Connections are closed, and new ones too.
    Cut,
}

/// Between one side and a server. Dropping it cuts everything.
pub(crate) struct Proxy {
    url: String,
    link: Arc<watch::Sender<Link>>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.link.send_replace(Link::Cut);
        self.accepting.abort();
    }
}

impl Proxy {
    pub(crate) async fn to(server: &str) -> Self {
        let server = server.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let link = Arc::new(watch::Sender::new(Link::Up));
        let state = link.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *state.borrow() == Link::Cut {
                    continue;
                }
                let Ok(far) = TcpStream::connect(&server).await else { continue };
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                tokio::spawn(forward(near_in, far_out, state.subscribe()));
                tokio::spawn(forward(far_in, near_out, state.subscribe()));
            }
        });
        Self { url, link, accepting }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<Link>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            cut = link.wait_for(|link| *link == Link::Cut) => { drop(cut); 0 }
        };
        if read == 0 {
            return;
        }
        // What waits is not lost: it passes when the link is up again.
        let now = link.wait_for(|link| *link != Link::Still).await.map_or(Link::Cut, |link| *link);
        match now {
            Link::Cut => return,
            Link::Slow(delay) => tokio::time::sleep(delay).await,
            Link::Up | Link::Still => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
