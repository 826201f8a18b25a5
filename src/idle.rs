//! Flags that would do nothing are refused, by name.
//!
//! An exported `BAGPRESS_…` variable is for many commands: it never makes a flag of one of them an error.

use anyhow::Result;
use bagpress_broker::descriptor::ResultPath;
use bagpress_producer::Usage;

use crate::cli::Verb;
use crate::cli::bag::BagArgs;
use crate::cli::broker::AccessArgs;
use crate::given::{Given, long};

/// When flags of some verbs do nothing.
struct Rule {
    verbs: &'static [&'static str],
    flags: &'static [&'static str],
    idle: Idle,
    /// What they are for.
    why: &'static str,
}

/// With which other flags, or without which, a flag does nothing.
enum Idle {
    With(&'static [&'static str]),
    /// A variable that is exported counts as the flag.
    Without(&'static [&'static str]),
}

const SERVER: &[&str] = &["server", "context"];
const ASKS: &[&str] = &[
    "run", "submit", "gather", "restore", "status", "cancel", "rm", "verify", "object", "worker",
    "broker",
];
const FOLLOWS: &[&str] = &["run", "gather", "restore"];
const MAKES: &[&str] = &["run", "submit"];

const RULES: &[Rule] = &[
    Rule {
        verbs: ASKS,
        flags: AccessArgs::FLAGS,
        idle: Idle::Without(SERVER),
        why: "it is for a server that is named",
    },
    Rule {
        verbs: &["run", "gather", "restore", "verify"],
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
        verbs: &["restore"],
        flags: &[
            "remove_source",
            "refs",
            "dry_run",
            "remove_source",
            "delivery",
            "pool",
            "pack",
            "attempts",
            "transfer",
            "name",
            "runs",
            "stall_timeout",
            "deadline",
            "max_fails",
            "json",
            "workers",
            "nats_server",
            "durability",
            "server",
            "context",
        ],
        idle: Idle::With(&["range"]),
        why: "a range is restored by this process, without a bag",
    },
    Rule {
        verbs: &["object"],
        flags: &["nats_server", "trust_folder"],
        idle: Idle::Without(&["run", "bucket"]),
        why: "it is for the store of a run",
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
        verbs: MAKES,
        flags: &["trust_folder"],
        idle: Idle::With(&["dry_run"]),
        why: "a dry run reads no run folder",
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
        flags: &["store", "listen", "nats_server", "durability", "keep_token", "no_auth"],
        idle: Idle::With(&["init"]),
        why: "it is for a server of our own, and --init starts none",
    },
    Rule {
        verbs: &["broker"],
        flags: &["keep_token"],
        idle: Idle::With(&["no_auth"]),
        why: "no token is required",
    },
    Rule {
        verbs: &["broker"],
        flags: &["server", "context", "replicas"],
        idle: Idle::Without(&["init"]),
        why: "it is for a server that runs already",
    },
    Rule {
        verbs: &["broker"],
        flags: AccessArgs::FLAGS,
        idle: Idle::Without(&["init"]),
        why: "it is for a server that runs already",
    },
];

/// Refuses the flags of a verb that somebody typed and that do nothing.
///
/// # Errors
///
/// [`Usage`], which names the flag.
pub(crate) fn refuse(name: &str, verb: &Verb, given: Given<'_>) -> Result<()> {
    for Rule { flags, idle, why, .. } in RULES.iter().filter(|rule| rule.verbs.contains(&name)) {
        for flag in flags.iter().filter(|flag| given.is_typed(flag)) {
            let flag = long(flag);
            match idle {
                Idle::With(others) => {
                    if let Some(other) = others.iter().find(|other| given.is_typed(other)) {
                        return Err(idle_flag(&flag, &format!("with {}", long(other)), why));
                    }
                }
                Idle::Without(others) => {
                    if !others.iter().any(|other| given.is_given(other)) {
                        let others: Vec<_> = others.iter().map(|other| long(other)).collect();
                        let others = others.join(" or ");
                        return Err(idle_flag(&flag, &format!("without {others}"), why));
                    }
                }
            }
        }
    }
    refuse_by_value(verb, given)
}

/// The same, where the value of another argument decides.
fn refuse_by_value(verb: &Verb, given: Given<'_>) -> Result<()> {
    match verb {
        Verb::Run(args) => refuse_of_objects(&args.bag),
        Verb::Submit(args) => refuse_of_objects(&args.bag),
        Verb::Status(args) if args.bag.is_none() && args.common.trust.trust_folder => {
            Err(idle_flag("--trust-folder", "without BAG", "no run folder is read"))
        }
        Verb::Status(args)
            if args.failed && args.bag.as_ref().is_some_and(|bag| bag.contains('/')) =>
        {
            SERVER.iter().find(|id| given.is_typed(id)).map_or(Ok(()), |id| {
                let why = "failed tasks are read from its ledger";
                Err(idle_flag(&long(id), "with --failed and a run folder", why))
            })
        }
        Verb::Rm(args)
            if args.orphans
                && !SERVER.iter().any(|id| given.is_given(id))
                && given.is_typed("connect_timeout") =>
        {
            let why = "run folders alone are swept";
            Err(idle_flag("--connect-timeout", "without --server or --context", why))
        }
        _ => Ok(()),
    }
}

fn refuse_of_objects(bag: &BagArgs) -> Result<()> {
    let objects = "--results objects";
    let flags =
        [("--get", bag.get), ("--keep-inputs", bag.keep_inputs), ("--ttl", bag.ttl.is_some())];
    for (flag, is_set) in flags {
        if is_set && bag.results != ResultPath::Objects {
            return Err(idle_flag(flag, &format!("without {objects}"), "it is about objects"));
        }
    }
    Ok(())
}

/// A flag that does nothing, `when` other things are said as they are.
pub(crate) fn idle_flag(flag: &str, when: &str, why: &str) -> anyhow::Error {
    Usage::error(format!("{flag} does nothing {when}: {why}"), format!("leave {flag} out"))
}
