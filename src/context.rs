//! Contexts of the `nats` command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bagpress_broker::secret::check_own;
use bagpress_broker::{Address, Login, Secret, Tls, quote};
use bagpress_producer::Usage;

use crate::access::{credentials, nkey, parse_url, refused};

/// Reads a context. Its credentials are left alone where others are `given` in their place.
pub(crate) fn read(name: &str, given: bool) -> Result<Address> {
    let home = std::env::var_os("HOME");
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(Path::new(home.as_ref()?).join(".config")));
    let Some(config) = config else { bail!("neither XDG_CONFIG_HOME nor HOME is set") };
    let path = config.join("nats/context").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Usage::error(
            format!("no context {}: {}: {error}", quote::name(name), quote::name(&path)),
            "list them with `nats context ls`",
        )
    })?;
    let read: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("read {}", quote::name(&path)))?;
    let field = |key: &str| read[key].as_str().filter(|v| !v.is_empty()).map(str::to_owned);
    let file = |key: &str| field(key).map(|path| below_home(&path, home.as_ref()));

    let url = field("url").unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
    let address = parse_url(&url, &format!("context {name}"))?;
    let tls = Tls {
        ca: file("ca"),
        client: file("cert").zip(file("key")),
        first: read["tls_first"].as_bool().unwrap_or(false),
    };
    let address = address.with_tls(tls);
    if given {
        return Ok(address);
    }
    let secret = |key: &str| field(key).map(Secret::new);
    if address.has_login() || secret("password").is_some() || secret("token").is_some() {
        check_own(&path).map_err(refused)?;
    }
    if address.has_login() {
        return Ok(address);
    }
    // In the order of the `nats` command line, whose user without a password is a token.
    Ok(match (field("user"), secret("password"), file("creds"), file("nkey"), secret("token")) {
        (Some(name), Some(password), ..) => address.with_login(Login::User { name, password }),
        (Some(token), None, ..) => address.with_login(Login::Token(Secret::new(token))),
        (_, _, Some(path), ..) => address.with_login(credentials(&path)?),
        (_, _, _, Some(path), _) => address.with_login(nkey(&path)?),
        (.., Some(token)) => address.with_login(Login::Token(token)),
        _ => address,
    })
}

/// A path that may begin with `~/`.
fn below_home(path: &str, home: Option<&OsString>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Path::new(home).join(rest),
        _ => path.into(),
    }
}
