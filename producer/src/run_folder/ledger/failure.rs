//! One failed task, as summaries and `failed.txt` say it.

use std::path::PathBuf;

use bagpress_broker::quote::{name, words};
use bagpress_broker::result::{Outcome, TaskResult};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::run_folder::inputs;

/// One failed task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its place in the bag.
    pub index: u32,
    /// Why, for scripts.
    pub cause: String,
    /// The file that was to be compressed, in a bag of files.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_path",
        deserialize_with = "read_path"
    )]
    pub path: Option<PathBuf>,
    /// Why, for people.
    pub message: String,
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn write_path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => inputs::write_path(path, serializer),
        None => serializer.serialize_none(),
    }
}

fn read_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    inputs::read_path(deserializer).map(Some)
}

impl Failure {
    /// What a result says, if it says that the task failed.
    pub(crate) fn of(result: &TaskResult) -> Option<Self> {
        let Outcome::Failed(failed) = &result.outcome else { return None };
        let (cause, message) = (failed.cause.to_string(), failed.message.clone());
        Some(Self { index: result.index, cause, path: None, message })
    }

    /// The same, with the path of its input.
    pub(crate) fn with_path(self, path: Option<PathBuf>) -> Self {
        Self { path, ..self }
    }

    /// A line of `failed.txt`: index, cause, path and message, with tabs between; `-` is no path.
    pub(crate) fn line(&self) -> String {
        let path = self.path.as_ref().map_or_else(|| "-".to_owned(), name);
        let Self { index, cause, message, .. } = self;
        format!("{index}\t{}\t{path}\t{}\n", words(cause), words(message))
    }
}

impl std::fmt::Display for Failure {
    /// For people: whatever its names and messages hold, it is one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = words(&self.message);
        write!(f, "{}: {}: ", self.index, words(&self.cause))?;
        let path = self.path.as_ref().map(name);
        // Most messages name it already.
        if let Some(path) = path.filter(|path| !message.contains(path.as_str())) {
            write!(f, "{path}: ")?;
        }
        f.write_str(&message)
    }
}
