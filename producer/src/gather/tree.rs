//! What a bag's files were like is kept beside their outputs: whoever restores them may not have the run's folder.

use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result};
use bagpress_broker::ids::Execution;
use bagpress_broker::{limits, subjects};
use bagpress_objstore::object_ref::{Bucket, Lookup};
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

/// Chunks that are made before they are wanted.
const AHEAD: usize = 2;

/// Puts the tree of a bag that has all its outcomes into its `bucket`. Without it the outputs come back all the same, as new files: so an error is
/// only told.
pub(crate) async fn keep_tree(
    plan: &BagPlan,
    folder: &RunFolder,
    bucket: Option<Bucket>,
    (reporter, state): (&mut Reporter, &State),
) {
    let Some(bucket) = bucket.filter(|_| !plan.specification.restores()) else { return };
    let kept = Box::pin(reporter.while_renewing(state, put(plan, folder, &bucket))).await;
    if let Err(error) = kept.and_then(|put| put) {
        warn!(
            error = format!("{error:#}"),
            "names, modes and times of the files are not kept with their outputs"
        );
    }
}

async fn put(plan: &BagPlan, folder: &RunFolder, bucket: &Bucket) -> Result<()> {
    let Some(inputs) = plan.inputs.clone() else { return Ok(()) };
    // An earlier gatherer put it, or somebody has freed it.
    if !matches!(bucket.info(subjects::TREE).await?, Lookup::Missing) {
        return Ok(());
    }
    let empty = folder.open(FOLDERS)?;
    let (chunks, mut made) = mpsc::channel(AHEAD);
    let making = spawn_blocking(move || {
        let to = BufWriter::with_capacity(limits::CHUNK_BYTES, Chunks(chunks));
        let mut to = GzEncoder::new(to, Compression::fast());
        tree::write(&inputs, empty, &mut to)?;
        to.finish()?.flush()
    });
    let mut writer = bucket.writer(subjects::TREE, &format!("tree-{}", Execution::random()))?;
    while let Some(chunk) = made.recv().await {
        if let Err(error) = writer.write(chunk).await {
            writer.abandon().await.ok();
            return Err(error.into());
        }
    }
    if let Err(error) = making.await? {
        writer.abandon().await.ok();
        return Err(error).context("read the lists of the run");
    }
    writer.commit_or_adopt().await?;
    Ok(())
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
