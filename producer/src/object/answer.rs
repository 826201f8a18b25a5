//! What is answered about one reference.

use std::path::PathBuf;
use std::time::SystemTime;

use bagpress_codec::Digest;
use bagpress_objstore::object_ref::{Info, Reference, expires, pins};
use serde::Serialize;

use super::lineage::{NotMade, Why};

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// All of it is there.
    There,
    /// No object of that name is known, now or before.
    NeverThere,
    /// Somebody freed it.
    Freed,
    /// It was an input that a bag had put, and that the bag freed as its task was done.
    InputFreed,
    /// Another program than ours deleted it.
    Deleted,
    /// Its time was over.
    Expired,
    /// It was there, and something of it is missing without anybody having removed it.
    Lost,
    /// Its bytes are not those that were written.
    Corrupt,
    /// Its metadata cannot be understood.
    Unreadable,
}

impl State {
    /// The word for it, in JSON and on a line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::There => "there",
            Self::NeverThere => "never-there",
            Self::Freed => "freed",
            Self::InputFreed => "input-freed",
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Lost => "lost",
            Self::Corrupt => "corrupt",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A pin that keeps an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// Its name.
    pub name: String,
    /// Who set it.
    pub by: String,
}

/// A bag that reads an object: it is neither finished nor cancelled nor removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// The bag.
    pub bag: String,
    /// How far the bag is, for people.
    pub is: String,
}

/// The answer about one reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Which.
    pub reference: Reference,
    /// Whether what was asked for was done.
    pub ok: bool,
    /// What became of the object.
    pub state: State,
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Digest of its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The codec that made it, if its metadata says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// The file or object that it was made of, if its metadata says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// What the object is, as whoever made it has described it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// When it expires, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Its pins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    /// The bags that read it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holding>,
    /// The file that it was put from, or is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// How many tasks were run to make it again, if it was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconstructed: Option<u32>,
    /// Why it was not made again, if it is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_reconstructed: Option<Why>,
    /// Why it is not there, or was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Answer {
    /// An object that is there.
    pub(crate) fn there(reference: &Reference, info: &Info) -> Self {
        let Info { metadata, description, .. } = info;
        let all = pins(metadata).into_iter();
        let all = all.map(|(name, by)| Pin { name: name.to_owned(), by: by.to_owned() });
        Self {
            ok: true,
            bytes: Some(info.bytes),
            digest: Some(info.digest),
            codec: metadata.get("codec").cloned(),
            input: metadata.get("input").cloned(),
            description: Some(description.clone()).filter(|text| !text.is_empty()),
            written: info.modified.map(shown),
            expires: expires(metadata).map(shown),
            pins: all.collect(),
            ..Self::of(reference, State::There)
        }
    }

    /// An object of which nothing more is known.
    pub(crate) fn of(reference: &Reference, state: State) -> Self {
        Self {
            reference: reference.clone(),
            ok: false,
            state,
            bytes: None,
            digest: None,
            codec: None,
            input: None,
            description: None,
            written: None,
            expires: None,
            pins: Vec::new(),
            holders: Vec::new(),
            file: None,
            reconstructed: None,
            not_reconstructed: None,
            why: None,
        }
    }

    /// The same, not done for a reason.
    pub(crate) fn refused(self, why: impl Into<String>) -> Self {
        Self { ok: false, why: Some(why.into()), ..self }
    }

    /// The same, and that it could not be made again.
    pub(crate) fn not_made(self, NotMade { why, text }: NotMade) -> Self {
        let lost = self.why.clone().unwrap_or_default();
        let refused = self.refused(format!("{lost}; it cannot be made again: {text}"));
        Self { not_reconstructed: Some(why), ..refused }
    }
}

/// A time, for people and for scripts: to the second, in UTC.
pub(crate) fn shown(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at);
    at.map_or_else(|_| "at an unknown time".to_owned(), |at| format!("{at:.0}"))
}

/// How many references were asked for, and what came of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Done, or there.
    pub done: u64,
    /// Not done, or gone.
    pub failed: u64,
    /// Not there yet when the time was over, or enough others were.
    pub pending: u64,
    /// Whether the time was over first.
    pub timed_out: bool,
}

impl Tally {
    pub(crate) fn count(&mut self, answer: &Answer) {
        if answer.ok {
            self.done += 1;
        } else {
            self.failed += 1;
        }
    }
}
