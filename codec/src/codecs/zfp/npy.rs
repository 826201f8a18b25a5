//! The header of a file of numpy (NEP 1): type, order and shape, as a dictionary in Python's notation.

use super::terms::refused;
use crate::Error;
use crate::array::Form;
use crate::error::ArrayFault;
use crate::grid::{Grid, Scalar, Shape};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Bytes of every header that `numpy.save` writes for an array of one of our types and shapes.
pub(super) const HEADER_BYTES: usize = 128;
/// The longest header that is looked at, in bytes.
const HEADER_BYTES_MAX: usize = 4096;
/// Magic, version, and the length of what follows.
const FRONT_BYTES: usize = 10;

/// Bytes of what is decoded that are before the values.
pub(super) fn header_bytes(form: Form) -> usize {
    match form {
        Form::Npy => HEADER_BYTES,
        Form::Grid(_) | Form::Raw => 0,
    }
}

/// Reads the header from the front of a file: none, if more of it is needed.
///
/// # Errors
///
/// [`ArrayFault::Unsupported`] if it is no file of numpy, of another type or order, or not as `numpy.save` writes it: then it
/// could not be restored byte for byte.
pub(super) fn read(front: &[u8]) -> Result<Option<Grid>, Error> {
    let magic = front.len().min(MAGIC.len());
    if front[..magic] != MAGIC[..magic] {
        return unsupported(
            "it is no .npy file: name the type and the shape of bare values, with --dtype and --shape",
        );
    }
    let Some(text) = text(front)? else { return Ok(None) };
    let Some((descr, order, shape)) = parts(text) else {
        return unsupported(
            "the header of this .npy file cannot be read: load it with numpy, and save it again",
        );
    };
    let scalar = match descr {
        "'<i4'" => Scalar::I32,
        "'<i8'" => Scalar::I64,
        "'<f4'" => Scalar::F32,
        "'<f8'" => Scalar::F64,
        other => {
            let reason = format!(
                "its type is {other}: zfp takes <i4, <i8, <f4 and <f8; convert it with astype()"
            );
            return unsupported(&reason);
        }
    };
    if order != "False" {
        return unsupported("it is in Fortran order: save numpy.ascontiguousarray() of it");
    }
    let extents: Option<Vec<u64>> = extents(shape);
    let Some(Ok(shape)) = extents.map(|extents| Shape::new(&extents)) else {
        let reason = format!(
            "its shape is {shape}: zfp takes 1 to 4 dimensions, each of one value or more; reshape() it"
        );
        return unsupported(&reason);
    };
    let grid = Grid { scalar, shape };
    if front.get(..HEADER_BYTES) != Some(&header(&grid)[..]) {
        return unsupported(
            "its header is not as numpy.save writes it, and would not come back: load it, and save it again",
        );
    }
    Ok(Some(grid))
}

/// The header that `numpy.save` writes.
pub(super) fn header(grid: &Grid) -> [u8; HEADER_BYTES] {
    let descr = match grid.scalar {
        Scalar::I32 => "<i4",
        Scalar::I64 => "<i8",
        Scalar::F32 => "<f4",
        Scalar::F64 => "<f8",
    };
    let extents: Vec<_> = grid.shape.extents().iter().map(ToString::to_string).collect();
    let comma = if extents.len() == 1 { "," } else { "" };
    let shape = extents.join(", ");
    let text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}{comma}), }}");
    let mut header = [b' '; HEADER_BYTES];
    header[..6].copy_from_slice(MAGIC);
    header[6..FRONT_BYTES].copy_from_slice(&[1, 0, 118, 0]);
    header[FRONT_BYTES..FRONT_BYTES + text.len()].copy_from_slice(text.as_bytes());
    header[HEADER_BYTES - 1] = b'\n';
    header
}

