//! A pack of staged files: part files, or outputs that travel together.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bagpress_broker::descriptor::{FilePart, Pack};
use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::limits;
use bagpress_broker::result::{Cause, Failed};
use bagpress_codec::Digest;
use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::open_file::OpenFile;
use crate::StoreError;
use crate::referenced::{Tars, Wanted};
use crate::sink::Sink;
use crate::source::Source;
use crate::staging::messages::{Came, Close, ClosedFile};
use crate::staging::{Grant, InputSink, PACK_SINK, SharedFolder, Stager};
use crate::stored::Stored;

/// The outputs of a pack, until they are closed.
#[derive(Debug)]
pub(super) struct StagedOutputs {
    stager: Stager,
    id: TaskId,
    execution: Execution,
    /// The folder of the part files, if this side writes them.
    share: Option<SharedFolder>,
    /// Where they arrive otherwise.
    held: Vec<Option<oneshot::Receiver<Bytes>>>,
}

/// The files of a pack, where their outputs go, and what fetches inputs.
pub(super) type Files = (Vec<Option<OpenFile>>, StagedOutputs, Vec<AbortHandle>);

/// Where the inputs of a staged pack come from.
#[derive(Debug)]
pub(crate) enum InputsFrom {
    /// They are files of the gatherer's: so many.
    Gatherer(Pack),
    /// They are parts of a tar.
    Parts(Tars, Box<Wanted>, Vec<FilePart>),
}

impl InputsFrom {
    /// How many files there are.
    fn files(&self) -> u32 {
        match self {
            Self::Gatherer(pack) => pack.files,
            Self::Parts(_, _, parts) => u32::try_from(parts.len()).unwrap_or(u32::MAX),
        }
    }
}

impl StagedOutputs {
    /// Opens a pack that was granted. Inputs that are not read in place are fetched from now on.
    pub(super) fn open(stager: &Stager, from: InputsFrom, grant: Grant) -> Files {
        let Grant { id, execution, share, decided, mut inputs, .. } = grant;
        let files = from.files();
        inputs.resize(files as usize, None);
        let is_in_place = share.is_some() && matches!(from, InputsFrom::Gatherer(_));
        let wanted = |place| !is_in_place && !decided.contains(&place);
        let (sources, fetching) = fetch(stager, &id, from, wanted);
        let room = Arc::new(AtomicUsize::new(limits::CHUNK_BYTES));
        let (mut opened, mut held) = (Vec::new(), Vec::new());
        for ((place, input), source) in (0..files).zip(inputs).zip(sources) {
            let index = id.index + place;
            let (mut receiver, mut file): (_, Option<OpenFile>) = (None, None);
            let part = share.as_ref().map(|share| share.with_part(index, id.round, &execution));
            match (source, part, input) {
                (Some(source), None, _) => {
                    let (sink, output) = Sink::whole(room.clone());
                    receiver = Some(output);
                    file = Some(Box::new(move || Ok((source, sink))));
                }
                (Some(source), Some(part), _) => file = Some(into_part(part, || Ok(source))),
                _ if decided.contains(&place) => {}
                (None, Some(part), Some(input)) => {
                    file = Some(into_part(part, || Source::file(input.into())));
                }
                (None, ..) => {
                    // Its gatherer knows no path of it that a message could hold.
                    let text = "it has no path that its worker could be told";
                    file = Some(Box::new(move || Err(Failed::new(Cause::TransferError, text))));
                }
            }
            opened.push(file);
            held.push(receiver);
        }
        let stager = stager.clone();
        (opened, Self { stager, id, execution, share, held }, fetching)
    }
}

