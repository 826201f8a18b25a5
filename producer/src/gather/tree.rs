//! What a bag's files were like is kept beside their outputs: whoever restores them may not have the run's folder.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use bagpress_broker::ids::Execution;
use bagpress_broker::{limits, subjects};
use bagpress_codec::Digest;
use bagpress_objstore::object_ref::Bucket;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::gather::report::Reporter;
use crate::gather::state::State;
use crate::run_folder::folder::{FOLDERS, RunFolder};
use crate::run_folder::plan::BagPlan;
use crate::run_folder::tree;

/// How long putting it may take: a million files take a few seconds.
const WITHIN: Duration = Duration::from_mins(1);
/// Chunks that are made before they are wanted.
const AHEAD: usize = 2;

/// Puts the tree of a bag that has all its outcomes into its `bucket`, as the files are by now. Without it the outputs come back all the same, as new files:
/// so what goes wrong, or takes too long, is only told.
pub(crate) async fn keep_tree(
    plan: &BagPlan,
    folder: &RunFolder,
    bucket: Option<Bucket>,
    (reporter, state): (&mut Reporter, &State),
) {
    let (Some(bucket), Some(_)) = (bucket, &plan.inputs) else { return };
    if plan.specification.restores() {
        return;
    }
    // A disk of inputs that hangs is not waited for: the bag is over.
    let putting = tokio::time::timeout(WITHIN, put(plan, folder, &bucket));
    let put = Box::pin(reporter.while_renewing(state, putting)).await;
    match put.and_then(|put| put.context("it took too long")?) {
        Ok(tree) => reporter.note_tree(tree),
        Err(error) => {
            let what = "names, modes and times of the files are not kept with their outputs";
            warn!(error = format!("{error:#}"), "{what}");
        }
    }
}

async fn put(plan: &BagPlan, folder: &RunFolder, bucket: &Bucket) -> Result<Digest> {
    let (empty, plan) = (folder.open(FOLDERS)?, plan.clone());
    let (chunks, mut made) = mpsc::channel(AHEAD);
    let making = spawn_blocking(move || {
        let to = BufWriter::with_capacity(limits::CHUNK_BYTES, Chunks(chunks));
        let mut to = GzEncoder::new(to, Compression::fast());
        let now = |index, entry| plan.now(index, entry);
        let inputs = plan.inputs.iter().flat_map(|inputs| inputs.entries());
        tree::write(inputs, now, empty, &mut to)?;
        to.finish()?.flush()
    });
    let mut writer = bucket.writer(subjects::TREE, &format!("tree-{}", Execution::random()))?;
    while let Some(chunk) = made.recv().await {
        if let Err(error) = writer.write(chunk).await {
            writer.abandon().await.ok();
            return Err(error.into());
        }
    }
    if let Err(error) = making.await.map_err(io::Error::other).flatten() {
        writer.abandon().await.ok();
        return Err(error).context("read the lists of the run");
    }
    // What an earlier gatherer put, or another program, gives way.
    Ok(writer.commit_or_adopt().await?.info.digest)
}

/// Sends what is written, from a thread that may wait.
struct Chunks(mpsc::Sender<Bytes>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
