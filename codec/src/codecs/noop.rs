//! Nothing: the input is thrown away. What a task costs when its work costs nothing.

use crate::Error;
use crate::entry::{CodecInfo, Entry};
use crate::join::Seam;
use crate::stream::{Decoder, Encoder, Progress};

pub(crate) static ENTRY: Entry = Entry {
    info: CodecInfo {
        name: "noop",
        levels: None,
        switches: &[],
        takes_arrays: false,
        extension: "",
        library: "noop/1",
        summary: "stores nothing, to measure what a task costs without its work",
    },
    stores_nothing: true,
    length_in_front: false,
    output_bytes_max: |_, _| 0,
    may_begin_with: |_| true,
    encoder: |_| Box::new(Noop),
    decoder: |_| Box::new(Noop),
    check: None,
    made_with: None,
    parts: None,
    seam: Some(|_| Seam::without_framing("noop", |_| 0..=0)),
};

struct Noop;

impl Encoder for Noop {
    fn write(&mut self, _input: &[u8], _output: &mut Vec<u8>) -> Result<(), Error> {
        Ok(())
    }

    fn finish(&mut self, _output: &mut Vec<u8>) -> Result<(), Error> {
        Ok(())
    }

    fn reset(&mut self) {}
}

impl Decoder for Noop {
    fn read_into(&mut self, input: &[u8], _output: &mut [u8]) -> Result<Progress, Error> {
        if input.is_empty() {
            Ok(Progress { consumed: 0, produced: 0 })
        } else {
            Err(Error::TrailingBytes { format: "noop" })
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn reset(&mut self) {}
}
