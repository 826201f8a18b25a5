//! What is no input of a bag although it was found: counted by kind, and the first few named.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use bagpress_broker::quote;

/// How many of each kind are named.
const NAMED: usize = 3;

/// Why something is no input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A symbolic link that was found, not named.
    SymbolicLink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device.
    Device,
    /// A folder of part files of some bag.
    PartFolder,
    /// The folder of another run.
    RunFolder,
    /// The folder that receives the outputs.
    OutFolder,
    /// An output of an earlier run of this bag, in the folder of the file that it was made from.
    Ours,
    /// What a glob left out.
    Excluded,
    /// A file that is compressed already.
    Compressed,
    /// A line of a list that was there before.
    Twice,
    /// An output that gives, by the same name, what another one of its run gives.
    Another,
}

impl Kind {
    /// The kind of what is neither a folder nor a file.
    pub(crate) fn of(file_type: FileType) -> Self {
        if file_type.is_symlink() {
            Self::SymbolicLink
        } else if file_type.is_fifo() {
            Self::Fifo
        } else if file_type.is_socket() {
            Self::Socket
        } else {
            Self::Device
        }
    }

    /// Its name for scripts, which stays.
    fn key(self) -> &'static str {
        match self {
            Self::Ours => "outputs of ours",
            kind => kind.words()[1],
        }
    }

    /// Its name for people, of one and of more.
    fn words(self) -> [&'static str; 2] {
        match self {
            Self::SymbolicLink => ["symbolic link", "symbolic links"],
            Self::Fifo => ["FIFO", "FIFOs"],
            Self::Socket => ["socket", "sockets"],
            Self::Device => ["device", "devices"],
            Self::PartFolder => ["folder of part files", "folders of part files"],
            Self::RunFolder => ["run folder", "run folders"],
            Self::OutFolder => ["output folder", "output folders"],
            Self::Ours => ["output of an earlier run", "outputs of earlier runs"],
            Self::Excluded => ["excluded", "excluded"],
            Self::Compressed => ["compressed already", "compressed already"],
            Self::Twice => ["named twice", "named twice"],
            Self::Another => ["gives what another output gives", "give what other outputs give"],
        }
    }
}

/// What was skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    kinds: BTreeMap<Kind, (u64, Vec<String>)>,
}

impl Skipped {
    /// Counts one more.
    pub(crate) fn add(&mut self, kind: Kind, path: &Path) {
        let (count, names) = self.kinds.entry(kind).or_default();
        *count += 1;
        if names.len() < NAMED {
            names.push(quote::name(path));
        }
    }

    /// How many of a kind.
    pub(crate) fn of(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).map_or(0, |(count, _)| *count)
    }

    /// Whether nothing was.
    pub(crate) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Counts by kind, for scripts.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.kinds.iter().map(|(kind, (count, _))| (kind.key(), *count)).collect()
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_kind = |(kind, (count, names)): (&Kind, &(u64, Vec<String>))| {
            let more = if *count > names.len() as u64 { ", …" } else { "" };
            let word = kind.words()[usize::from(*count > 1)];
            format!("{count} {word} ({}{more})", names.join(", "))
        };
        f.write_str(&self.kinds.iter().map(of_kind).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_of_each_kind_are_named() {
        let mut skipped = Skipped::default();
        assert!(skipped.is_empty());
        skipped.add(Kind::Fifo, Path::new("pipe\nline"));
        for name in ["a", "b", "c", "d"] {
            skipped.add(Kind::SymbolicLink, Path::new(name));
        }
        let said = skipped.to_string();
        assert_eq!(said, r"4 symbolic links (a, b, c, …), 1 FIFO ($'pipe\nline')");
        assert_eq!((skipped.of(Kind::Fifo), skipped.counts()["symbolic links"]), (1, 4));
    }
}
