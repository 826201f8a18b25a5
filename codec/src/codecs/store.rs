//! The identity: the output is the input. What everything but compressing costs.

use crate::Error;
use crate::entry::{CodecInfo, Entry};
use crate::join::Seam;
use crate::stream::{Decoder, Encoder, Progress};

pub(crate) static ENTRY: Entry = Entry {
    info: CodecInfo {
        name: "store",
        levels: None,
        switches: &[],
        takes_arrays: false,
        extension: "",
        library: "store/1",
        summary: "copies its input unchanged",
    },
    stores_nothing: false,
    length_in_front: false,
    output_bytes_max: |_, input_bytes| input_bytes,
    may_begin_with: |_| true,
    encoder: |_| Box::new(Store),
    decoder: |_| Box::new(Store),
    check: None,
    made_with: None,
    parts: None,
    seam: Some(|_| Seam::without_framing("store", |input_bytes| input_bytes..=input_bytes)),
};

struct Store;

impl Encoder for Store {
    fn write(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        output.extend_from_slice(input);
        Ok(())
    }

    fn finish(&mut self, _output: &mut Vec<u8>) -> Result<(), Error> {
        Ok(())
    }

    fn reset(&mut self) {}
}

impl Decoder for Store {
    fn read_into(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Error> {
        let bytes = input.len().min(output.len());
        output[..bytes].copy_from_slice(&input[..bytes]);
        Ok(Progress { consumed: bytes, produced: bytes })
    }

    fn finish(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn reset(&mut self) {}
}
