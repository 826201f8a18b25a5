//! Which broker is meant, and the way to it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bagpress_broker::descriptor::DeliveryPath;
use bagpress_broker::ids::BagId;
use bagpress_broker::quote;
use bagpress_broker::server::{self, Durability, Program, find_program};
use bagpress_broker::{Address, Broker, Role};
use bagpress_producer::{RunFolder, Specification, Usage, message};

use crate::bag_cli::TrustArgs;
use crate::broker_cli::{BrokerAt, DurabilityArg, LocalArgs, PatienceArgs};
use crate::flags::{check_url, idle_flag};

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
    if let Some(name) = &at.context {
        let address = context(name)?;
        let credentials = at.creds.clone().or(address.credentials);
        return Ok(Some((Address { credentials, ..address }, format!("context {name}"))));
    }
    let Some(url) = &at.server else { return Ok(None) };
    let credentials = at.creds.clone();
    Ok(Some((Address { credentials, ..Address::plain(url) }, at.from.to_owned())))
}

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

/// Reads a context of the `nats` command line.
fn context(name: &str) -> Result<Address> {
    let home = std::env::var_os("XDG_CONFIG_HOME").map(Into::into);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".config")));
    let Some(home) = home else { bail!("neither XDG_CONFIG_HOME nor HOME is set") };
    let path = home.join("nats/context").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Usage::error(
            format!("no context {}: {}: {error}", quote::name(name), quote::name(&path)),
            "list them with `nats context ls`",
        )
    })?;
    let read: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("read {}", quote::name(&path)))?;
    let field = |key: &str| read[key].as_str().filter(|v| !v.is_empty()).map(str::to_owned);
    let seed = match field("nkey") {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("read {}", quote::name(&path)))?;
            Some(text.trim().to_owned())
        }
        None => None,
    };
    let url = field("url").unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
    check_url(&url, &format!("context {name}"))?;
    Ok(Address {
        url,
        credentials: field("creds").map(Into::into),
        user: field("user").zip(field("password")),
        token: field("token"),
        nkey_seed: seed,
    })
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
) -> Result<Option<Broker>> {
    let named = address(at)?;
    let store = bag.and_then(Bag::folder).map(RunFolder::store).transpose()?;
    let own = || store.as_deref().and_then(server::running);
    let (address, from) = match named {
        Some((address, from)) => {
            let from = format!("{} (from {from})", address.url);
            (address, from)
        }
        None => match own() {
            Some(url) => (Address::plain(&url), "local".to_owned()),
            None => return Ok(None),
        },
    };
    message(&format!("broker: {from}"));
    let patience = patience.begin();
    let broker = patience.connect(&address, Role::Producer).await?;
    if !bag.is_some_and(Bag::needs_no_streams)
        && let Err(error) = patience.all_streams(&broker).await
    {
        tracing::debug!(%error, "what is asked for next says what it misses");
    }
    Ok(Some(broker))
}
impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Default => Self::Default,
            DurabilityArg::Always => Self::Always,
        }
    }
}
