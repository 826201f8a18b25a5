//! From words to flags that all do something: one that would do nothing is refused, by name.
//!
//! An exported `BAGPRESS_…` variable is for many commands: it never makes a flag of one of them an error.

use anyhow::Result;
use bagpress_broker::descriptor::ResultPath;
use bagpress_broker::{Address, quote};
use bagpress_producer::Usage;
use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches};

use crate::access::{self, long};
use crate::broker_cli::BrokerAt;
use crate::cli::{BagArgs, Cli, Verb};

/// When flags of some verbs do nothing.
struct Rule {
    verbs: &'static [&'static str],
    flags: &'static [&'static str],
    idle: Idle,
    /// What they are for.
    why: &'static str,
}

/// Beside what, or in the absence of what, a flag does nothing.
enum Idle {
    With(&'static [&'static str]),
    /// A variable that is exported counts as the flag.
    Without(&'static [&'static str]),
}

const SERVER: &[&str] = &["server", "context"];
const ASKS: &[&str] =
    &["run", "submit", "gather", "status", "cancel", "rm", "verify", "worker", "broker"];
const FOLLOWS: &[&str] = &["run", "gather"];
const MAKES: &[&str] = &["run", "submit"];

const RULES: &[Rule] = &[
    Rule {
        verbs: ASKS,
        flags: access::FLAGS,
        idle: Idle::Without(SERVER),
        why: "it is for a server that is named",
    },
    Rule {
        verbs: &["run", "gather", "verify"],
        flags: &["connect_timeout"],
        idle: Idle::Without(SERVER),
        why: "a local server is waited for anyway",
    },
    Rule {
        verbs: FOLLOWS,
        flags: &["workers", "nats_server", "durability"],
        idle: Idle::With(SERVER),
        why: "it is for a local cluster, and a server is named",
    },
    Rule {
        verbs: &["verify"],
        flags: &["nats_server"],
        idle: Idle::With(SERVER),
        why: "it is for the run's own store, and a server is named",
    },
    Rule {
        verbs: MAKES,
        flags: &["data", "seed", "bytes"],
        idle: Idle::Without(&["tasks"]),
        why: "it is for generated bags",
    },
    Rule {
        verbs: MAKES,
        flags: &["keep_inputs"],
        idle: Idle::With(&["tasks"]),
        why: "a generated bag has no inputs to keep",
    },
    Rule {
        verbs: MAKES,
        flags: &["get"],
        idle: Idle::With(&["out"]),
        why: "outputs are fetched into --out anyway",
    },
    Rule {
        verbs: &["rm"],
        flags: &["force", "outputs", "folder_only"],
        idle: Idle::With(&["orphans"]),
        why: "sweeping spares what a bag owns",
    },
    Rule {
        verbs: &["rm"],
        flags: &["runs"],
        idle: Idle::Without(&["orphans"]),
        why: "it names the folder to sweep",
    },
    Rule {
        verbs: &["rm"],
        flags: &["older_than"],
        idle: Idle::Without(SERVER),
        why: "it is for what a server has of unknown bags",
    },
    Rule {
        verbs: &["rm"],
        flags: &["server", "context", "connect_timeout"],
        idle: Idle::With(&["folder_only"]),
        why: "no server is asked",
    },
    Rule {
        verbs: &["broker"],
        flags: &["store", "listen", "nats_server", "durability"],
        idle: Idle::With(&["init"]),
        why: "it is for a server of our own, and --init starts none",
    },
    Rule {
        verbs: &["broker"],
        flags: &["server", "context", "replicas"],
        idle: Idle::Without(&["init"]),
        why: "it is for a server that runs already",
    },
    Rule {
        verbs: &["broker"],
        flags: access::FLAGS,
        idle: Idle::Without(&["init"]),
        why: "it is for a server that runs already",
    },
];

