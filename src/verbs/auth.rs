//! `bagpress broker --auth`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use bagpress_broker::quote::name;
use bagpress_broker::roles::{Account, CONFIGURATION, write_auth};
use bagpress_producer::message;

/// Writes keys and permissions, and says what to do with them.
pub(crate) fn auth(folder: &Path, account: &Account) -> Result<ExitCode> {
    for key in write_auth(folder, account)? {
        let (path, role) = (name(&key.path), key.role.as_str());
        message(&format!("{path}: {} key of the {role}", if key.new { "new" } else { "kept the" }));
    }
    let conf = name(folder.join(CONFIGURATION));
    message(&format!("{conf}: permissions of account {account}"));
    message(&format!(
        "next: accounts {{ include {conf:?} }} in the server's configuration, by a path relative to it"
    ));
    message(
        "then: run `broker --init` with the admin's key, and give each process the key of its role, by --nkey FILE",
    );
    Ok(ExitCode::SUCCESS)
}
