//! Which broker is meant, and the way to it.

use std::path::Path;

use anyhow::Result;
use bagpress_broker::descriptor::DeliveryPath;
use bagpress_broker::ids::BagId;
use bagpress_broker::quote;
use bagpress_broker::server::{self, Durability, Program, find_program};
use bagpress_broker::{Address, Broker, Role};
use bagpress_producer::{RunFolder, Specification, Usage, message};

use crate::access::refused;
use crate::broker_cli::{BrokerAt, DurabilityArg, LocalArgs, PatienceArgs};
use crate::context;
use crate::flags::parse_url;

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
            None => Self::Own(find_program(local.nats_server.as_deref())?),
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

/// Who types a password shows it to everybody on the machine.
const SEEN: &str = "--server; others see its credentials in the list of processes: use --password-file or --token-file";

pub(crate) trait Named {
    fn context_missing(self) -> Result<(Address, String)>;
}

impl Named for Option<(Address, String)> {
    fn context_missing(self) -> Result<(Address, String)> {
        self.ok_or_else(|| {
            Usage::error(
                "no server was named",
                "give --server URL, --context NAME or BAGPRESS_SERVER",
            )
        })
    }
}

/// What a BAG argument names.
pub(crate) enum Bag {
    Folder(RunFolder, Box<Specification>),
    Id(BagId),
}

impl Bag {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.contains('/') {
            let folder = RunFolder::existing(Path::new(text))?;
            let specification = Specification::read(&folder)?;
            return Ok(Self::Folder(folder, Box::new(specification)));
        }
        let id = text.parse().map_err(|error| {
            Usage::error(
                format!("{} is no bag id: {error}", quote::name(text)),
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
/// that is just starting.
pub(crate) async fn reach(
    at: &BrokerAt,
    patience: &PatienceArgs,
    bag: Option<&Bag>,
    role: Role,
) -> Result<Option<Broker>> {
    let named = address(at)?;
    let own = || bag.and_then(Bag::folder).and_then(|folder| server::running(&folder.broker()));
    let (address, from) = match named {
        Some((address, from)) => {
            let from = format!("{} (from {from})", address.url());
            (address, from)
        }
        None => match own() {
            Some(url) => (Address::plain(&url), "local".to_owned()),
            None => return Ok(None),
        },
    };
    message(&format!("broker: {from}"));
    let patience = patience.begin();
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

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Default => Self::Default,
            DurabilityArg::Always => Self::Always,
        }
    }
}
