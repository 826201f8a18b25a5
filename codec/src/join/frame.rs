//! Where a zstd frame ends, and what it says of itself, without decoding it (RFC 8878 §3.1.1).

/// What a frame says of what it decodes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) input_bytes: u64,
    pub(super) checksum: u32,
}

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The longest content of a block.
const BLOCK_BYTES_MAX: u32 = 128 << 10;
const BLOCK_HEADER_BYTES: usize = 3;
const CHECKSUM_BYTES: usize = 4;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// Within magic number and frame header.
    #[default]
    Header,
    BlockHeader,
    /// Within a block, so many bytes before its end.
    Block {
        left: u32,
        is_last: bool,
    },
    Checksum,
    End,
}

/// Reads one frame, in pieces of any length: one that has a length and a checksum and wants no dictionary.
#[derive(Debug, Clone, Default)]
pub(super) struct FrameReader {
    at: At,
    /// The part of a header that was read, or of the checksum.
    held: [u8; 14],
    held_bytes: usize,
    input_bytes: u64,
    frame: Option<Frame>,
}

impl FrameReader {
    /// What the frame says, once it has ended.
    pub(super) fn ended(&self) -> Option<Frame> {
        self.frame
    }

    /// Takes bytes up to the frame's end, and returns how many.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<usize, &'static str> {
        let mut taken = 0;
        while taken < piece.len() && self.at != At::End {
            if let At::Block { left, is_last } = self.at {
                let rest = u32::try_from(piece.len() - taken).unwrap_or(u32::MAX).min(left);
                taken += rest as usize;
                self.at = within_block(left - rest, is_last);
                continue;
            }
            self.held[self.held_bytes] = piece[taken];
            self.held_bytes += 1;
            taken += 1;
            self.step()?;
        }
        Ok(taken)
    }

    /// Goes on, once what is held is whole.
    fn step(&mut self) -> Result<(), &'static str> {
        let held = &self.held[..self.held_bytes];
        self.at = match self.at {
            At::Header => match header(held)? {
                Some(input_bytes) => {
                    self.input_bytes = input_bytes;
                    At::BlockHeader
                }
                None => return Ok(()),
            },
            At::BlockHeader if held.len() == BLOCK_HEADER_BYTES => block(held)?,
            At::Checksum if held.len() == CHECKSUM_BYTES => {
                let checksum = u32::from_le_bytes([held[0], held[1], held[2], held[3]]);
                self.frame = Some(Frame { input_bytes: self.input_bytes, checksum });
                At::End
            }
            _ => return Ok(()),
        };
        self.held_bytes = 0;
        Ok(())
    }
}

fn within_block(left: u32, is_last: bool) -> At {
    match (left, is_last) {
        (0, true) => At::Checksum,
        (0, false) => At::BlockHeader,
        _ => At::Block { left, is_last },
    }
}

/// The length that a header gives, once it is whole.
fn header(held: &[u8]) -> Result<Option<u64>, &'static str> {
    let magic = held.len().min(MAGIC.len());
    if held[..magic] != MAGIC[..magic] {
        return Err("it is no zstd frame");
    }
    let Some(descriptor) = held.get(MAGIC.len()) else { return Ok(None) };
    let is_single = descriptor & 0x20 != 0;
    if descriptor & 0x04 == 0 || descriptor & 0x0b != 0 {
        return Err("its frame has no checksum, or a dictionary");
    }
    let length_bytes = match (descriptor >> 6, is_single) {
        (0, false) => return Err("its frame does not say how long its content is"),
        (0, true) => 1,
        (1, _) => 2,
        (2, _) => 4,
        _ => 8,
    };
    let begins = MAGIC.len() + 1 + usize::from(!is_single);
    let Some(length) = held.get(begins..begins + length_bytes) else { return Ok(None) };
    let number = length.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok(Some(if length_bytes == 2 { number + 256 } else { number }))
}

fn block(held: &[u8]) -> Result<At, &'static str> {
    let header = u32::from_le_bytes([held[0], held[1], held[2], 0]);
    let (is_last, bytes) = (header & 1 == 1, header >> 3);
    let stored = match header >> 1 & 3 {
        1 => 1, // one byte, repeated
        0 | 2 => bytes,
        _ => return Err("its frame has a block of no kind"),
    };
    if bytes > BLOCK_BYTES_MAX {
        return Err("its frame has a block that is too long");
    }
    Ok(within_block(stored, is_last))
}
