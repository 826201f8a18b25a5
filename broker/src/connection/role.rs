//! Who connects.

/// The role of the process that connects: it is in the connection's name, `bagpress-<role>/<host>/<pid>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Submits and gathers.
    Producer,
    /// Compresses. Waits for its broker without an end, also at first.
    Worker,
    /// Makes streams.
    Admin,
    /// Looks, and changes nothing.
    Observer,
}

impl Role {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Worker => "worker",
            Self::Admin => "admin",
            Self::Observer => "observer",
        }
    }
}
