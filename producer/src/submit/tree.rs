//! The tree of a bag on a broker, for who restores it.

use std::io::BufReader;

use anyhow::Result;
use bagpress_broker::{BagLine, Broker, subjects};
use flate2::read::GzDecoder;
use tokio::task::spawn_blocking;

use crate::claim::buckets::open_bucket;
use crate::error::message;
use crate::run_folder::tree::{self, Tree};

/// Most bytes of a tree as it is kept: five times what a million usual files take.
const BYTES_MAX: u64 = 128 << 20;

/// What the bucket of a bag keeps of its files; none, and a note, if nobody can tell.
///
/// # Errors
///
/// If the broker does not answer.
pub(super) async fn tree_of(broker: &Broker, line: &BagLine) -> Result<Option<Tree>> {
    let (bucket, tasks) = (subjects::bucket(&line.bag), line.tasks);
    let why = match open_bucket(broker, &bucket)?.get(subjects::TREE, BYTES_MAX).await {
        Ok((info, _)) if Some(info.digest) != line.tree => {
            format!("obj://{bucket}/{} is not what the bag put there", subjects::TREE)
        }
        Ok((_, bytes)) => {
            let read = move || tree::read(BufReader::new(GzDecoder::new(&bytes[..])), tasks);
            match spawn_blocking(read).await? {
                Ok(tree) => return Ok(Some(tree)),
                Err(error) => format!("obj://{bucket}/{}: {error}", subjects::TREE),
            }
        }
        Err(error) if error.is_transient() => return Err(error.into()),
        Err(error) => error.to_string(),
    };
    message(&format!(
        "note: files are called as their outputs say (small ones with the folders that were named to `run`, others below what they have in common), and modes, times and empty folders do not come back: {why}"
    ));
    Ok(None)
}
