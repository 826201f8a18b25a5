//! The rights of all roles as accounts of a nats-server configuration.

use std::collections::BTreeMap;

use super::rights::{Account, May, ROLES, Right, is_apart, rights};
use crate::{Role, limits, subjects};

const HEAD: &str = "\
# The rights of each role of Bagpress. Written by `bagpress broker --auth`: public keys only, and nothing to change
# by hand, as the next run writes it anew. In the server's configuration, for one or more of them:
#
#   accounts { include \"auth/server/auth.conf\" }

";

/// The accounts of bags, workers and observers, of which the first is called `account`; `key` gives the public nkey
/// of a role. It belongs into the `accounts` of a nats-server configuration.
#[must_use]
pub fn configuration(account: &Account, key: impl Fn(Role) -> String) -> String {
    let mut parts = vec![HEAD.to_owned()];
    for owner in ROLES.into_iter().filter(|&role| role == Role::Admin || is_apart(role)) {
        let users = ROLES.into_iter().filter(|&role| home(role) == owner);
        let users: Vec<_> = users.map(|role| user(role, &key(role))).collect();
        let users = users.concat();
        let jetstream = if owner == Role::Admin { "  jetstream: enabled\n" } else { "" };
        parts.push(format!(
            "\"{}\": {{\n{jetstream}  users: [\n{users}  ]\n  exports: [\n{}  ]\n  imports: [\n{}  ]\n}}\n",
            name(account, owner),
            exports(account, owner),
            imports(account, owner)
        ));
    }
    parts.concat()
}

/// Whose account `role` is in.
fn home(role: Role) -> Role {
    if is_apart(role) { role } else { Role::Admin }
}

fn name(account: &Account, owner: Role) -> String {
    if owner == Role::Admin {
        account.to_string()
    } else {
        format!("{account}-{}s", owner.as_str())
    }
}

fn user(role: Role, key: &str) -> String {
    let rights = rights(role);
    if rights.is_empty() {
        return format!("    {{ nkey: {key} }} # {}\n", role.as_str());
    }
    let publishes = |right: &&Right| matches!(right.may, May::Ask | May::AskMany | May::AskWorkers);
    let allow = rights.iter().filter(publishes).map(|right| right.subject.clone());
    let deny = rights.iter().flat_map(|right| right.except.clone());
    let hears = rights.iter().filter(|right| !publishes(right));
    let hears = hears.map(|right| match right.may {
        May::Join => format!("{} {}", right.subject, subjects::QUEUE_GROUP),
        _ => right.subject.clone(),
    });
    // To what came in by one of the rights, once.
    let answers = if role == Role::Worker { "      allow_responses: true\n" } else { "" };
    format!(
        "    {{ nkey: {key}, permissions: {{ # {}\n      publish: {{\n        allow: {}\n        deny: {}\n      }}\n      \
         subscribe: {{ allow: {} }}\n{answers}    }} }}\n",
        role.as_str(),
        list(allow),
        list(deny),
        list(hears)
    )
}

fn list(subjects: impl Iterator<Item = String>) -> String {
    let lines: Vec<_> = subjects.map(|subject| format!("          \"{subject}\"\n")).collect();
    format!("[\n{}        ]", lines.concat())
}

fn is_inbox(right: &Right) -> bool {
    right.subject.starts_with(&subjects::inbox(""))
}

/// What an account offers to others. Each export names them: nobody else can import it.
fn exports(account: &Account, owner: Role) -> String {
    let mut exports: BTreeMap<(&str, String), (bool, Vec<String>)> = BTreeMap::new();
    let mut add = |kind, right: &Right, many, to| {
        let export = exports.entry((kind, right.subject.clone())).or_default();
        export.0 |= many;
        export.1.push(format!("\"{}\"", name(account, to)));
    };
    if owner == Role::Admin {
        for guest in ROLES.into_iter().filter(|&role| is_apart(role)) {
            for right in rights(guest).iter().filter(|right| !is_inbox(right)) {
                match right.may {
                    May::Ask | May::AskMany => {
                        add("service", right, right.may == May::AskMany, guest);
                    }
                    May::Hear => add("stream", right, false, guest),
                    May::AskWorkers | May::Serve | May::Join => {}
                }
            }
        }
    } else {
        for right in &rights(owner) {
            match right.may {
                // Every worker answers.
                May::Serve => {
                    add("service", right, true, Role::Admin);
                    add("service", right, true, Role::Observer);
                }
                // One does.
                May::Join => add("service", right, false, Role::Admin),
                May::Ask | May::AskMany | May::AskWorkers | May::Hear => {}
            }
        }
    }
    let lines = exports.into_iter().map(|((kind, subject), (may_be_many, accounts))| {
        let within = limits::ANSWERS_REMEMBERED.as_secs();
        let many = format!(", response_type: stream, response_threshold: \"{within}s\"");
        let many = if may_be_many { many } else { String::new() };
        format!("    {{ {kind}: \"{subject}\"{many}, accounts: [{}] }}\n", accounts.join(", "))
    });
    lines.collect()
}

fn imports(account: &Account, owner: Role) -> String {
    let import = |kind, from, right: &Right| {
        let (from, subject) = (name(account, from), &right.subject);
        Some(format!("    {{ {kind}: {{ account: \"{from}\", subject: \"{subject}\" }} }}\n"))
    };
    if owner == Role::Admin {
        let served = rights(Role::Worker).into_iter().filter_map(|right| match right.may {
            May::Serve | May::Join => import("service", Role::Worker, &right),
            _ => None,
        });
        return served.collect();
    }
    let rights = rights(owner).into_iter().filter(|right| !is_inbox(right));
    let lines = rights.filter_map(|right| match right.may {
        May::Ask | May::AskMany => import("service", Role::Admin, &right),
        May::AskWorkers => import("service", Role::Worker, &right),
        May::Hear => import("stream", Role::Admin, &right),
        May::Serve | May::Join => None,
    });
    lines.collect()
}
