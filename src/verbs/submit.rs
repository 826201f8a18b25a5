//! `bagpress submit`.

use std::process::ExitCode;

use anyhow::Result;
use bagpress_broker::Role;
use bagpress_broker::descriptor::{DeliveryPath, ResultPath};
use bagpress_broker::quote::name;
use bagpress_producer::Prepared;
use bagpress_producer::{message, refuse_unknown_codec, wait_for_streams};

use super::prepare::{dry_run, prepared, request, with_references};
use crate::broker_at::{Named, address, flags_again};
use crate::cli::SubmitArgs;
use crate::terminal::{notes, print};

pub(crate) async fn submit(args: SubmitArgs) -> Result<ExitCode> {
    let (only_print, list) = (args.bag.select.dry_run, args.bag.refs.clone());
    let at = address(&args.reach.broker)?;
    let request = with_references(request(args.bag)?, list.as_deref(), &args.reach);
    let request = Box::pin(request).await?;
    if only_print {
        return dry_run(request, false).await;
    }
    let at = at.context_missing()?;
    let Some(prepared) = prepared(request).await? else { return Ok(ExitCode::SUCCESS) };
    message(&format!("broker: {} (from {})", at.0.url(), at.1));
    let Prepared { folder, lock, specification, notes: said, .. } = *prepared;
    notes(&said);
    folder.note_server(Some(at.0.url()))?;
    let patience = args.reach.begin();
    let broker = patience.connect(&at.0, Role::Producer).await?;
    let (results, delivery) = (specification.results, specification.delivery);
    let submitting = async {
        wait_for_streams(&broker, &specification, &patience).await?;
        refuse_unknown_codec(&broker, &specification).await?;
        bagpress_producer::submit::submit(&broker, &folder, &lock, specification).await
    };
    broker.unless_denied(Box::pin(submitting)).await?;
    if delivery == DeliveryPath::QueueGroup {
        message("note: nothing is offered to workers until this bag is gathered");
    } else if results == ResultPath::Staged {
        message("note: a staged bag waits until it is gathered");
    }
    let again = flags_again(&args.reach.broker, &folder);
    message(&format!("next: bagpress gather {}{again}", name(folder.path())));
    print(&format!("{}\n", folder.path().display()))?;
    Ok(ExitCode::SUCCESS)
}
