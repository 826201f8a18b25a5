//! Measures Bagpress: against what this machine can do, against its peers, with nothing to do, and with a
//! worker that dies.
//!
//! Runs of what is compared are interleaved, and a ratio is taken inside each round, so a machine
//! that is busy for a while is busy for both sides. Every number comes with its minimum, maximum and
//! count.

mod chain;
mod cli;
mod cluster;
mod compare;
mod data;
mod drill;
mod incompressible;
mod kill;
mod limit;
mod machine;
mod noop;
mod output;
mod outputs;
mod overhead;
mod payload;
mod peer;
mod peer_report;
mod program;
mod quiet;
mod retry;
mod server;
mod session;
mod spread;
mod systems;
mod table;

use std::process::ExitCode;

use bagpress_producer::message;
use clap::Parser;

fn main() -> ExitCode {
    if cfg!(debug_assertions) {
        message("note: built without --release, so no time here means anything");
    }
    let ran = match cli::Cli::parse().verb {
        cli::Verb::Limit(args) => limit::limit(&args),
        cli::Verb::Overhead(args) => overhead::overhead(&args),
        cli::Verb::Compare(args) => compare::compare(&args),
        cli::Verb::Peer(args) => peer_report::peer(&args),
        cli::Verb::Noop(args) => noop::noop(&args),
        cli::Verb::Kill(args) => kill::kill(&args),
        cli::Verb::Drill(args) => drill::drill(&args),
        cli::Verb::Incompressible(args) => incompressible::incompressible(&args),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            message(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
