//! Where the value of a flag came from: somebody typed it, somebody exported it, or it is the default.

use clap::ArgMatches;
use clap::parser::ValueSource;

/// The arguments of one verb. Ids that the verb does not have are neither typed nor exported.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a>(pub(crate) &'a ArgMatches);

impl Given<'_> {
    fn source(self, id: &str) -> Option<ValueSource> {
        self.0.try_contains_id(id).is_ok().then(|| self.0.value_source(id)).flatten()
    }

    pub(crate) fn is_typed(self, id: &str) -> bool {
        self.source(id) == Some(ValueSource::CommandLine)
    }

    pub(crate) fn is_exported(self, id: &str) -> bool {
        self.source(id) == Some(ValueSource::EnvVariable)
    }

    /// Whether it is typed or exported.
    pub(crate) fn is_given(self, id: &str) -> bool {
        self.is_typed(id) || self.is_exported(id)
    }
}

/// A flag as it is typed.
pub(crate) fn long(id: &str) -> String {
    format!("--{}", id.replace('_', "-"))
}

/// The variable of a flag.
pub(crate) fn variable(id: &str) -> String {
    format!("BAGPRESS_{}", id.to_uppercase())
}
