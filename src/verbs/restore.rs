//! `bagpress restore`.

use std::process::ExitCode;

use anyhow::Result;
use bagpress_broker::descriptor::{ResultPath, Verify};
use bagpress_producer::{Blocks, Existing, Request, Selection};

use super::prepare::with_references;
use super::run::start;
use crate::cli::restore::RestoreArgs;
use crate::terminal::Signals;

pub(crate) async fn restore(args: RestoreArgs) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let existing = if args.overwrite { Existing::Overwrite } else { Existing::Refuse };
    let request = Request {
        inputs: args.inputs,
        references: Vec::new(),
        restore: true,
        selection: Selection { existing, ..Selection::default() },
        generated: None,
        codec: None,
        delivery: args.delivery,
        results: ResultPath::Staged,
        out: Some(args.out),
        get: false,
        keep_inputs: false,
        name: args.name,
        runs: args.runs,
        trust: args.trust.trust(),
        pool: args.pool,
        attempts: args.attempts,
        // What was restored is checked by nobody but who restores it.
        verify: Verify::Worker,
        transfer: args.transfer.into(),
        stats: None,
        pack: args.pack,
        block: Blocks::None,
        ttl: None,
    };
    let request = Box::pin(with_references(request, args.refs.as_deref(), &args.reach)).await?;
    let follow = (&args.follow, &args.reach, &args.local);
    start(request, args.dry_run, follow, &mut signals).await
}
