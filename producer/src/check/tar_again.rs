//! Outputs in tars of packs, read again: a tar is read once for all files in it that follow each other.

use std::io;

use bagpress_broker::limits;
use bagpress_broker::result::{Done, Place, TaskResult};
use bagpress_broker::retry::Retry;
use bagpress_objstore::object_ref::{Bucket, Error};
use bagpress_objstore::tarred::{head, slice};
use bytes::Bytes;

use crate::run_folder::plan::BagPlan;

/// The last tar that was read.
#[derive(Debug, Default)]
pub(crate) struct TarAgain {
    name: String,
    /// Its bytes, or why there are none.
    tar: Option<Result<Bytes, String>>,
}

/// An output that its result says is in a tar.
#[derive(Debug)]
pub(crate) struct InTar<'a> {
    /// Name of the tar.
    pub(crate) object: &'a str,
    at: u64,
    bytes: u64,
    /// What is before it in the tar: with a header that is another, nobody finds it there.
    head: Vec<u8>,
}

impl<'a> InTar<'a> {
    /// The output of a result, if that is in a tar.
    ///
    /// # Errors
    ///
    /// If the list of inputs cannot be read.
    pub(crate) fn of(
        plan: &BagPlan,
        result: &TaskResult,
        done: &'a Done,
    ) -> io::Result<Option<Self>> {
        let Place::Tar { object, at, .. } = &done.place else { return Ok(None) };
        let list = plan.inputs.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let place = result.index - plan.first_of(result.index);
        let entry = list.get(result.index)?;
        let extension = plan.specification.codec_of(Some(&entry)).extension();
        let member = entry.member(place, extension);
        let head = head(&member, done.output_bytes)?;
        Ok(Some(Self { object, at: *at, bytes: done.output_bytes, head }))
    }
}

impl TarAgain {
    /// The bytes of an output, or why it has none.
    ///
    /// # Errors
    ///
    /// What passes, and did not for long: nothing is known of the output.
    pub(crate) async fn output(
        &mut self,
        bucket: &Bucket,
        output: &InTar<'_>,
    ) -> Result<Result<Bytes, String>, Error> {
        if self.name != output.object || self.tar.is_none() {
            let read = || fetch(bucket, output.object);
            let tar = match Retry::times(limits::COMMIT_TRIES).run(read, Error::is_transient).await
            {
                Ok(tar) => Ok(tar),
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => Err(error.to_string()),
            };
            *self = Self { name: output.object.to_owned(), tar: Some(tar) };
        }
        let tar = match &self.tar {
            Some(Ok(tar)) => tar,
            Some(Err(why)) => return Ok(Err(why.clone())),
            None => return Ok(Err("its tar was not read".to_owned())),
        };
        let InTar { at, bytes, head, .. } = output;
        let begins = at.checked_sub(head.len() as u64);
        let listed = begins.and_then(|begins| slice(tar, begins, head.len() as u64));
        if listed.is_none_or(|listed| listed != *head) {
            return Ok(Err("its header in the tar is not what it should be".to_owned()));
        }
        Ok(slice(tar, *at, *bytes).ok_or_else(|| "its tar ends before it does".to_owned()))
    }
}

async fn fetch(bucket: &Bucket, name: &str) -> Result<Bytes, Error> {
    let info = bucket.info_from_leader(name).await?.found(bucket.name(), name)?;
    bucket.read_parts(&info, limits::TAR_BYTES_MAX).await
}
