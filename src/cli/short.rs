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
    command.mut_subcommands(|verb| {
        let shown = SHORT.iter().find(|(name, _)| *name == verb.get_name());
        let shown = shown.map_or(&[][..], |(_, shown)| shown);
        verb.mut_args(|arg| {
            let is_shown = arg.is_positional() || shown.contains(&arg.get_id().as_str());
            arg.hide_short_help(!is_shown)
        })
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_verb_is_short_by_options_that_it_has_and_long_by_all() {
        for verb in shorten(Cli::command()).get_subcommands_mut() {
            let name = verb.get_name().to_owned();
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
