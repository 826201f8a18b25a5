//! The input files that a gatherer has open for workers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bagpress_broker::limits;
use bagpress_broker::result::{Cause, Failed};

use crate::staging::input::{InputFile, OpenInput};
use crate::staging::messages::InputRequest;

/// The input files that are open, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct OpenInputs {
    open: Mutex<Vec<(u32, Arc<OpenInput>)>>,
}

impl OpenInputs {
    /// Reads what is asked for; less only at the end of the file.
    ///
    /// # Errors
    ///
    /// As [`OpenInput`].
    pub(super) fn read(
        &self,
        input: &InputFile,
        request: &InputRequest,
    ) -> Result<Vec<u8>, Failed> {
        let opened = self.open(request.index, input)?;
        let most = usize::try_from(request.bytes).unwrap_or(usize::MAX).min(limits::CHUNK_BYTES);
        let mut buffer = Vec::new();
        if opened.read_at(request.offset, most, &mut buffer)? {
            // Most files are read at once: kept open, they would take all files that this process may have.
            self.lock().retain(|(index, _)| *index != request.index);
        }
        Ok(buffer)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u32, Arc<OpenInput>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the files that nobody reads just now: this process may have no more open.
    pub(super) fn close(&self) {
        self.lock().clear();
    }

    fn open(&self, index: u32, input: &InputFile) -> Result<Arc<OpenInput>, Failed> {
        let mut inputs = self.lock();
        if let Some(at) = inputs.iter().position(|(i, _)| *i == index) {
            let entry = inputs.remove(at);
            let file = entry.1.clone();
            inputs.push(entry);
            return Ok(file);
        }
        let opened = match OpenInput::open(input.clone()) {
            // Those that are kept open may be what is too many.
            Err(failed) if failed.cause == Cause::Full && !inputs.is_empty() => {
                inputs.clear();
                OpenInput::open(input.clone())
            }
            opened => opened,
        };
        let opened = Arc::new(opened?);
        if inputs.len() >= limits::OPEN_INPUTS_MAX {
            inputs.remove(0);
        }
        inputs.push((index, opened.clone()));
        Ok(opened)
    }
}
