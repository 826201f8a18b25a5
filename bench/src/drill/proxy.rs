//! A TCP proxy before the server, one for each client: it cuts connections, and makes them slow.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// How often an idle connection looks whether it was cut.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const BUFFER_BYTES: usize = 64 * 1024;

/// One client's way to the server. It lives as long as the program.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    port: u16,
    control: Arc<Control>,
}

#[derive(Debug, Default)]
struct Control {
    delay_ms: AtomicU64,
    /// Raised to cut what is connected.
    cuts: AtomicU64,
}

impl Proxy {
    /// Listens on a free port of the loopback, for the server at `server`.
    pub(super) fn start(server: u16) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen for a client")?;
        let port = listener.local_addr()?.port();
        let control = Arc::new(Control::default());
        let mine = control.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let control = mine.clone();
                // A server that is not there refuses, and so do we.
                if let Ok(upstream) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) {
                    connect(client, upstream, &control);
                }
            }
        });
        Ok(Self { port, control })
    }

    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Cuts every connection.
    pub(super) fn cut(&self) {
        self.control.cuts.fetch_add(1, Ordering::SeqCst);
    }

    /// Delays everything by so much; 0 ends that.
    pub(super) fn delay(&self, ms: u32) {
        self.control.delay_ms.store(u64::from(ms), Ordering::SeqCst);
    }
}

fn connect(client: TcpStream, server: TcpStream, control: &Arc<Control>) {
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let cuts = control.cuts.load(Ordering::SeqCst);
    let (Ok(client_again), Ok(server_again)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    for (from, to) in [(client, server), (server_again, client_again)] {
        let control = control.clone();
        thread::spawn(move || {
            pump(&from, &to, &control, cuts);
            // The other direction ends with this one.
            from.shutdown(Shutdown::Both).ok();
            to.shutdown(Shutdown::Both).ok();
        });
    }
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, control: &Control, cuts: u64) {
    let mut buffer = vec![0; BUFFER_BYTES];
    if from.set_read_timeout(Some(LOOK_EVERY)).is_err() {
        return;
    }
    while control.cuts.load(Ordering::SeqCst) == cuts {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(bytes) => {
                let delay = control.delay_ms.load(Ordering::SeqCst);
                if delay > 0 {
                    thread::sleep(Duration::from_millis(delay));
                }
                if to.write_all(&buffer[..bytes]).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut again = stream.try_clone().unwrap();
                    std::io::copy(&mut stream, &mut again).ok();
                });
            }
        });
        port
    }

    fn ask(stream: &mut TcpStream) -> std::io::Result<Duration> {
        let since = Instant::now();
        stream.write_all(b"hello")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        assert_eq!(&answer, b"hello");
        Ok(since.elapsed())
    }

    #[test]
    fn what_is_sent_arrives_late_or_not_at_all() {
        let proxy = Proxy::start(echo()).unwrap();
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
        let mut stream = connect();
        ask(&mut stream).unwrap();
        proxy.delay(100);
        assert!(ask(&mut stream).unwrap() >= Duration::from_millis(200));
        proxy.delay(0);
        proxy.cut();
        while ask(&mut stream).is_ok() {}
        ask(&mut connect()).unwrap();
    }
}
