//! From words to the command line as data: parsed, settled, and without a flag that would do nothing.

use anyhow::Result;
use bagpress_producer::Usage;
use clap::builder::Resettable;
use clap::{Arg, FromArgMatches};

use crate::cli::broker::BrokerAt;
use crate::cli::{self, Cli, Verb};
use crate::given::Given;
use crate::{access, idle};

/// Parses the command line, or ends with its help.
///
/// # Errors
///
/// [`Usage`] for a flag that would do nothing, or a text that is not an address.
pub(crate) fn parse() -> Result<Cli> {
    let matches =
        cli::each_verb(Cli::grammar(), &|verb, _| verb.mut_args(unless_empty)).get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Some((name, mut matches)) = matches.subcommand() {
        // The flags are those of the verb within.
        while let Some((_, within)) = matches.subcommand() {
            matches = within;
        }
        let given = Given(matches);
        if let Verb::Restore(args) = &cli.verb {
            args.refuse_range_of_objects()?;
        }
        idle::refuse(name, &cli.verb, given)?;
        if let Some(at) = cli.verb.broker() {
            settle(at, given)?;
        }
    }
    Ok(cli)
}

/// A variable that is exported and empty is as one that is not.
fn unless_empty(arg: Arg) -> Arg {
    let value = arg.get_env().and_then(std::env::var_os);
    if value.is_some_and(|value| value.is_empty()) { arg.env(Resettable::Reset) } else { arg }
}

/// Settles which broker is meant: what is typed goes before what is exported.
fn settle(at: &mut BrokerAt, given: Given<'_>) -> Result<()> {
    if given.is_exported("server") && given.is_typed("context") {
        at.server = None;
    }
    if given.is_exported("context") && given.is_typed("server") {
        at.context = None;
    }
    at.from = if given.is_exported("server") { "BAGPRESS_SERVER" } else { "--server" };
    if at.server.is_some() && at.context.is_some() {
        let named = if given.is_typed("server") {
            "--server and --context"
        } else {
            "BAGPRESS_SERVER and BAGPRESS_CONTEXT"
        };
        return Err(Usage::error(format!("{named} both name a broker"), "leave one of them out"));
    }
    access::settle(at, given)
}
