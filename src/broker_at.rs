//! Which broker is meant, and how to reach it.

use std::path::Path;

use anyhow::Result;
use bagpress_broker::descriptor::DeliveryPath;
use bagpress_broker::ids::BagId;
use bagpress_broker::quote;
use bagpress_broker::server::{self, Program, find_program};
use bagpress_broker::{Address, Broker, Role};
use bagpress_producer::{RunFolder, Specification, Usage, message};

use crate::access::{parse_url, refused};
use crate::cli::broker::{BrokerAt, LocalArgs, ReachArgs};
use crate::cli::common::TrustArgs;
use crate::context;
use crate::idle::idle_flag;

/// Where a bag runs.
pub(crate) enum At {
    /// On the broker that was named, and by what.
    Named(Address, String),
    /// On a server of its own.
    Own(Program),
}

impl At {
    pub(crate) fn of(broker: &BrokerAt, local: &LocalArgs) -> Result<Self> {
        Ok(match address(broker)? {
            Some((address, from)) => Self::Named(address, from),
            None => Self::Own(find_program(local.own.nats_server.as_deref())?),
        })
    }
}

/// The broker that was named, and by what; none means a local one.
pub(crate) fn address(at: &BrokerAt) -> Result<Option<(Address, String)>> {
    let login = at.access.login()?;
    let (address, from) = match (&at.context, &at.server) {
        (Some(name), _) => (context::read(name, login.is_some())?, format!("context {name}")),
        (None, Some(url)) => {
            let address = parse_url(url.reveal(), at.from)?;
            let is_seen = address.has_login() && at.from == "--server";
            (address, if is_seen { SEEN } else { at.from }.to_owned())
        }
        (None, None) => return Ok(None),
    };
    let tls = at.access.tls(address.tls());
    tls.check().map_err(refused)?;
    let address = address.with_tls(tls);
    Ok(Some((login.into_iter().fold(address, Address::with_login), from)))
}

/// The flags that lead the next command to the broker of a run: those that were typed for this one, or where the run was before.
pub(crate) fn flags_again(at: &BrokerAt, folder: &RunFolder) -> String {
    if at.server.is_some() || at.context.is_some() {
        return at.typed.clone();
    }
    // A folder that is not believed names no server.
    let before = folder.server().ok().flatten().filter(|server| server != "local");
    before.map_or_else(String::new, |server| format!(" --server {}", quote::name(server)))
}

/// A typed password is visible to everybody on the machine.
const SEEN: &str = "--server; others see its credentials in the list of processes: use --password-file or --token-file";

pub(crate) trait Named {
    fn context_missing(self) -> Result<(Address, String)>;
}

impl Named for Option<(Address, String)> {
    fn context_missing(self) -> Result<(Address, String)> {
        self.ok_or_else(no_server)
    }
}

fn no_server() -> anyhow::Error {
    Usage::error("no server was named", "give --server URL, --context NAME or BAGPRESS_SERVER")
}

/// What a BAG argument names.
pub(crate) enum Bag {
    Folder(RunFolder, Box<Specification>),
    Id(BagId),
}

impl Bag {
    pub(crate) fn parse(text: &str, trust: &TrustArgs) -> Result<Self> {
        if text.contains('/') {
            let folder = RunFolder::existing(Path::new(text), trust.trust())?;
            let specification = Specification::read(&folder)?;
            return Ok(Self::Folder(folder, Box::new(specification)));
        }
        if trust.trust_folder {
            let why = "no run folder is read";
            return Err(idle_flag("--trust-folder", "with a bag's id", why));
        }
        let id = text.parse().map_err(|error| {
            Usage::error(
                format!("{} is not a bag id: {error}", quote::name(text)),
                "a run folder has a slash, such as runs/NAME/staged",
            )
        })?;
        Ok(Self::Id(id))
    }

    pub(crate) fn id(&self) -> &BagId {
        match self {
            Self::Folder(_, specification) => &specification.bag,
            Self::Id(id) => id,
        }
    }

    pub(crate) fn folder(&self) -> Option<&RunFolder> {
        match self {
            Self::Folder(folder, _) => Some(folder),
            Self::Id(_) => None,
        }
    }

    /// That no broker can be asked about it.
    pub(crate) fn not_running(&self) -> anyhow::Error {
        let Self::Folder(folder, _) = self else { return no_server() };
        let path = quote::name(folder.path());
        let server = match folder.server() {
            Ok(server) => server,
            Err(error) => return error,
        };
        match server.filter(|server| server != "local") {
            Some(server) => Usage::error(
                format!("{path} was run on {server}, which was not named"),
                format!("give --server {server}, or --context NAME"),
            ),
            None => Usage::error(
                format!("{path} is not running"),
                format!("there is nothing to stop; `bagpress rm {path}` removes it"),
            ),
        }
    }

    /// Whether the broker may have no streams, as the bag needs none.
    fn needs_no_streams(&self) -> bool {
        let delivery = match self {
            Self::Folder(_, specification) => Some(specification.delivery),
            Self::Id(_) => None,
        };
        delivery == Some(DeliveryPath::QueueGroup)
    }
}

/// Connects to the broker that was named, or to the run's own, if it runs. Starts nothing; waits for one
/// that is starting.
pub(crate) async fn reach(
    args: &ReachArgs,
    bag: Option<&Bag>,
    role: Role,
) -> Result<Option<Broker>> {
    let named = address(&args.broker)?;
    let store = bag.and_then(Bag::folder).map(RunFolder::store).transpose()?;
    let own = || {
        server::running(store.as_deref()?).unwrap_or_else(|error| {
            message(&format!("note: the run's own server is not asked: {error}"));
            None
        })
    };
    let (address, from) = match named {
        Some((address, from)) => {
            let from = format!("{} (from {from})", address.url());
            (address, from)
        }
        None => match own() {
            Some(address) => (address, "local".to_owned()),
            None => return Ok(None),
        },
    };
    message(&format!("broker: {from}"));
    let patience = args.begin();
    let broker = patience.connect(&address, role).await?;
    if !bag.is_some_and(Bag::needs_no_streams)
        && let Err(error) = broker.unless_denied(patience.all_streams(&broker)).await
    {
        if let bagpress_broker::Error::Denied(_) = error {
            return Err(error.into());
        }
        tracing::debug!(%error, "what is asked for next says what it misses");
    }
    Ok(Some(broker))
}

/// Does `work` with a broker, or without one, and ends when that refuses us something.
pub(crate) async fn unless_denied<T>(
    broker: Option<&Broker>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match broker {
        Some(broker) => broker.unless_denied(work).await,
        None => work.await,
    }
}
