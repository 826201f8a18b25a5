//! Names: bags, pools, tasks, executions. An invalid one cannot be made, so none arrives either.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Characters of a bag id's random tail.
const TAIL: usize = 8;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a {what}: use 1 to {max} characters of a-z, 0-9 and -, without - at either end"
)]
pub struct IdError {
    what: &'static str,
    text: String,
    max: usize,
}

fn check(what: &'static str, text: &str, max: usize) -> Result<(), IdError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (1..=max).contains(&text.len());
    if fits && text.chars().all(allowed) && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(());
    }
    let shown = text.chars().take(80).collect();
    Err(IdError { what, text: shown, max })
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check($what, text, $max)?;
                Ok(Self(text.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                check($what, &text, $max)?;
                Ok(Self(text))
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

token!(
    /// Names one bag: `<name>-<8 random base32>`, hence always one NATS subject token.
    BagId,
    "bag id",
    limits::BAG_ID_BYTES_MAX
);
token!(
    /// The name a user gives a run: what a bag id has before its random tail.
    RunName,
    "run name",
    limits::BAG_ID_BYTES_MAX - TAIL - 1
);
token!(
    /// Names a pool of workers.
    Pool,
    "pool",
    32
);

impl Default for Pool {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// Random bytes in the id of a bag.
const DRAWN_BYTES: usize = 5;
/// Characters that they are written with, five bits each.
const DRAWN_CHARS: usize = DRAWN_BYTES * 8 / 5;

impl BagId {
    /// Makes the id of a new bag.
    #[must_use]
    pub fn new(name: &RunName) -> Self {
        Self(format!("{name}-{}", random_base32::<DRAWN_BYTES>()))
    }

    /// The name of the run that it was made for, as [`new`](Self::new) takes it; none if it was not made so.
    #[must_use]
    pub fn run_name(&self) -> Option<&str> {
        let (name, drawn) = self.0.rsplit_once('-')?;
        (drawn.len() == DRAWN_CHARS && !name.is_empty()).then_some(name)
    }
}

/// Names one task, everywhere and always: which bag, which place in it, which round.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The bag.
    pub bag: BagId,
    /// Position in the bag, from 0.
    pub index: u32,
    /// 0, and one more each time somebody runs the task again.
    pub round: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.bag, self.index, self.round)
    }
}

/// Names one execution of a task: 96 random bits in hexadecimal.
///
/// *Mine* means equal execution, never equal attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Execution(String);

impl Execution {
    /// Draws a new one from the system's random source.
    #[must_use]
    pub fn random() -> Self {
        let bytes: [u8; 12] = random_bytes();
        Self(data_encoding::HEXLOWER.encode(&bytes))
    }

    /// The name as text: 24 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Execution> for String {
    fn from(execution: Execution) -> Self {
        execution.0
    }
}

impl FromStr for Execution {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Execution {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() == 24 && text.bytes().all(hex) {
            return Ok(Self(text));
        }
        Err(IdError { what: "execution id", text: text.chars().take(80).collect(), max: 24 })
    }
}

/// `N` bytes in lower-case base32 without padding.
#[must_use]
pub fn random_base32<const N: usize>() -> String {
    data_encoding::BASE32_NOPAD.encode(&random_bytes::<N>()).to_ascii_lowercase()
}

#[expect(clippy::expect_used, reason = "without a random source no id is safe, and Linux has one")]
fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has a random source");
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A bag id that parses is always exactly one subject token.
        #[test]
        fn bag_id_is_one_subject_token(text in ".{0,70}") {
            if let Ok(id) = text.parse::<BagId>() {
                prop_assert!(!id.as_str().contains(['.', '*', '>', ' ', '/']));
                prop_assert!(!id.as_str().is_empty());
            }
        }
    }

    #[test]
    fn the_longest_run_name_makes_a_bag_id() {
        let name: RunName = "n".repeat(55).parse().unwrap();
        let id = BagId::new(&name);
        assert_eq!(id.as_str().parse::<BagId>().unwrap(), id);
        assert_eq!(id.as_str().len(), limits::BAG_ID_BYTES_MAX);
    }

    #[test]
    fn executions_differ_and_read_back() {
        let (a, b) = (Execution::random(), Execution::random());
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<Execution>().unwrap(), a);
        assert!("x".repeat(24).parse::<Execution>().is_err());
    }
}
