//! `bagpress results`.

use std::io::{BufWriter, ErrorKind, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bagpress_broker::quote;
use bagpress_producer::status::results::Results;
use bagpress_producer::{RunFolder, message};

use crate::cli::results::ResultsArgs;
use crate::exit::SOME_FAILED;
use crate::terminal::unwritable;

/// Between two looks at the ledger.
const LOOK: Duration = Duration::from_millis(200);
/// After so long without a process of this machine that gathers the run, it is said.
const SAY_AFTER: Duration = Duration::from_secs(3);

pub(crate) async fn results(args: ResultsArgs) -> Result<ExitCode> {
    let folder = RunFolder::existing(&args.folder, args.trust.trust())?;
    let opening = tokio::task::spawn_blocking(move || Results::open(folder));
    let mut results = opening.await.context("read the run")??;
    let mut quiet = Quiet::default();
    loop {
        let looking = tokio::task::spawn_blocking(move || {
            let looked = print_new(&mut results);
            (results, looked)
        });
        let (back, looked) = looking.await.context("read the ledger")?;
        results = back;
        let ended = looked?.is_break() || !args.follow || results.is_complete();
        if ended {
            let failed = results.has_failed();
            return Ok(if failed { ExitCode::from(SOME_FAILED) } else { ExitCode::SUCCESS });
        }
        quiet.look(results.folder());
        tokio::time::sleep(LOOK).await;
    }
}

/// Prints what is new, a line each. Breaks when the reader has left.
fn print_new(results: &mut Results) -> Result<ControlFlow<()>> {
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let looked = results.look(|line| {
        let json = serde_json::to_string(line)?;
        written = writeln!(stdout, "{}", quote::json(&json));
        // Nothing more is read for nobody.
        if written.is_err() { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    });
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(unwritable(&error)),
        Ok(()) => looked.map(|()| ControlFlow::Continue(())),
    }
}

/// Says, once each time, that nobody gathers the run.
#[derive(Default)]
struct Quiet {
    gathered: bool,
    since: Option<Instant>,
    said: bool,
}

impl Quiet {
    fn look(&mut self, folder: &RunFolder) {
        if folder.gatherer().is_some() {
            // Whoever ends now is another one than was missed before.
            *self = Self { gathered: true, ..Self::default() };
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if !self.said && since.elapsed() > SAY_AFTER {
            let folder = quote::name(folder.path());
            let more = if self.gathered { " any more" } else { "" };
            message(&format!(
                "note: no process of this machine gathers the run{more}; it goes on with `bagpress gather {folder}`, and with --resume if it was cancelled"
            ));
            self.said = true;
        }
    }
}
