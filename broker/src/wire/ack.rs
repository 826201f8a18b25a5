//! The subject on which a delivery is answered, and what it tells.
//!
//! The client's `Message::info` reads it of a message that it has received; most of ours came inside another message,
//! as text, from whoever received the delivery.

use std::time::Duration;

use bytes::Bytes;

const PREFIX: &str = "$JS.ACK.";

/// What an ack subject tells: `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<stream sequence>.
/// <consumer sequence>.<time>.<pending>`, with a domain also with more behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AckSubject<'a> {
    pub(crate) stream: &'a str,
    /// How many times the message was handed out, this time included.
    pub(crate) delivered: u32,
    pub(crate) stream_sequence: u64,
    pub(crate) consumer_sequence: u64,
    /// When the stream stored it, ns since 1970 by the server's clock.
    pub(crate) stored_ns: u64,
    /// How many messages the consumer had left behind it.
    pub(crate) pending: u64,
}

impl<'a> AckSubject<'a> {
    /// Reads one; none if it is another subject, or a pattern.
    pub(crate) fn parse(reply: &'a str) -> Option<Self> {
        let one = |token: &str| {
            !token.is_empty() && token.bytes().all(|c| c.is_ascii_graphic() && !b"*>".contains(&c))
        };
        let tokens = reply.strip_prefix(PREFIX)?;
        if !tokens.split('.').all(one) {
            return None;
        }
        let domain = if tokens.split('.').count() >= 9 { 2 } else { 0 };
        let mut tokens = tokens.split('.').skip(domain);
        let (stream, _consumer) = (tokens.next()?, tokens.next()?);
        Some(Self {
            stream,
            delivered: tokens.next()?.parse().ok()?,
            stream_sequence: tokens.next()?.parse().ok()?,
            consumer_sequence: tokens.next()?.parse().ok()?,
            stored_ns: tokens.next()?.parse().ok()?,
            pending: tokens.next()?.parse().ok()?,
        })
    }
}

/// A subject on which the message of that sequence can be answered for `consumer`. The server looks at the two
/// sequences alone, and takes any of the consumer's above its floor.
pub(crate) fn subject(stream: &str, consumer: &str, sequence: u64, of_consumer: u64) -> String {
    format!("{PREFIX}{stream}.{consumer}.1.{sequence}.{of_consumer}.0.0")
}

/// The answer that gives a task to another worker, after `delay`.
pub(crate) fn nak(delay: Duration) -> Bytes {
    if delay.is_zero() {
        return "-NAK".into();
    }
    format!(r#"-NAK {{"delay":{}}}"#, delay.as_nanos()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_ack_subject_are_read() {
        let short = "$JS.ACK.BAG_TASKS.workers.3.10.12.1700000000.5";
        let wanted = AckSubject {
            stream: "BAG_TASKS",
            delivered: 3,
            stream_sequence: 10,
            consumer_sequence: 12,
            stored_ns: 1_700_000_000,
            pending: 5,
        };
        assert_eq!(AckSubject::parse(short), Some(wanted));
        for long in [
            "$JS.ACK._.HASH.BAG_TASKS.workers.3.10.12.1700000000.5",
            "$JS.ACK._.HASH.BAG_TASKS.workers.3.10.12.1700000000.5.rand",
        ] {
            assert_eq!(AckSubject::parse(long), Some(wanted), "{long}");
        }
        let made = subject("BAG_TASKS", "workers", 10, 12);
        let made = AckSubject::parse(&made).map(|ack| (ack.stream_sequence, ack.consumer_sequence));
        assert_eq!(made, Some((10, 12)));
    }

    #[test]
    fn other_subjects_and_patterns_are_none() {
        for reply in [
            "bag.result.t-abcdefgh.0.0",
            "$KV.bags.t-abcdefgh",
            "$JS.API.STREAM.PURGE.BAG_TASKS",
            "$JS.ACK.BAG_TASKS.workers.3.*.12.1700000000.5",
            "$JS.ACK.BAG_TASKS.workers.3..12.1700000000.5",
            "$JS.ACK.BAG_TASKS",
            "$JS.ACK.x",
            "0123456789abcdef01234567",
            "",
        ] {
            assert_eq!(AckSubject::parse(reply), None, "{reply}");
        }
    }

    #[test]
    fn a_delayed_nak_is_in_nanoseconds() {
        assert_eq!(nak(Duration::from_millis(200)), r#"-NAK {"delay":200000000}"#);
        assert_eq!(nak(Duration::ZERO), "-NAK");
    }
}
