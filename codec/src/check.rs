//! What every comparison of outputs with inputs can do.

use crate::{EntryPoint, Error, Fidelity};

/// What compares outputs with their inputs. After an error it is of no more use.
pub(crate) trait Check: Send {
    /// That of a `Verifier`: `check`.
    fn check(&mut self, input: &[u8], output: &[u8]) -> Result<(), Error>;

    /// That of a `Verifier`: `finish`.
    fn finish(&mut self, output: &[u8]) -> Result<(), Error>;

    /// That of a `Verifier`: `reset`.
    fn reset(&mut self);

    /// That of a `Verifier`: `fidelity`.
    fn fidelity(&self) -> Option<Fidelity> {
        None
    }

    /// That of a `Verifier`: `entry_points`.
    fn entry_points(&self) -> &[EntryPoint] {
        &[]
    }
}
