//! A buffer that zfp's bit stream lies in, and the handles of both.

use std::ptr::NonNull;

use zfp_sys::{bitstream, zfp_stream};

use crate::header::{BLOCK_BYTES_MAX, Parameters};

/// Bytes of a stream that are at hand at once.
pub(crate) const DATA_BYTES: usize = 64 * 1024;
/// The same with room for one more block, and for the word that zfp reads ahead.
const WORDS: usize = (DATA_BYTES + 2 * BLOCK_BYTES_MAX) / 8;

const _: () = assert!(BLOCK_BYTES_MAX * 8 > 32_768 + 16_658 - 1024 && DATA_BYTES.is_multiple_of(8));

/// The words and the two handles; freed together.
pub(crate) struct Buffer {
    /// What zfp points into. After it is made, it is only reached by `words`, so that no reference is beside zfp's pointers.
    _owner: Vec<u64>,
    words: NonNull<u64>,
    bits: NonNull<bitstream>,
    zfp: NonNull<zfp_stream>,
}

// SAFETY: the handles belong to this value alone, and zfp keeps nothing for a thread: its functions work on what they are given.
unsafe impl Send for Buffer {}

impl Buffer {
    /// None, if there is no memory.
    pub(crate) fn new() -> Option<Self> {
        let mut owner = vec![0_u64; WORDS];
        let words = NonNull::new(owner.as_mut_ptr())?;
        // SAFETY: `words` are WORDS * 8 bytes that live as long as this value, whose heap memory does not move with it.
        let bits = NonNull::new(unsafe { zfp_sys::stream_open(words.as_ptr().cast(), WORDS * 8) })?;
        // SAFETY: `bits` was just opened.
        let Some(zfp) = NonNull::new(unsafe { zfp_sys::zfp_stream_open(bits.as_ptr()) }) else {
            // SAFETY: it was opened, and nobody else has it.
            unsafe { zfp_sys::stream_close(bits.as_ptr()) };
            return None;
        };
        Some(Self { _owner: owner, words, bits, zfp })
    }

    pub(crate) fn set(&mut self, parameters: Parameters) {
        let Parameters { bits_min, bits_max, planes, exponent_min } = parameters;
        // SAFETY: the handle is open.
        unsafe {
            zfp_sys::zfp_stream_set_params(
                self.zfp.as_ptr(),
                bits_min,
                bits_max,
                planes,
                exponent_min,
            )
        };
    }

    /// The handle that zfp's functions of blocks take.
    pub(crate) fn zfp(&mut self) -> *mut zfp_stream {
        self.zfp.as_ptr()
    }

    /// The whole buffer as bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the words are there, initialised, and any byte is one; zfp has pointers into them, and uses none while this
        // borrow, which is of the whole value, lasts.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_ptr().cast(), WORDS * 8) }
    }

    /// Bits written so far, from the buffer's start.
    pub(crate) fn written(&self) -> usize {
        // SAFETY: the handle is open.
        let bits = unsafe { zfp_sys::stream_wtell(self.bits.as_ptr()) };
        usize::try_from(bits).unwrap_or(usize::MAX)
    }

    /// Bits read so far, from the buffer's start.
    pub(crate) fn read(&self) -> usize {
        // SAFETY: the handle is open.
        let bits = unsafe { zfp_sys::stream_rtell(self.bits.as_ptr()) };
        usize::try_from(bits).unwrap_or(usize::MAX)
    }

    /// Puts the next `bits` low ones of `value`, 64 at most; the caller knows that there is room.
    pub(crate) fn put(&mut self, value: u64, bits: u32) {
        assert!(bits <= 64 && self.written() < DATA_BYTES * 8);
        // SAFETY: the handle is open, and behind the data there is room for a word.
        unsafe { zfp_sys::stream_write_bits(self.bits.as_ptr(), value, bits as usize) };
    }

    /// Fills the last word up with zeros, so that all that was written is in the buffer.
    pub(crate) fn flush(&mut self) {
        // SAFETY: the handle is open, and behind the data there is room for a word.
        unsafe { zfp_sys::stream_flush(self.bits.as_ptr()) };
    }

    /// Goes on writing behind so many bits, fewer than a word has.
    pub(crate) fn write_at(&mut self, bits: usize) {
        let bits = bits % 64;
        // SAFETY: the handle is open, and the position in the first word.
        unsafe { zfp_sys::stream_wseek(self.bits.as_ptr(), bits as u64) };
    }

    /// Goes on reading behind so many bits from the buffer's start, at most those of the data.
    pub(crate) fn read_at(&mut self, bits: usize) {
        let bits = bits.min(DATA_BYTES * 8);
        // SAFETY: the handle is open, and the position in the buffer, with room for a word behind it.
        unsafe { zfp_sys::stream_rseek(self.bits.as_ptr(), bits as u64) };
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody uses it after this.
        unsafe { zfp_sys::zfp_stream_close(self.zfp.as_ptr()) };
        // SAFETY: the same.
        unsafe { zfp_sys::stream_close(self.bits.as_ptr()) };
    }
}
