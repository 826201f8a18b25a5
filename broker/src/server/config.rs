//! The configuration of a server of ours.

use std::fmt::Write;
use std::path::{Path, PathBuf};

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
    /// Address and port; port -1 is a free one.
    pub listen: String,
    /// When what was acknowledged is on disk.
    pub durability: Durability,
    /// The server's version: some settings are unknown to older ones.
    pub version: String,
    /// Further lines.
    pub extra: String,
}

impl Config {
    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let sync = match self.durability {
            Durability::Default => "\"10s\"",
            Durability::Always => "always",
        };
        let mut text = String::new();
        // Writing into a string cannot fail.
        let mut line = |args: std::fmt::Arguments<'_>| {
            writeln!(text, "{args}").ok();
        };
        line(format_args!("server_name: bagpress_{}", std::process::id()));
        line(format_args!("listen: {}", quoted(&self.listen)));
        line(format_args!("http: \"127.0.0.1:-1\""));
        line(format_args!("ports_file_dir: {}", quoted(&self.store.to_string_lossy())));
        line(format_args!("max_payload: 1MB"));
        line(format_args!("max_pending: 64MB"));
        line(format_args!("write_deadline: \"10s\""));
        line(format_args!("jetstream {{"));
        line(format_args!("  store_dir: {}", quoted(&self.store.to_string_lossy())));
        line(format_args!("  max_mem: 256MB"));
        line(format_args!("  max_file: {}", max_file(&self.store)));
        line(format_args!("  sync_interval: {sync}"));
        if crate::version_at_least(&self.version, "2.15.0") {
            line(format_args!("  limits {{ default_max_consumers: 1000 }}"));
        }
        line(format_args!("}}"));
        line(format_args!("{}", self.extra));
        text
    }
}

/// A string of the configuration language: double quotes, with backslash escapes.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// Bytes that a server may store below `store`: a tenth of the free space stays free, since a server
/// that met a full disk answers nothing until it is restarted.
#[must_use]
pub fn max_file(store: &Path) -> u64 {
    let Ok(stat) = rustix::fs::statvfs(store) else { return 1 << 30 };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    free - free / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        assert_eq!(quoted(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }
}
