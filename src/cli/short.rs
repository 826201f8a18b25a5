//! What `-h` of each verb shows; `--help` shows everything.

use clap::Command;

/// The options that most people need, by verb; arguments without a flag are always shown.
const SHORT: &[(&str, &[&str])] = &[
    (
        "run",
        &[
            "out", "codec", "name", "exclude", "update", "dry_run", "tasks", "bytes", "workers",
            "server",
        ],
    ),
    (
        "submit",
        &[
            "out", "codec", "results", "name", "exclude", "update", "tasks", "bytes", "server",
            "context",
        ],
    ),
    (
        "gather",
        &[
            "retry_failed",
            "repair",
            "resume",
            "deadline",
            "json",
            "quiet",
            "workers",
            "server",
            "context",
        ],
    ),
    (
        "restore",
        &[
            "out",
            "range",
            "overwrite",
            "dry_run",
            "name",
            "json",
            "quiet",
            "workers",
            "server",
            "context",
        ],
    ),
    ("results", &["follow"]),
    ("status", &["watch", "failed", "json", "server", "context"]),
    ("cancel", &["json", "server", "context"]),
    ("rm", &["force", "outputs", "folder_only", "orphans", "dry_run", "json", "server", "context"]),
    ("verify", &["inputs", "json", "server", "context"]),
    ("object put", &["bucket", "name", "ttl", "json", "server", "context"]),
    ("object get", &["list", "out", "deadline", "run", "json", "server", "context"]),
    ("object wait", &["list", "num", "timeout", "run", "json", "server", "context"]),
    ("object info", &["list", "digest", "run", "json", "server", "context"]),
    ("object ls", &["holders", "json", "server", "context"]),
    ("object pin", &["list", "name", "run", "json", "server", "context"]),
    ("object unpin", &["list", "name", "run", "json", "server", "context"]),
    ("object free", &["list", "run", "json", "server", "context"]),
    (
        "worker",
        &[
            "slots",
            "pool",
            "allow",
            "allow_read",
            "idle_exit",
            "log",
            "server",
            "context",
            "token_file",
        ],
    ),
    ("broker", &["init", "auth", "store", "listen", "keep_token", "replicas", "server", "context"]),
];

/// Hides all other options from `-h`.
pub(super) fn shorten(command: Command) -> Command {
    each_verb(command, &|verb, name| {
        let shown = SHORT.iter().find(|(of, _)| *of == name);
        let shown = shown.map_or(&[][..], |(_, shown)| shown);
        verb.mut_args(|arg| {
            let is_shown = arg.is_positional() || shown.contains(&arg.get_id().as_str());
            arg.hide_short_help(!is_shown)
        })
    })
}

/// Changes each verb, also one within another, by its name: `run`, `object put`.
pub(crate) fn each_verb(command: Command, change: &dyn Fn(Command, &str) -> Command) -> Command {
    within(command, "", change)
}

fn within(command: Command, above: &str, change: &dyn Fn(Command, &str) -> Command) -> Command {
    command.mut_subcommands(|verb| {
        let name = format!("{above} {}", verb.get_name()).trim_start().to_owned();
        if verb.has_subcommands() { within(verb, &name, change) } else { change(verb, &name) }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_verb_is_short_by_options_that_it_has_and_long_by_all() {
        let seen = std::cell::RefCell::new(Vec::new());
        each_verb(shorten(Cli::command()), &|verb, name| {
            seen.borrow_mut().push((name.to_owned(), verb.clone()));
            verb
        });
        assert_eq!(seen.borrow().len(), SHORT.len());
        for (name, mut verb) in seen.into_inner() {
            let (_, shown) = SHORT.iter().find(|(of, _)| *of == name).unwrap();
            for id in *shown {
                assert!(verb.get_arguments().any(|arg| arg.get_id() == id), "{name} has no {id}");
            }
            let long = verb.render_long_help().to_string();
            let flags: Vec<_> = verb.get_arguments().filter_map(|arg| arg.get_long()).collect();
            assert!(flags.len() > shown.len(), "{name}");
            for flag in flags {
                assert!(long.contains(&format!("--{flag}")), "{name} --help without --{flag}");
            }
        }
    }
}
