//! Damage: bits that flip, and files that are gone.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Flips one bit, counted modulo what is there; false if there is nothing.
pub(super) fn flip_bit(bytes: &mut [u8], bit: u32) -> bool {
    let bits = bytes.len() * 8;
    let Some(bit) = (bit as usize).checked_rem(bits) else { return false };
    bytes[bit / 8] ^= 1 << (bit % 8);
    true
}

/// Flips one bit of a file in place; false if it is empty or not there.
pub(super) fn flip_in_file(path: &Path, bit: u32) -> Result<bool> {
    let mut file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let bits = file.metadata()?.len() * 8;
    let Some(bit) = u64::from(bit).checked_rem(bits) else { return Ok(false) };
    let mut byte = [0];
    file.seek(SeekFrom::Start(bit / 8))?;
    file.read_exact(&mut byte)?;
    byte[0] ^= 1 << (bit % 8);
    file.seek(SeekFrom::Start(bit / 8))?;
    file.write_all(&byte)?;
    Ok(true)
}

/// Removes a file; false if it is not there.
pub(super) fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_changes_exactly_one_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for bit in [0, 7, 8, 1_000_003] {
            fs::write(&path, b"abc").unwrap();
            assert!(flip_in_file(&path, bit).unwrap());
            let mut expected = b"abc".to_vec();
            assert!(flip_bit(&mut expected, bit));
            let found = fs::read(&path).unwrap();
            let bits = found.iter().zip(b"abc").map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
            assert_eq!((&found, bits), (&expected, 1));
        }
        fs::write(&path, b"").unwrap();
        assert!(!flip_in_file(&path, 1).unwrap() && !flip_bit(&mut [], 1));
        assert!(!flip_in_file(&folder.path().join("none"), 1).unwrap());
    }
}
