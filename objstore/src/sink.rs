//! Where a slot writes its output. Blocks: it belongs to the thread that compresses.

use std::fs::File;
use std::io::Write;

use bagpress_broker::limits::CHUNK_BYTES;
use bagpress_broker::result::{Cause, Failed};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::output_failed;

/// The compressed bytes of one task, on their way.
#[derive(Debug)]
pub enum Sink {
    /// Nowhere: the codec stores nothing.
    Nothing,
    /// To a part file, where it will live.
    File {
        /// The part file.
        file: File,
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
}

impl Sink {
    pub(crate) fn chunks(sender: mpsc::Sender<Bytes>) -> Self {
        Self::Chunks { sender, tail: BytesMut::new() }
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
            Self::File { file, sync } => {
                let synced = if sync { file.sync_all() } else { Ok(()) };
                synced.map_err(|error| file_failed(&error))
            }
            Self::Chunks { sender, tail } => {
                if tail.is_empty() {
                    return Ok(());
                }
                sender.blocking_send(tail.freeze()).map_err(|_| carrier_gone())
            }
        }
    }
}

fn file_failed(error: &std::io::Error) -> Failed {
    output_failed("write the part file", error)
}

fn carrier_gone() -> Failed {
    Failed::new(Cause::TransferError, "the output could not be brought to its place")
}
