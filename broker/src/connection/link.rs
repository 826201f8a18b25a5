//! Whether the connection is up, and whether the server refuses us for good.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use async_nats::{Event, ServerError};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{quote, subjects};

/// Authorization failures in a row after which a connection gives up: the client itself never does.
pub(super) const DENIED_MAX: u32 = 5;

#[derive(Debug, Clone)]
pub(super) struct Link {
    /// Times that the connection was made.
    pub(super) connects: u64,
    pub(super) connected: bool,
    pub(super) since: Instant,
    pub(super) fatal: Option<String>,
}

impl Link {
    /// One that was not up yet.
    pub(super) fn down() -> Self {
        Self { connects: 0, connected: false, since: Instant::now(), fatal: None }
    }
}

/// Whether the server refused a login or an action. It says so in words only: the protocol has no code for it.
pub(super) fn denied(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("authorization")
        || text.contains("authentication")
        || text.contains("permissions")
}

const PUBLISH: &str = "publish to";

/// What a server did not let us do, and with which subject: `Permissions Violation for Publish to "a.b"`.
fn refused(text: &str) -> Option<(&'static str, String)> {
    let (what, subject) = text.split_once('"')?;
    let what = match what.to_ascii_lowercase() {
        what if what.contains("publish") => PUBLISH,
        what if what.contains("subscription") => "subscribe to",
        _ => return None,
    };
    let (subject, _) = subject.split_once('"')?;
    Some((what, quote::words(subject)))
}

/// Whether a subject is one that somebody waits on for an answer.
fn is_answer(subject: &str) -> bool {
    subject.starts_with("_R_.") || subject.starts_with(&subjects::inbox(""))
}

pub(super) fn on_event(event: &Event, state: &watch::Sender<Link>, denials: &AtomicU32) {
    match event {
        Event::Connected => {
            denials.store(0, Relaxed);
            debug!("connected to the broker");
            state.send_modify(|s| {
                s.connects += 1;
                s.connected = true;
                s.since = Instant::now();
            });
        }
        Event::Disconnected => {
            info!("connection to the broker lost, reconnecting");
            state.send_modify(|s| s.connected = false);
        }
        // The client reports a refused publish or subscribe here and nowhere else.
        Event::ServerError(ServerError::Other(text)) if denied(text) => match refused(text) {
            // The sender of the request may have given up, or asked before the reconnect.
            Some((PUBLISH, subject)) if is_answer(&subject) => {
                debug!(subject, "answer not permitted");
            }
            refused => state.send_modify(|s| {
                let why = refused.map_or_else(
                    || text.clone(),
                    |(what, on)| format!("to {what} {on} is not among the rights of this role"),
                );
                // What comes behind the first one may follow from it.
                s.fatal.get_or_insert(why);
            }),
        },
        Event::ServerError(ServerError::AuthorizationViolation) => {
            state.send_modify(|s| s.fatal = Some("authorization violation".to_owned()));
        }
        Event::ClientError(error) if denied(&error.to_string()) => {
            if denials.fetch_add(1, Relaxed) + 1 >= DENIED_MAX {
                state.send_modify(|s| s.fatal = Some(error.to_string()));
            }
        }
        Event::LameDuckMode => info!("the broker is shutting down, moving"),
        Event::SlowConsumer(_) => warn!("messages dropped: this process reads too slowly"),
        other => debug!(event = %other, "connection event"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_was_refused() {
        for (text, wanted) in [
            (r#"Permissions Violation for Publish to "a.b""#, Some(("publish to", "a.b"))),
            (r#"Permissions Violation for Subscription to "a.>""#, Some(("subscribe to", "a.>"))),
            (
                r#"Permissions Violation for Subscription to "a" using queue "q""#,
                Some(("subscribe to", "a")),
            ),
            ("Authorization Violation", None),
        ] {
            let wanted = wanted.map(|(what, subject)| (what, subject.to_owned()));
            assert_eq!(refused(text), wanted, "{text}");
        }
    }
}
