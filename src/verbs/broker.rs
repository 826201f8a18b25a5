//! `bagpress broker`.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use bagpress_broker::server::{self, Access, Guard, Server, find_program};
use bagpress_broker::{Broker, Role, Sizes, machine};
use bagpress_producer::local::follow_up;
use bagpress_producer::{Usage, message};

use super::auth::auth;
use crate::broker_at::{Named, address};
use crate::cli::serve::{BrokerArgs, NoAuth};
use crate::logging;
use crate::terminal::Signals;

pub(crate) async fn broker(args: BrokerArgs) -> Result<ExitCode> {
    logging::start(None)?;
    if let Some(folder) = &args.auth {
        return auth(folder, &args.account);
    }
    if args.init {
        let (address, from) = address(&args.broker)?.context_missing()?;
        message(&format!("broker: {} (from {from})", address.url()));
        let broker = Broker::connect(&address, Role::Admin).await?;
        let sizes =
            Sizes { max_file: args.max_file.map(|size| size.as_u64()), replicas: args.replicas };
        broker.unless_denied(Box::pin(broker.ensure(&args.pool, sizes))).await?;
        message("the streams are there");
        return Ok(ExitCode::SUCCESS);
    }
    let access = access(&args)?;
    let (public, kept) = (!is_loopback(&args.listen), args.keep_token.is_some());
    let mut signals = Signals::listen()?;
    let mut server = Server::start(server::Options {
        program: find_program(args.own.nats_server.as_deref())?,
        store: args.store,
        listen: args.listen,
        durability: args.own.durability.into(),
        access,
        // It may serve many bags: whoever starts it knows the machine.
        memory: None,
        guard: Guard::of_this_program().context("find this program")?,
    })
    .await?;
    let broker = Broker::connect(&server.address(), Role::Admin).await?;
    let sizes = Sizes { max_file: Some(server::max_file(server.store())), replicas: args.replicas };
    Box::pin(broker.ensure(&args.pool, sizes)).await?;
    broker.check_room(server::max_file(server.store()), server.store()).await?;
    message(&format!("broker: {} (store {})", server.url(), name(server.store())));
    say_who_gets_in(&server, public, kept);
    loop {
        let happened = tokio::select! {
            happened = server.watch() => happened,
            _ = signals.received() => break,
        };
        follow_up(&mut server, happened).await?;
    }
    drop(broker);
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Who may use the requested server.
fn access(args: &BrokerArgs) -> Result<Access> {
    match (args.no_auth, &args.keep_token) {
        (Some(NoAuth::Loopback), _) if !is_loopback(&args.listen) => Err(Usage::error(
            format!("--no-auth with --listen {} opens the server to everybody", name(&args.listen)),
            "leave --no-auth out, or insist with --no-auth=public",
        )),
        (Some(_), _) => Ok(Access::Everybody),
        (None, Some(file)) => Ok(Access::TokenOf(file.clone())),
        (None, None) => Ok(Access::NewToken),
    }
}

/// Whether only this machine reaches an address to listen at. What is no address of the loopback for sure is
/// none: a port alone is one of every address.
fn is_loopback(listen: &str) -> bool {
    if let Ok(address) = listen.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let host = listen.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Says where the token is, and what a worker does with it.
fn say_who_gets_in(server: &Server, public: bool, kept: bool) {
    let Some(file) = server.token_file().map(name) else {
        let who = if public { "everybody who reaches it" } else { "every user of this machine" };
        message(&format!("warning: no token is required: {who} can read and write everything"));
        return;
    };
    let port = server.url().rsplit(':').next().unwrap_or_default();
    let url =
        if public { format!("nats://{}:{port}", machine::host()) } else { server.url().to_owned() };
    let again = if kept { "kept" } else { "another at each start; --keep-token FILE keeps one" };
    message(&format!("token: {file} ({again})"));
    message(&format!("next: bagpress worker --server {url} --token-file {file}"));
    if public {
        message(
            "note: on other machines, use a copy of that file with mode 600; without TLS it travels in clear text",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn what_is_not_for_sure_the_loopback_is_not_taken_for_it() {
        for listen in
            ["127.0.0.1:4222", "127.0.0.1:-1", "127.1.2.3:1", "[::1]:-1", "localhost:4222"]
        {
            assert!(is_loopback(listen), "{listen}");
        }
        let beyond = [
            "0.0.0.0:4222",
            "[::]:-1",
            ":4222",
            "4222",
            "host:4222",
            "10.0.0.1:1",
            "localhost",
            "",
        ];
        for listen in beyond {
            assert!(!is_loopback(listen), "{listen}");
        }
    }
}
