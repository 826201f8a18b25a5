//! Foreign names, made safe to print: no name moves the cursor, forges a line or ends a quotation.

use std::ffi::OsStr;

use os_display::Quotable;

/// A name of a file as `ls` prints it: as it is where that is harmless, otherwise quoted for a shell, so that it can be
/// pasted into one.
///
/// ```
/// use bagpress_broker::quote::name;
/// assert_eq!(name("photos/a.png"), "photos/a.png");
/// assert_eq!(name("two words"), "'two words'");
/// assert_eq!(name("x\nerror: 0 of 4"), r"$'x\nerror: 0 of 4'");
/// ```
#[must_use]
pub fn name(path: impl AsRef<OsStr>) -> String {
    path.as_ref().maybe_quote().to_string()
}

/// Somebody else's words, on one line: control characters, and those that turn the direction of writing, are shown as
/// escapes.
///
/// ```
/// assert_eq!(bagpress_broker::quote::words("a\u{1b}[31mb"), r"a\u{1b}[31mb");
/// ```
#[must_use]
pub fn words(text: &str) -> String {
    escaped(text, |c| c.escape_default().to_string(), |_| false)
}

/// Whole lines, tables among them, in which words of others may be: as [`words`], but lines end and tabs are kept.
///
/// ```
/// assert_eq!(bagpress_broker::quote::lines("a\tb\u{9b}c\n"), "a\tb\\u{9b}c\n");
/// ```
#[must_use]
pub fn lines(text: &str) -> String {
    escaped(text, |c| c.escape_default().to_string(), |c| matches!(c, '\n' | '\t'))
}

/// JSON for scripts, which may be read at a terminal all the same: the same JSON, with the escapes of JSON.
///
/// ```
/// assert_eq!(bagpress_broker::quote::json("\"\u{9b}31m\""), r#""\u009b31m""#);
/// ```
#[must_use]
pub fn json(text: &str) -> String {
    // None of them is outside the basic plane; a line ends only between values.
    escaped(text, |c| format!("\\u{:04x}", u32::from(c)), |c| c == '\n')
}

fn escaped(text: &str, escape: impl Fn(char) -> String, kept: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() || turns) && !kept(c) {
            safe.push_str(&escape(c));
        } else {
            safe.push(c);
        }
    }
    safe
}
