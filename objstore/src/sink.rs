//! Where a slot writes its output. Blocks: it belongs to the thread that compresses.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bagpress_broker::limits::CHUNK_BYTES;
use bagpress_broker::result::{Cause, Failed};
use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use crate::output_failed;

/// What is kept of an output before it is written; what is longer passes without being copied.
const FILE_BUFFER_BYTES: usize = 32 * 1024;

/// The compressed bytes of one task, on their way.
#[derive(Debug)]
pub enum Sink {
    /// Nowhere: the codec stores nothing.
    Nothing,
    /// To a part file, where it will live.
    File {
        /// The part file. Most outputs are small: they are written with one call of the system.
        file: BufWriter<File>,
        /// Whether its bytes must be made durable here: nobody else's `syncfs` covers them.
        sync: bool,
    },
    /// Into chunks that [`Output`](crate::Output) carries away.
    Chunks {
        /// To the carrier. Bounded, so a slow carrier slows the slot.
        sender: mpsc::Sender<Bytes>,
        /// What does not fill a chunk yet.
        tail: BytesMut,
    },
    /// Kept whole, as one of the outputs of a pack, which travel together.
    Whole {
        /// To who closes them.
        sender: oneshot::Sender<Bytes>,
        /// What there is so far.
        output: BytesMut,
        /// How many bytes the outputs of the pack may still have.
        room: Arc<AtomicUsize>,
    },
}

impl Sink {
    /// One that writes a part file; `sync`: and makes it durable at the end.
    #[must_use]
    pub fn file(file: File, sync: bool) -> Self {
        Self::File { file: BufWriter::with_capacity(FILE_BUFFER_BYTES, file), sync }
    }

    pub(crate) fn chunks(sender: mpsc::Sender<Bytes>) -> Self {
        Self::Chunks { sender, tail: BytesMut::new() }
    }

    /// One that keeps its output, of a pack whose outputs may have `room` more bytes.
    pub(crate) fn whole(room: Arc<AtomicUsize>) -> (Self, oneshot::Receiver<Bytes>) {
        let (sender, output) = oneshot::channel();
        (Self::Whole { sender, output: BytesMut::new(), room }, output)
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// Transient: the disk, or the carrier, which says itself what happened to it.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Failed> {
        match self {
            Self::Nothing => Ok(()),
            Self::File { file, .. } => file.write_all(bytes).map_err(|e| file_failed(&e)),
            Self::Chunks { sender, tail } => {
                while !bytes.is_empty() {
                    let part = bytes.len().min(CHUNK_BYTES - tail.len());
                    tail.extend_from_slice(&bytes[..part]);
                    bytes = &bytes[part..];
                    if tail.len() == CHUNK_BYTES {
                        let chunk = std::mem::take(tail).freeze();
                        sender.blocking_send(chunk).map_err(|_| carrier_gone())?;
                    }
                }
                Ok(())
            }
            Self::Whole { output, room, .. } => {
                // One thread writes all outputs of a pack. What an output that does not fit has taken is not given back: it is rare.
                let left = room.load(Relaxed).checked_sub(bytes.len()).ok_or_else(too_long)?;
                room.store(left, Relaxed);
                output.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Takes the end.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn finish(self) -> Result<(), Failed> {
        match self {
            Self::Nothing => Ok(()),
            Self::File { mut file, sync } => {
                let written = file.flush();
                let synced =
                    written.and_then(|()| if sync { file.get_ref().sync_all() } else { Ok(()) });
                synced.map_err(|error| file_failed(&error))
            }
            Self::Chunks { sender, tail } => {
                if tail.is_empty() {
                    return Ok(());
                }
                sender.blocking_send(tail.freeze()).map_err(|_| carrier_gone())
            }
            Self::Whole { sender, output, .. } => {
                sender.send(output.freeze()).map_err(|_| carrier_gone())
            }
        }
    }
}

fn file_failed(error: &std::io::Error) -> Failed {
    output_failed("write the part file", error)
}

/// A file may have more bytes than its system says: then it is run alone.
fn too_long() -> Failed {
    let text = "the outputs of a pack are longer than one message";
    Failed::new(Cause::TransferError, text)
}

fn carrier_gone() -> Failed {
    Failed::new(Cause::TransferError, "the output could not be brought to its place")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_is_too_long_for_its_pack_fails_alone() {
        let room = Arc::new(AtomicUsize::new(10));
        let (mut first, one) = Sink::whole(room.clone());
        first.write(b"1234").and_then(|()| first.finish()).unwrap();
        let (mut second, none) = Sink::whole(room.clone());
        second.write(b"12345").unwrap();
        assert_eq!(second.write(b"67").unwrap_err().cause, Cause::TransferError);
        drop(second);
        let (mut third, other) = Sink::whole(room);
        third.write(b"8").and_then(|()| third.finish()).unwrap();
        let got = [one, none, other].map(|mut output| output.try_recv().ok());
        assert_eq!(got, [Some("1234".into()), None, Some("8".into())]);
    }
}
