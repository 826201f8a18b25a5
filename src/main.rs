//! The command line: parses, calls one function of a crate, maps errors to exit codes.

mod access;
mod auth_cmd;
mod bag_cli;
mod bag_cmd;
mod broker_at;
mod broker_cli;
mod broker_cmd;
mod cli;
mod context;
mod exit;
mod flags;
mod logging;
mod preview_cmd;
mod rm_cmd;
mod run_cmd;
mod select_cli;
mod system;
mod terminal;
mod verify_cmd;
mod worker_cmd;

use std::process::ExitCode;

use anyhow::Context;
use bagpress_broker::limits;
use bagpress_broker::server::guard;

use crate::terminal::interruptible;

/// A worker and a gatherer make and drop thousands of small messages a second: with the system's
/// allocator that is a tenth of what an empty task costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
            cli::Verb::Run(args) => Box::pin(run_cmd::run(args)).await,
            cli::Verb::Submit(args) => Box::pin(interruptible(run_cmd::submit(args))).await,
            cli::Verb::Gather(args) => Box::pin(run_cmd::gather(args)).await,
            cli::Verb::Status(args) => Box::pin(interruptible(bag_cmd::status(args))).await,
            cli::Verb::Cancel(args) => Box::pin(interruptible(bag_cmd::cancel(args))).await,
            cli::Verb::Rm(args) => Box::pin(interruptible(rm_cmd::rm(args))).await,
            cli::Verb::Verify(args) => Box::pin(interruptible(verify_cmd::verify(args))).await,
            cli::Verb::Worker(args) => Box::pin(worker_cmd::worker(args)).await,
            cli::Verb::Broker(args) => Box::pin(broker_cmd::broker(args)).await,
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
