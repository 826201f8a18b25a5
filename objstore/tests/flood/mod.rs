//! A client of the broker that means harm: it writes to its socket as fast as that takes, and reads nothing but what the
//! server itself says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;

use bagpress_broker::ids::Execution;
use bagpress_broker::limits;
use bagpress_broker::subjects;
use bagpress_codec::Digest;
use bagpress_objstore::staging::messages::{Came, Close, Open};

use crate::house::{House, Outcome};

/// One connection, with an inbox of its own in which nobody looks.
pub(crate) struct Hostile {
    socket: TcpStream,
    reply: String,
    bag: bagpress_broker::ids::BagId,
    reader: Option<JoinHandle<()>>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.socket.shutdown(std::net::Shutdown::Both).ok();
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
    }
}

impl Hostile {
    pub(crate) fn connect(house: &House, name: &str) -> Outcome<Self> {
        let at = house.worker.url().trim_start_matches("nats://").to_owned();
        let mut socket = TcpStream::connect(at)?;
        socket.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n")?;
        let mut reading = socket.try_clone()?;
        let reader = std::thread::spawn(move || {
            // The server's pings are not answered: it forgives that for minutes.
            let mut buffer = [0; 4096];
            while let Ok(1..) = reading.read(&mut buffer) {}
        });
        let (reply, bag) = (format!("_INBOX.{name}.x"), house.bag.clone());
        Ok(Self { socket, reply, bag, reader: Some(reader) })
    }

    pub(crate) fn publish(&mut self, subject: &str, header: &str, payload: &[u8]) -> Outcome {
        let header =
            if header.is_empty() { String::new() } else { format!("NATS/1.0\r\n{header}\r\n\r\n") };
        let (own, all) = (header.len(), header.len() + payload.len());
        let first = format!("HPUB {subject} {} {own} {all}\r\n{header}", self.reply);
        self.socket.write_all(first.as_bytes())?;
        self.socket.write_all(payload)?;
        Ok(self.socket.write_all(b"\r\n")?)
    }

    pub(crate) fn open(&mut self, index: u32, execution: &Execution) -> Outcome {
        let execution = execution.clone();
        let open = Open { v: limits::WIRE_VERSION, index, round: 0, execution, by_path: None };
        let (subject, open) = (subjects::open(&self.bag), serde_json::to_vec(&open)?);
        self.socket
            .write_all(format!("PUB {subject} {} {}\r\n", self.reply, open.len()).as_bytes())?;
        self.socket.write_all(&open)?;
        Ok(self.socket.write_all(b"\r\n")?)
    }

    /// A chunk that is the first of its upload.
    pub(crate) fn chunk(&mut self, index: u32, execution: &Execution, bytes: &[u8]) -> Outcome {
        let subject = subjects::chunk(&self.bag, &format!("{index}_0-{execution}"));
        self.publish(&subject, "Bag-Offset: 0", bytes)
    }

    /// A CLOSE that carries `bytes` and says that they have another digest.
    pub(crate) fn close(&mut self, index: u32, execution: &Execution, bytes: &[u8]) -> Outcome {
        let close = Close {
            v: limits::WIRE_VERSION,
            index,
            round: 0,
            execution: execution.clone(),
            bytes: bytes.len() as u64,
            digest: Digest::of(b"something else"),
            came: Came::Inline,
            files: Vec::new(),
        };
        let header = format!("Bag-Close: {}", serde_json::to_string(&close)?);
        self.publish(&subjects::close(&self.bag), &header, bytes)
    }
}
