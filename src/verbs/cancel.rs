//! `bagpress cancel`.

use std::process::ExitCode;

use anyhow::Result;
use bagpress_broker::Role;
use bagpress_broker::quote::name;
use bagpress_producer::{cancel as producer, message};

use crate::broker_at::{Bag, reach};
use crate::cli::existing::CancelArgs;
use crate::logging;
use crate::terminal::tell;

pub(crate) async fn cancel(args: CancelArgs) -> Result<ExitCode> {
    logging::start(None)?;
    let bag = Bag::parse(&args.bag, &args.common.trust)?;
    let broker = reach(&args.common.reach, Some(&bag), Role::Producer).await?;
    let broker = broker.map_or_else(|| Err(bag.not_running()), Ok)?;
    let cancelled = broker.unless_denied(producer::cancel(&broker, bag.id())).await?;
    let text = if cancelled.cancelled {
        format!(
            "cancelled: {} of {} tasks were done, {} failed\n",
            cancelled.done, cancelled.tasks, cancelled.failed
        )
    } else {
        format!("{} was already over, nothing is cancelled\n", cancelled.bag)
    };
    tell(args.common.json, &cancelled, &text)?;
    if cancelled.cancelled {
        let folder = bag.folder().map(|folder| name(folder.path()));
        let folder = folder.unwrap_or_else(|| "RUN_FOLDER".to_owned());
        let (again, named) = (&args.common.reach.broker.typed, name(&args.bag));
        message(&format!(
            "next: bagpress gather {folder} --resume{again}, or bagpress rm {named}{again}"
        ));
    }
    Ok(ExitCode::SUCCESS)
}