/// Begins to fetch the inputs of those files of a pack that are `wanted`, and what does so, if there are any.
fn fetch(
    stager: &Stager,
    id: &TaskId,
    from: InputsFrom,
    wanted: impl Fn(u32) -> bool,
) -> (Vec<Option<Source>>, Vec<AbortHandle>) {
    let of = |place| wanted(place).then(|| mpsc::channel(PACK_SINK)).unzip();
    let (sinks, chunks): (Vec<Option<InputSink>>, Vec<_>) = (0..from.files()).map(of).unzip();
    if sinks.iter().all(Option::is_none) {
        return (sinks.iter().map(|_| None).collect(), Vec::new());
    }
    let (stager, id) = (stager.clone(), id.clone());
    let fetching = tokio::spawn(async move {
        match from {
            InputsFrom::Gatherer(pack) => stager.fetch_pack(&id, pack, sinks).await,
            InputsFrom::Parts(tars, tar, parts) => tars.fetch_pack(&tar, &parts, sinks).await,
        }
    });
    let fetching = fetching.abort_handle();
    let source = |chunks: Option<_>| Some(Source::fetched(chunks?, fetching.clone(), None));
    (chunks.into_iter().map(source).collect(), vec![fetching])
}

/// A file whose output is written where it will live.
fn into_part(
    share: SharedFolder,
    input: impl FnOnce() -> Result<Source, Failed> + Send + 'static,
) -> OpenFile {
    Box::new(move || {
        let source = input()?;
        let file = share.create_part().map_err(|error| not_made(&error))?;
        Ok((source, Sink::file(file, !share.same_kernel)))
    })
}

/// What this worker cannot do there its gatherer may: then the file is left open, and comes over the wire when it is run alone.
fn not_made(error: &io::Error) -> Failed {
    let failed = crate::output_failed("make the part file", error);
    if failed.cause.is_planned() {
        failed
    } else {
        Failed { cause: Cause::TransferError, ..failed }
    }
}

impl StagedOutputs {
    /// Makes the outputs durable of which `made` has size and digest; nothing is left of the others.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: transient. After a lost answer the part files may be there; they are swept.
    pub(super) async fn close(
        mut self,
        made: &[Option<(u64, Digest)>],
    ) -> Result<Stored, StoreError> {
        let mut payload = BytesMut::new();
        for (output, _) in self.held.iter_mut().zip(made).filter(|(_, made)| made.is_some()) {
            let output = output.as_mut().and_then(|output| output.try_recv().ok());
            payload.extend_from_slice(&output.unwrap_or_default());
        }
        self.remove_where(|place| made.get(place).is_none_or(Option::is_none));
        let of =
            |made: &Option<(u64, Digest)>| made.map(|(bytes, digest)| ClosedFile { bytes, digest });
        let close = Close {
            v: limits::WIRE_VERSION,
            index: self.id.index,
            round: self.id.round,
            execution: self.execution.clone(),
            bytes: made.iter().flatten().map(|(bytes, _)| bytes).sum(),
            digest: Digest::of(b""),
            came: if self.share.is_some() { Came::ByPath } else { Came::Inline },
            files: made.iter().map(of).collect(),
        };
        self.stager.close(&self.id, &close, payload.freeze()).await
    }

    /// Gives up what was written and never closed, since the pack is given back, or none of its files has an output. If there was
    /// no room, the gatherer learns how much there was.
    pub(super) async fn abandon(self, failed: Option<&Failed>) {
        let free = self.share.as_ref().and_then(SharedFolder::free);
        let bytes = self.remove_where(|_| true);
        if self.share.is_some() && failed.is_some_and(|failed| failed.cause == Cause::Full) {
            self.stager.found_no_room(&self.id, bytes, free).await;
        }
    }

    /// Removes part files; how many bytes they had.
    fn remove_where(&self, unwanted: impl Fn(usize) -> bool) -> u64 {
        let Some(share) = &self.share else { return 0 };
        let places = (0..self.held.len()).filter(|place| unwanted(*place));
        let removed = places.map(|place| {
            let index = self.id.index + u32::try_from(place).unwrap_or(u32::MAX);
            share.with_part(index, self.id.round, &self.execution).remove_part()
        });
        removed.sum()
    }
}
