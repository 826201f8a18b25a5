//! The configuration of a server of ours.

use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::store::Store;
use crate::{Error, Secret};

/// Name of the configuration file, in the store.
pub(super) const FILE: &str = "server.conf";

/// The first nats-server that knows every setting.
pub(crate) const NEWEST_SETTINGS: &str = "2.15.0";

/// When what the server acknowledged is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Within ten seconds: a power cut may lose what was acknowledged, a crash does not.
    #[default]
    Default,
    /// Before it is acknowledged; about a tenth of the dispatch rate.
    Always,
}

/// What goes into the configuration file.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of store, log and ports file.
    pub store: PathBuf,
    /// Whether the server is started in that folder: then nothing leads there by a path that others may change.
    pub inside: bool,
    /// Address and port; port -1 picks a free one.
    pub listen: String,
    /// When what was acknowledged is on disk.
    pub durability: Durability,
    /// Whether it has the settings that only the newest servers know: others end at once with them.
    pub newest_settings: bool,
    /// What it asks for; none lets everybody in.
    pub token: Option<Secret>,
    /// Further lines.
    pub extra: String,
}

impl Config {
    /// Writes the file into its store, for its owner alone, and says where it is.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written, or if the store's path is not UTF-8.
    pub(crate) fn write(&self, store: &Store) -> Result<PathBuf, Error> {
        let path = self.store.join(FILE);
        let io = |source| Error::Io { what: "write", path: path.clone(), source };
        store.replace(FILE, self.text().map_err(io)?.as_bytes())?;
        Ok(path)
    }

    fn text(&self) -> io::Result<String> {
        let not_utf8 = || io::Error::other("nats-server wants a path in UTF-8");
        let store = self.store.to_str().ok_or_else(not_utf8)?;
        let folder = if self.inside { "." } else { store };
        let sync = match self.durability {
            Durability::Default => "\"10s\"",
            Durability::Always => "always",
        };
        let consumers =
            if self.newest_settings { "\n  limits { default_max_consumers: 1000 }" } else { "" };
        let token = self.token.as_ref().map(|token| quoted(token.reveal()));
        let authorization =
            token.map_or_else(String::new, |token| format!("authorization {{ token: {token} }}\n"));
        // Without a monitoring port, which requires no token.
        Ok(format!(
            "\
server_name: \"bagpress-{name:08x}\"
listen: {listen}
{authorization}ports_file_dir: {folder}
log_file: {log}
logfile_size_limit: 16MB
logfile_max_num: 2
max_payload: 1MB
max_pending: 64MB
write_deadline: \"10s\"
jetstream {{
  store_dir: {folder}
  max_mem: 256MB
  max_file: {max_file}
  sync_interval: {sync}{consumers}
}}
{extra}
",
            name = crc32fast::hash(store.as_bytes()),
            listen = quoted(&self.listen),
            folder = quoted(folder),
            log = quoted(&format!("{folder}/{}", super::log::FILE)),
            max_file = max_file(&self.store),
            extra = self.extra,
        ))
    }
}

/// A string of the configuration language: double quotes, with backslash escapes.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // Writing into a string cannot fail.
            _ if c.is_ascii_control() => write!(quoted, "\\x{:02x}", u32::from(c)).unwrap_or(()),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Bytes that a server may store below `store`: what is there already and what is free, less a tenth of
/// that, since a server that met a full disk answers nothing until it is restarted.
#[must_use]
pub fn max_file(store: &Path) -> u64 {
    // A store that is yet to be made will be on the file system of the folder above it.
    let mut folders = store.ancestors().filter(|folder| !folder.as_os_str().is_empty());
    let Some(stat) = folders.find_map(|folder| rustix::fs::statvfs(folder).ok()) else {
        return 1 << 30;
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    (free - free / 10).saturating_add(held(&store.join("jetstream"))).min(i64::MAX.unsigned_abs())
}

/// Bytes on disk below `folder`. What a server removes meanwhile does not count.
fn held(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => held(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(newest_settings: bool) -> Config {
        Config {
            store: PathBuf::from("/no/such/store"),
            inside: false,
            listen: "127.0.0.1:-1".to_owned(),
            durability: Durability::Always,
            newest_settings,
            token: None,
            extra: "debug: true".to_owned(),
        }
    }

    #[test]
    fn quotes_backslashes_and_control_characters_are_escaped() {
        assert_eq!(quoted("a \"b\" \\c\n"), r#""a \"b\" \\c\x0a""#);
    }

    #[test]
    fn a_setting_that_an_older_server_does_not_know_is_left_out() {
        assert!(config(true).text().unwrap().contains("default_max_consumers: 1000"));
        assert!(!config(false).text().unwrap().contains("default_max_consumers"));
    }

    #[test]
    fn nothing_is_served_without_the_token() {
        let token = super::super::token::draw().unwrap();
        let text = Config { token: Some(token.clone()), ..config(true) }.text().unwrap();
        assert!(text.contains(&format!("authorization {{ token: \"{}\" }}\n", token.reveal())));
        assert!(!text.contains("http"), "monitoring asks for no token: {text}");
    }

    #[test]
    fn durability_and_further_lines_are_in_the_file() {
        let text = config(true).text().unwrap();
        assert!(text.contains("sync_interval: always\n"), "{text}");
        assert!(text.ends_with("debug: true\n"), "{text}");
    }

    #[test]
    fn what_the_store_holds_counts_as_room_for_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(held(&folder.path().join("jetstream")), 0);
        fs::create_dir_all(folder.path().join("jetstream/deep")).unwrap();
        fs::write(folder.path().join("jetstream/deep/1.blk"), vec![1; 1 << 20]).unwrap();
        assert!(held(&folder.path().join("jetstream")) >= 1 << 20);
    }

    #[test]
    fn a_store_that_is_yet_to_be_made_has_the_room_of_its_file_system() {
        assert!(max_file(Path::new("/no/such/store")) > 0);
    }
}