/// The dictionary, once all of it is there.
fn text(front: &[u8]) -> Result<Option<&str>, Error> {
    let (Some(version), Some(low)) = (front.get(6), front.get(8..10)) else { return Ok(None) };
    let (begin, bytes) = match (version, front.get(8..12)) {
        (1, _) => (FRONT_BYTES, usize::from(u16::from_le_bytes([low[0], low[1]]))),
        (2 | 3, None) => return Ok(None),
        (2 | 3, Some(long)) => {
            let bytes = u32::from_le_bytes([long[0], long[1], long[2], long[3]]);
            (FRONT_BYTES + 2, usize::try_from(bytes).unwrap_or(usize::MAX))
        }
        (other, _) => {
            return unsupported(&format!(
                "it is of version {other} of the format .npy: 1 to 3 are known"
            ));
        }
    };
    if bytes > HEADER_BYTES_MAX {
        return unsupported("its header is longer than that of any array of numbers");
    }
    let Some(text) = front.get(begin..begin + bytes) else { return Ok(None) };
    Ok(Some(std::str::from_utf8(text).unwrap_or_default()))
}

/// Type, order and shape, as they are written.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let after = |key: &str| {
        let (_, rest) = text.split_once(key)?;
        rest.trim_start().strip_prefix(':').map(str::trim_start)
    };
    let descr = after("'descr'")?;
    let descr = if descr.starts_with('[') {
        descr.split_inclusive(']').next()?
    } else {
        descr.split(',').next()?
    };
    let order = after("'fortran_order'")?.split(',').next()?;
    let shape = after("'shape'")?.split_inclusive(')').next()?;
    Some((descr.trim(), order.trim(), shape.trim()))
}

fn extents(shape: &str) -> Option<Vec<u64>> {
    let list = shape.strip_prefix('(')?.strip_suffix(')')?.trim();
    let list = list.strip_suffix(',').unwrap_or(list);
    list.split(',').map(|extent| extent.trim().parse().ok()).collect()
}

fn unsupported<T>(reason: &str) -> Result<T, Error> {
    refused(ArrayFault::Unsupported, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of numpy with this dictionary, filled up to 64 bytes.
    fn file(version: u8, text: &str) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[version, 0]].concat();
        let front = if version == 1 { 10 } else { 12 };
        let length = (front + text.len() + 1).next_multiple_of(64) - front;
        let length = u32::try_from(length).unwrap().to_le_bytes();
        bytes.extend_from_slice(if version == 1 { &length[..2] } else { &length });
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize((front + text.len() + 1).next_multiple_of(64) - 1, b' ');
        bytes.push(b'\n');
        bytes
    }

    #[test]
    fn what_numpy_saves_is_read_and_written_again() {
        for (text, grid) in [
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (8, 256, 256), }", "f32,8x256x256"),
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (7,), }", "i64,7"),
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (4096, 4096, 4096, 4096), }",
                "f64,4096x4096x4096x4096",
            ),
        ] {
            let file = file(1, text);
            let grid: Grid = grid.parse().unwrap();
            assert_eq!(read(&file), Ok(Some(grid)));
            assert_eq!(header(&grid)[..], file[..]);
            for length in 0..file.len() {
                assert_eq!(read(&file[..length]), Ok(None), "{length}");
            }
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_next_step() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }";
        for (file, why) in [
            (b"no numpy".to_vec(), "--dtype and --shape"),
            (file(4, good), "version 4"),
            (file(2, good), "save it again"),
            (file(3, good), "save it again"),
            (file(1, &good.replace("<f4", ">f4")), "'>f4'"),
            (file(1, &good.replace("<f4", "<f2")), "astype()"),
            (file(1, &good.replace("'<f4'", "[('a', '<f4'), ('b', '<i4')]")), "astype()"),
            (file(1, &good.replace("False", "True")), "ascontiguousarray()"),
            (file(1, &good.replace("(3, 4)", "()")), "reshape()"),
            (file(1, &good.replace("(3, 4)", "(3, 0)")), "reshape()"),
            (file(1, &good.replace("(3, 4)", "(1, 1, 1, 3, 4)")), "reshape()"),
            (file(1, &good.replace(", }", "}")), "not as numpy.save writes it"),
            (file(1, "{}"), "cannot be read"),
            ([&MAGIC[..], &[1, 0, 255, 255]].concat(), "longer than"),
        ] {
            let refused = read(&file).unwrap_err().to_string();
            assert!(refused.contains(why), "{why}: {refused}");
        }
    }
}
