//! `bagpress broker`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use bagpress_broker::server::{self, Guard, Server, find_program};
use bagpress_broker::{Address, Broker, Role, Sizes};
use bagpress_producer::local::follow_up;
use bagpress_producer::message;

use crate::broker_at::{Named, address};
use crate::broker_cli::BrokerArgs;
use crate::terminal::Signals;
use crate::{auth_cmd, logging};

pub(crate) async fn broker(args: BrokerArgs) -> Result<ExitCode> {
    logging::start(None)?;
    if let Some(folder) = &args.auth {
        return auth_cmd::auth(folder, &args.account);
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
    let mut signals = Signals::listen()?;
    let mut server = Server::start(server::Options {
        program: find_program(args.nats_server.as_deref())?,
        store: args.store,
        listen: args.listen,
        durability: args.durability.into(),
        guard: Guard::of_this_program().context("find this program")?,
    })
    .await?;
    let broker = Broker::connect(&Address::plain(server.url()), Role::Admin).await?;
    let sizes = Sizes { max_file: Some(server::max_file(server.store())), replicas: args.replicas };
    Box::pin(broker.ensure(&args.pool, sizes)).await?;
    broker.check_room(server::max_file(server.store()), server.store()).await?;
    message(&format!("broker: {} (store {})", server.url(), name(server.store())));
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
