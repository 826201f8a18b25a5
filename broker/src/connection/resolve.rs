//! Hosts whose names lead nowhere.

use std::net::IpAddr;
use std::time::Duration;

use async_nats::ServerAddr;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::address::Address;
use crate::Error;
use crate::quote::words;

/// How long a name may take to be looked up: whoever asks has been waiting for a connection already.
const WITHIN: Duration = Duration::from_millis(500);

impl Address {
    /// Which host of the address cannot be resolved, and why, if one cannot. Asks the system, for half a second a host.
    pub async fn unresolved(&self) -> Option<String> {
        for url in self.url().split(',') {
            let Ok(server) = url.parse::<ServerAddr>() else { continue };
            let host = server.host().trim_matches(['[', ']']);
            if host.parse::<IpAddr>().is_ok() {
                continue;
            }
            let looking = async {
                lookup_host((host, server.port())).await.map(|mut found| found.next().is_some())
            };
            let why = match timeout(WITHIN, looking).await {
                Ok(Ok(true)) => continue,
                Ok(Ok(false)) => "it has no address".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "nobody answers for it".to_owned(),
            };
            return Some(format!("the host {} cannot be resolved: {}", words(host), words(&why)));
        }
        None
    }
}

impl Error {
    /// The same, with the host that cannot be resolved, if that is why nobody answered.
    pub(super) async fn naming_host(self, address: &Address) -> Self {
        let Self::Unreachable { url, waited, cause } = self else { return self };
        let cause = match address.unresolved().await {
            Some(why) if !url.contains(',') => why,
            Some(why) => format!("{cause}; {why}"),
            None => cause,
        };
        Self::Unreachable { url, waited, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_that_nobody_knows_is_named_and_a_number_needs_no_look_up() {
        let at = |url: &str| Address::parse(url).unwrap();
        assert_eq!(at("nats://127.0.0.1:4222,nats://[::1]:4222").unresolved().await, None);
        // No name below `invalid` ever leads anywhere (RFC 2606).
        let why = at("nats://127.0.0.1:4222,nats://no-such.invalid:4222").unresolved().await;
        let why = why.unwrap();
        assert!(why.starts_with("the host no-such.invalid cannot be resolved: "), "{why}");
    }
}
