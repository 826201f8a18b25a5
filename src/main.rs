//! The command line: parses, calls one function of a crate, maps errors to exit codes.

mod access;
mod broker_at;
mod cli;
mod context;
mod exit;
mod flags;
mod given;
mod idle;
mod logging;
mod system;
mod terminal;
mod verbs;

use std::process::ExitCode;

use anyhow::Context;
use bagpress_broker::limits;
use bagpress_broker::server::guard;

use crate::cli::Verb;
use crate::terminal::interruptible;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|verb| verb == guard::VERB) {
        let error = guard::exec(arguments);
        return exit::report(&anyhow::Error::from(error).context("start a child"));
    }
    let cli = match flags::parse() {
        Ok(cli) => cli,
        Err(error) => return exit::report(&error),
    };
    system::raise_open_files();
    system::use_small_pages();
    let mut builder = match cli.verb.threads() {
        // A worker waits on one thread and compresses on others.
        None => tokio::runtime::Builder::new_current_thread(),
        Some(threads) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    let runtime = builder.enable_all().max_blocking_threads(limits::blocking_threads()).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::from(error).context("start")),
    };
    // On the main thread: children die with the thread that started them.
    let ended = runtime.block_on(async {
        system::survive_file_size_limit().context("wait for signals")?;
        match cli.verb {
            Verb::Run(args) => Box::pin(verbs::run::run(args)).await,
            Verb::Submit(args) => Box::pin(interruptible(verbs::submit::submit(args))).await,
            Verb::Gather(args) => Box::pin(verbs::run::gather(args)).await,
            Verb::Restore(args) => Box::pin(verbs::restore::restore(args)).await,
            Verb::Status(args) => Box::pin(interruptible(verbs::status::status(args))).await,
            Verb::Results(args) => Box::pin(interruptible(verbs::results::results(args))).await,
            Verb::Cancel(args) => Box::pin(interruptible(verbs::cancel::cancel(args))).await,
            Verb::Rm(args) => Box::pin(interruptible(verbs::rm::rm(args))).await,
            Verb::Verify(args) => Box::pin(interruptible(verbs::verify::verify(args))).await,
            Verb::Object(args) => Box::pin(interruptible(verbs::object::object(args))).await,
            Verb::Worker(args) => Box::pin(verbs::worker::worker(args)).await,
            Verb::Broker(args) => Box::pin(verbs::broker::broker(args)).await,
        }
    });
    // A reader thread that hangs in the file system must not keep us from ending.
    runtime.shutdown_background();
    let code = match ended {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    };
    logging::finish();
    code
}