/// Parses the command line, or ends with its help.
///
/// # Errors
///
/// [`Usage`] for a flag that would do nothing, or an address that is none.
pub(crate) fn parse() -> Result<Cli> {
    let command = Cli::command().mut_subcommands(|verb| verb.mut_args(unless_empty));
    let matches = command.get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Some((verb, matches)) = matches.subcommand() {
        refuse_idle(verb, matches)?;
        if let Some(at) = cli.verb.broker() {
            settle(at, matches)?;
        }
        match &mut cli.verb {
            Verb::Run(args) => refuse_idle_values(&args.bag)?,
            Verb::Submit(args) => refuse_idle_values(&args.bag)?,
            Verb::Status(args)
                if args.failed && args.bag.as_ref().is_some_and(|bag| bag.contains('/')) =>
            {
                if let Some(id) = SERVER.iter().find(|id| is_typed(matches, id)) {
                    let why = "failed tasks are read from its ledger";
                    return Err(idle_flag(&long(id), "with --failed and a run folder", why));
                }
            }
            Verb::Rm(args)
                if args.orphans
                    && !SERVER.iter().any(|id| is_given(matches, id))
                    && is_typed(matches, "connect_timeout") =>
            {
                let why = "run folders alone are swept";
                return Err(idle_flag("--connect-timeout", "without --server or --context", why));
            }
            _ => {}
        }
    }
    Ok(cli)
}

/// A variable that is exported and empty is as one that is not.
fn unless_empty(arg: Arg) -> Arg {
    let value = arg.get_env().and_then(std::env::var_os);
    if value.is_some_and(|value| value.is_empty()) { arg.env(Resettable::Reset) } else { arg }
}

/// Whether somebody typed a flag.
fn is_typed(matches: &ArgMatches, id: &str) -> bool {
    source(matches, id) == Some(ValueSource::CommandLine)
}

/// Whether it is typed or exported.
fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches!(source(matches, id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

fn source(matches: &ArgMatches, id: &str) -> Option<ValueSource> {
    matches.try_contains_id(id).is_ok().then(|| matches.value_source(id)).flatten()
}

fn refuse_idle(verb: &str, matches: &ArgMatches) -> Result<()> {
    for Rule { flags, idle, why, .. } in RULES.iter().filter(|rule| rule.verbs.contains(&verb)) {
        for flag in flags.iter().filter(|flag| is_typed(matches, flag)) {
            let flag = long(flag);
            match idle {
                Idle::With(others) => {
                    if let Some(other) = others.iter().find(|other| is_typed(matches, other)) {
                        return Err(idle_flag(&flag, &format!("with {}", long(other)), why));
                    }
                }
                Idle::Without(others) => {
                    if !others.iter().any(|other| is_given(matches, other)) {
                        let others: Vec<_> = others.iter().map(|other| long(other)).collect();
                        let others = others.join(" or ");
                        return Err(idle_flag(&flag, &format!("without {others}"), why));
                    }
                }
            }
        }
    }
    Ok(())
}

/// A flag that does nothing `beside` what else was said.
pub(crate) fn idle_flag(flag: &str, beside: &str, why: &str) -> anyhow::Error {
    Usage::error(format!("{flag} does nothing {beside}: {why}"), format!("leave {flag} out"))
}

fn refuse_idle_values(bag: &BagArgs) -> Result<()> {
    let objects = "--results objects";
    for (flag, is_set) in [("--get", bag.get), ("--keep-inputs", bag.keep_inputs)] {
        if is_set && bag.results != ResultPath::Objects {
            return Err(idle_flag(flag, &format!("without {objects}"), "it is about objects"));
        }
    }
    Ok(())
}

/// Settles which broker is meant: what is typed goes before what is exported.
fn settle(at: &mut BrokerAt, matches: &ArgMatches) -> Result<()> {
    let exported = |id| source(matches, id) == Some(ValueSource::EnvVariable);
    if exported("server") && is_typed(matches, "context") {
        at.server = None;
    }
    if exported("context") && is_typed(matches, "server") {
        at.context = None;
    }
    at.from = came_from(matches);
    if at.server.is_some() && at.context.is_some() {
        let named = if is_typed(matches, "server") {
            "--server and --context"
        } else {
            "BAGPRESS_SERVER and BAGPRESS_CONTEXT"
        };
        return Err(Usage::error(format!("{named} both name a broker"), "leave one of them out"));
    }
    access::settle(at, &|id| source(matches, id))
}

/// The flag or the variable that names the server.
fn came_from(matches: &ArgMatches) -> &'static str {
    let exported = source(matches, "server") == Some(ValueSource::EnvVariable);
    if exported { "BAGPRESS_SERVER" } else { "--server" }
}

/// The address of a NATS server; `from` is the flag or variable that it came from.
pub(crate) fn parse_url(url: &str, from: &str) -> Result<Address> {
    Address::parse(url).map_err(|why| {
        let shown = quote::name(Address::shown(url));
        Usage::error(
            format!("{from}: {shown} is no address of a NATS server: {}", quote::words(&why)),
            "give one such as nats://127.0.0.1:4222; schemes are nats and tls",
        )
    })
}
