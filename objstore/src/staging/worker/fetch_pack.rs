//! Fetches the inputs of a pack, with one request.

use async_nats::Message;
use bagpress_broker::descriptor::Pack;
use bagpress_broker::ids::TaskId;
use bagpress_broker::result::Failed;
use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::mpsc;

use super::stager::Stager;
use crate::source::Fetched;
use crate::staging::messages::{FILES, PackInput};

/// Where the input of a file goes.
pub(crate) type InputSink = mpsc::Sender<Result<Fetched, Failed>>;

/// Messages that a sink of a pack's file must hold: its bytes, and the end. Which file is read first is no matter then.
pub(crate) const PACK_SINK: usize = 2;

impl Stager {
    /// Fetches the inputs of the files of a pack for which there is a sink. One that the answer has not is fetched by itself.
    ///
    /// # Errors
    ///
    /// Each sink gets what is said of its file, or why there was no answer, as [`fetch_input`](Self::fetch_input).
    pub(crate) async fn fetch_pack(&self, id: &TaskId, pack: Pack, sinks: Vec<Option<InputSink>>) {
        let inputs = match self.ask_input(id, 0, Some(pack)).await {
            Ok(message) => inputs_of(&message, pack),
            Err(failed) => vec![Some(Err(failed)); sinks.len()],
        };
        let mut alone = Vec::new();
        for ((index, sink), input) in (id.index..).zip(sinks).zip(inputs) {
            let Some(sink) = sink else { continue };
            // Closed means that nobody waits for that input any more.
            match input {
                Some(Ok(bytes)) => {
                    sink.send(Ok(Fetched::Bytes(bytes))).await.ok();
                    sink.send(Ok(Fetched::End)).await.ok();
                }
                Some(Err(failed)) => {
                    sink.send(Err(failed)).await.ok();
                }
                None => alone.push((TaskId { index, ..id.clone() }, sink)),
            }
        }
        join_all(alone.into_iter().map(|(id, sink)| async move {
            self.fetch_input(&id, 0, sink).await;
        }))
        .await;
    }
}

/// What an answer has of each file of a pack; nothing of any, if it is another answer than was asked for.
fn inputs_of(message: &Message, pack: Pack) -> Vec<Option<Result<Bytes, Failed>>> {
    let files = message.headers.as_ref().and_then(|headers| headers.get(FILES));
    let files = files.and_then(|files| serde_json::from_str(files.as_str()).ok());
    split(files, &message.payload, pack.files).unwrap_or_else(|| vec![None; pack.files as usize])
}

fn split(
    files: Option<Vec<Option<PackInput>>>,
    payload: &Bytes,
    count: u32,
) -> Option<Vec<Option<Result<Bytes, Failed>>>> {
    let files = files.filter(|files| files.len() == count as usize)?;
    let mut rest = payload.clone();
    let split = files.into_iter().map(|file| {
        Some(match file {
            None => None,
            Some(PackInput::Failed(failed)) => Some(Err(failed)),
            Some(PackInput::Bytes(bytes)) => {
                let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= rest.len())?;
                Some(Ok(rest.split_to(bytes)))
            }
        })
    });
    let split: Option<Vec<_>> = split.collect();
    split.filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use bagpress_broker::result::Cause;

    use super::*;

    #[test]
    fn an_answer_is_split_into_the_inputs_of_its_files_or_is_none() {
        let failed = Failed::new(Cause::InputMissing, "gone");
        let files = vec![
            Some(PackInput::Bytes(3)),
            None,
            Some(PackInput::Failed(failed.clone())),
            Some(PackInput::Bytes(0)),
            Some(PackInput::Bytes(2)),
        ];
        let payload = Bytes::from_static(b"onetw");
        let wanted = vec![
            Some(Ok(Bytes::from_static(b"one"))),
            None,
            Some(Err(failed)),
            Some(Ok(Bytes::new())),
            Some(Ok(Bytes::from_static(b"tw"))),
        ];
        assert_eq!(split(Some(files.clone()), &payload, 5), Some(wanted));
        // Of another pack, more or fewer bytes than there are, and of who answers with a chunk of the first file.
        assert_eq!(split(Some(files.clone()), &payload, 4), None);
        assert_eq!(split(Some(files.clone()), &Bytes::from_static(b"onet"), 5), None);
        assert_eq!(split(Some(files), &Bytes::from_static(b"onetwo"), 5), None);
        assert_eq!(split(None, &payload, 5), None);
    }
}
