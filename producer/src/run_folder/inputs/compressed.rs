//! Whether a file is compressed already: what it begins with decides, not what it is called.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// As much of a file's beginning as the magic bytes need.
const HEAD: usize = 16;

/// What compressed formats begin with.
const MAGIC: &[&[u8]] = &[
    b"\x1f\x8b\x08",       // gzip
    b"\x28\xb5\x2f\xfd",   // zstd
    b"\xfd7zXZ\0",         // xz
    b"PK\x03\x04",         // zip, and what is one: docx, jar, epub
    b"7z\xbc\xaf\x27\x1c", // 7z
    b"\x04\x22\x4d\x18",   // lz4
    b"LZIP",               // lzip
    b"Rar!\x1a\x07",       // rar
    b"\x89PNG\r\n\x1a\n",  // png
    b"\xff\xd8\xff",       // jpeg
    b"GIF87a",             // gif
    b"GIF89a",             // gif
    b"OggS",               // ogg, opus
    b"fLaC",               // flac
    b"ID3",                // mp3
    b"\x1a\x45\xdf\xa3",   // matroska, webm
    b"wOFF",               // woff
    b"wOF2",               // woff2
];

/// Formats that begin with nothing of their own.
const SUFFIXES: &[&str] = &["br", "lzma"];

/// Whether a file is compressed already. One that cannot be read is not.
pub(crate) fn is_compressed(path: &Path) -> bool {
    let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
    if SUFFIXES.iter().any(|known| known.eq_ignore_ascii_case(suffix)) {
        return true;
    }
    let mut head = Vec::with_capacity(HEAD);
    let read = File::open(path).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
    read.is_ok() && has_magic(&head)
}

fn has_magic(head: &[u8]) -> bool {
    let at = |from: usize, magic: &[u8]| head.get(from..).is_some_and(|h| h.starts_with(magic));
    let bzip2 = at(0, b"BZh") && (at(4, b"1AY&SY") || at(4, b"\x17rE8P\x90"));
    let webp = at(0, b"RIFF") && at(8, b"WEBP");
    // mp4, mov, heic, avif
    bzip2 || webp || at(4, b"ftyp") || MAGIC.iter().any(|magic| at(0, magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides_and_a_suffix_only_where_there_is_no_other_way() {
        let folder = tempfile::tempdir().unwrap();
        let check = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            is_compressed(&path)
        };
        for (name, bytes) in [
            ("no suffix", &b"\x1f\x8b\x08\0\0\0\0\0"[..]),
            ("a.bz2", b"BZh91AY&SY"),
            ("photo", b"\xff\xd8\xff\xe0"),
            ("film.txt", b"\0\0\0\x18ftypmp42"),
            ("picture", b"RIFF\x10\0\0\0WEBPVP8 "),
            ("letter.docx", b"PK\x03\x04\x14\0"),
            ("page.html.BR", b"anything"),
        ] {
            assert!(check(name, bytes), "{name}");
        }
        for (name, bytes) in [
            ("x.gz", &b"a text that is called so"[..]),
            ("empty.png", b""),
            ("sound", b"RIFF\x10\0\0\0WAVEfmt "),
            ("BZh", b"BZh9 is a name"),
        ] {
            assert!(!check(name, bytes), "{name}");
        }
    }
}
