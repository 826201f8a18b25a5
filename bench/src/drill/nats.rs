//! As much of the NATS protocol as it takes to look at a store from outside, and to damage it: not our
//! own client code, which is what is drilled.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use data_encoding::BASE64URL;
use serde_json::{Value, json};

use super::flip::flip_bit;

/// Where the server is that is looked at, and the file with its token.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) port: u16,
    pub(super) token: PathBuf,
}

const TIMEOUT: Duration = Duration::from_secs(5);
const PAYLOAD_MAX: usize = 64 << 20;

/// One connection to the server.
#[derive(Debug)]
pub(super) struct Nats {
    reader: BufReader<TcpStream>,
    asked: u64,
}

/// What was answered.
#[derive(Debug, Default)]
struct Answer {
    headers: String,
    payload: Vec<u8>,
}

/// A message of a stream.
#[derive(Debug)]
struct Stored {
    sequence: u64,
    payload: Vec<u8>,
}

impl Nats {
    pub(super) fn connect(at: &At) -> Result<Self> {
        let token = fs::read_to_string(&at.token).context("read the token")?;
        let stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, at.port)).context("reach the server")?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut nats = Self { reader: BufReader::new(stream), asked: 0 };
        let hello = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true,
            "lang": "drill", "version": "1", "protocol": 1, "name": "bagpress-drill",
            "auth_token": token.trim_end()
        });
        nats.send(
            format!("CONNECT {hello}\r\nSUB _INBOX.drill.{0}.* 1\r\n", nats.id()).as_bytes(),
        )?;
        Ok(nats)
    }

    fn id(&self) -> u64 {
        let port = self.reader.get_ref().local_addr().map_or(0, |address| address.port());
        u64::from(std::process::id()) << 16 | u64::from(port)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader.get_mut().write_all(bytes).context("write to the server")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).context("read from the server")?;
        ensure!(read > 0, "the server has closed the connection");
        Ok(line.trim_end().to_owned())
    }

    fn ask(&mut self, subject: &str, payload: &[u8]) -> Result<Answer> {
        self.asked += 1;
        let inbox = format!("_INBOX.drill.{}.{}", self.id(), self.asked);
        let mut message = format!("PUB {subject} {inbox} {}\r\n", payload.len()).into_bytes();
        message.extend_from_slice(payload);
        message.extend_from_slice(b"\r\n");
        self.send(&message)?;
        loop {
            let line = self.line()?;
            let words: Vec<_> = line.split(' ').collect();
            match words.as_slice() {
                ["PING"] => self.send(b"PONG\r\n")?,
                ["MSG", to, _, size] => {
                    let answer = self.answer("0", size)?;
                    if *to == inbox {
                        return Ok(answer);
                    }
                }
                ["HMSG", to, _, headers, size] => {
                    let answer = self.answer(headers, size)?;
                    if *to == inbox {
                        return Ok(answer);
                    }
                }
                ["-ERR", ..] => bail!("the server says {line}"),
                _ => {}
            }
        }
    }

    fn answer(&mut self, headers: &str, size: &str) -> Result<Answer> {
        let (headers, size): (usize, usize) = (headers.parse()?, size.parse()?);
        ensure!(headers <= size && size <= PAYLOAD_MAX, "a message of {size} bytes");
        let mut bytes = vec![0; size + 2];
        self.reader.read_exact(&mut bytes).context("read from the server")?;
        bytes.truncate(size);
        let payload = bytes.split_off(headers);
        Ok(Answer { headers: String::from_utf8_lossy(&bytes).into_owned(), payload })
    }

    fn api(&mut self, what: &str, request: &Value) -> Result<Value> {
        let answer = self.ask(&format!("$JS.API.{what}"), request.to_string().as_bytes())?;
        let value: Value = serde_json::from_slice(&answer.payload)
            .with_context(|| format!("{what}: {}", answer.headers))?;
        if let Some(error) = value.get("error") {
            bail!("{what}: {error}");
        }
        Ok(value)
    }

    /// Messages that a stream holds.
    pub(super) fn messages(&mut self, stream: &str) -> Result<u64> {
        let info = self.api(&format!("STREAM.INFO.{stream}"), &json!({}))?;
        info["state"]["messages"].as_u64().context("no number of messages")
    }

    /// The streams that there are.
    pub(super) fn streams(&mut self) -> Result<Vec<String>> {
        let names = self.api("STREAM.NAMES", &json!({}))?;
        let names = names["streams"].as_array().cloned().unwrap_or_default();
        Ok(names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect())
    }

    /// The first message at or after a sequence, or the last one (from 0), of a subject.
    fn stored(&mut self, stream: &str, subject: &str, from: u64) -> Result<Option<Stored>> {
        let request = match from {
            0 => json!({ "last_by_subj": subject }),
            from => json!({ "seq": from, "next_by_subj": subject }),
        };
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let answer = self.ask(&subject, request.to_string().as_bytes())?;
        let mut lines = answer.headers.lines();
        let status = lines.next().unwrap_or_default();
        if status.contains(" 404") {
            return Ok(None);
        }
        let sequence = lines.find_map(|line| line.strip_prefix("Nats-Sequence:"));
        let sequence = sequence.and_then(|text| text.trim().parse().ok());
        let sequence = sequence.with_context(|| format!("{stream}: {status}"))?;
        Ok(Some(Stored { sequence, payload: answer.payload }))
    }

    /// The token of an object's chunks, and how many there are to be.
    fn metadata(&mut self, bucket: &str, object: &str) -> Result<Option<(String, u64)>> {
        let subject = format!("$O.{bucket}.M.{}", BASE64URL.encode(object.as_bytes()));
        let Some(stored) = self.stored(&format!("OBJ_{bucket}"), &subject, 0)? else {
            return Ok(None);
        };
        let value: Value = serde_json::from_slice(&stored.payload).context("read metadata")?;
        if value["deleted"] == true {
            return Ok(None);
        }
        let token = value["nuid"].as_str().context("no token")?.to_owned();
        Ok(Some((token, value["chunks"].as_u64().context("no chunks")?)))
    }

    fn chunks(&mut self, bucket: &str, token: &str) -> Result<Vec<Stored>> {
        let (stream, subject) = (format!("OBJ_{bucket}"), format!("$O.{bucket}.C.{token}"));
        let (mut found, mut from) = (Vec::new(), 1);
        while let Some(stored) = self.stored(&stream, &subject, from)? {
            from = stored.sequence + 1;
            found.push(stored);
        }
        Ok(found)
    }

    /// An object's bytes as they are, whatever their digest; none if it is not there.
    pub(super) fn object(&mut self, bucket: &str, object: &str) -> Result<Option<Vec<u8>>> {
        let Some((token, wanted)) = self.metadata(bucket, object)? else { return Ok(None) };
        let chunks = self.chunks(bucket, &token)?;
        if chunks.len() as u64 != wanted {
            return Ok(None);
        }
        Ok(Some(chunks.into_iter().flat_map(|chunk| chunk.payload).collect()))
    }

    /// Flips a bit of an object's stored chunks. False if there is none.
    pub(super) fn flip(&mut self, bucket: &str, object: &str, bit: u32) -> Result<bool> {
        let Some((token, _)) = self.metadata(bucket, object)? else { return Ok(false) };
        let mut chunks = self.chunks(bucket, &token)?;
        // A chunk that is written anew comes last, so it must be the last one.
        let Some(Stored { sequence, mut payload }) = chunks.pop() else { return Ok(false) };
        if !flip_bit(&mut payload, bit) {
            return Ok(false);
        }
        self.remove(bucket, sequence)?;
        self.api_publish(&format!("$O.{bucket}.C.{token}"), &payload)?;
        Ok(true)
    }

    /// Removes one of an object's chunks. False if there is none.
    pub(super) fn lose(&mut self, bucket: &str, object: &str) -> Result<bool> {
        let Some((token, _)) = self.metadata(bucket, object)? else { return Ok(false) };
        let Some(chunk) = self.chunks(bucket, &token)?.pop() else { return Ok(false) };
        self.remove(bucket, chunk.sequence)?;
        Ok(true)
    }

    fn remove(&mut self, bucket: &str, sequence: u64) -> Result<()> {
        let what = format!("STREAM.MSG.DELETE.OBJ_{bucket}");
        self.api(&what, &json!({ "seq": sequence, "no_erase": true }))?;
        Ok(())
    }

    fn api_publish(&mut self, subject: &str, payload: &[u8]) -> Result<()> {
        let answer = self.ask(subject, payload)?;
        let value: Value = serde_json::from_slice(&answer.payload).context("publish")?;
        ensure!(value.get("error").is_none(), "publish to {subject}: {value}");
        Ok(())
    }
}
