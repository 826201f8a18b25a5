//! Keys, JWTs and certificates, as an operator would make them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use serde_json::{Value, json};

/// Writes a file that only we can read.
pub(crate) fn write_secret(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A server's operator, with an account for bags and the one that every system has.
pub(crate) struct Operator {
    key: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl Operator {
    pub(crate) fn new() -> Self {
        let (account, system) = (KeyPair::new_account(), KeyPair::new_account());
        Self { key: KeyPair::new_operator(), account, system }
    }

    /// The lines of a configuration whose accounts are resolved in memory.
    pub(crate) fn configuration(&self) -> String {
        let operator = jwt(&self.key, &self.key, "operator", &json!({}));
        let account = |account, jetstream: bool| {
            let mut limits = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1,
                "exports": -1, "wildcards": true, "conn": -1, "leaf": -1 });
            if jetstream {
                for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
                    limits[limit] = (-1).into();
                }
            }
            jwt(&self.key, account, "account", &json!({ "limits": limits }))
        };
        let (bags, system) = (&self.account, &self.system);
        format!(
            "operator: {operator}\nsystem_account: {}\nresolver: MEMORY\n\
             resolver_preload {{ {}: {}, {}: {} }}\n",
            system.public_key(),
            bags.public_key(),
            account(bags, true),
            system.public_key(),
            account(system, false)
        )
    }

    /// A credentials file of a new user of the account, and its seed.
    pub(crate) fn credentials(&self) -> (String, String) {
        let user = KeyPair::new_user();
        let seed = user.seed().unwrap();
        let rights = json!({ "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
        let jwt = jwt(&self.account, &user, "user", &rights);
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        (text, seed)
    }
}

/// What `issuer` says of `subject`, signed as NATS does.
fn jwt(issuer: &KeyPair, subject: &KeyPair, kind: &str, rights: &Value) -> String {
    let mut nats = rights.clone();
    nats["type"] = kind.into();
    nats["version"] = 2.into();
    let claims = json!({ "jti": "of a test", "iat": 1_700_000_000, "iss": issuer.public_key(),
        "name": kind, "sub": subject.public_key(), "nats": nats });
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// An authority of our own, and what it has signed, in `folder`: `ca.pem`, `server.pem`, `server.key`,
/// `client.pem`, `client.key`.
pub(crate) fn certificates(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "Authority of a test");
    fs::write(folder.join("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    for (name, purpose) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.insert_extended_key_usage(purpose);
        let signed = params.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.pem")), signed.pem()).unwrap();
        write_secret(&folder.join(format!("{name}.key")), &key.serialize_pem());
    }
}
