//! `--dry-run` of `bagpress run`, `submit` and `restore`.

use std::io::{BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Result;
use bagpress_producer::Request;
use bagpress_producer::{Preview, message, preview};

use crate::exit::SOME_FAILED;
use crate::terminal::{notes, print_json, unwritable};

/// Says what a run of `request` would do: one line per file on stdout, counts on stderr; or all of it as JSON.
pub(crate) fn show(request: &Request, json: bool) -> Result<ExitCode> {
    let found = if json {
        preview(request, None)?
    } else {
        let mut lines = BufWriter::new(std::io::stdout().lock());
        let found = preview(request, Some(&mut lines)).and_then(|found| {
            lines.flush()?;
            Ok(found)
        });
        match found {
            // A reader that left has seen enough.
            Err(error) if is_broken_pipe(&error) => return Ok(ExitCode::SUCCESS),
            Err(error) if error.is::<std::io::Error>() => {
                return Err(unwritable(&error));
            }
            found => found?,
        }
    };
    if json {
        print_json(&found)?;
    } else {
        say(&found, if request.restore { "restore" } else { "compress" });
    }
    Ok(if found.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) })
}

fn say(found: &Preview, what: &str) {
    notes(&found.notes);
    let files = if found.files == 1 { "file" } else { "files" };
    let mut would = vec![format!("would {what} {} {files}, {} bytes", found.files, found.bytes)];
    if found.removed > 0 {
        would.push(format!("would remove {} of them after that", found.removed));
    }
    if found.folders > 0 {
        would.push(format!("would create {} folders without files", found.folders));
    }
    if !found.refused.is_empty() {
        would.push(format!("{} would fail", found.refused.len()));
    }
    message(&format!("{}. Nothing was done.", would.join("; ")));
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let of = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
    };
    error.chain().any(|cause| of(cause) == Some(ErrorKind::BrokenPipe))
}
