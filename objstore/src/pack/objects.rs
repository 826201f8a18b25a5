//! A pack of objects: one tar of inputs, which is held whole, and one tar of outputs.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bagpress_broker::descriptor::{Pack, TaskDescriptor};
use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Cause, Failed};
use bagpress_broker::{limits, subjects};
use bagpress_codec::Digest;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::open_file::OpenFile;
use crate::StoreError;
use crate::error::input_failed;
use crate::object_ref::{Bucket, Error, Writer};
use crate::sink::Sink;
use crate::source::Source;
use crate::stored::Stored;
use crate::tarred::{self, Member};

const WHAT: &str = "write the outputs of a pack into a tar";

/// The outputs of a pack, until they are one object.
#[derive(Debug)]
pub(super) struct TarOutputs {
    bucket: Bucket,
    task: TaskDescriptor,
    execution: Execution,
    /// For each file of which there is an input: its header, and where its output arrives.
    held: Vec<Option<(Member, oneshot::Receiver<Bytes>)>>,
}

impl TarOutputs {
    /// Fetches the inputs of a pack, and says how each file is opened that is among them.
    ///
    /// # Errors
    ///
    /// Why there are none: the object is not there, does not read back, or is no tar of a pack.
    pub(super) async fn open(
        (inputs, object): (&Bucket, &str),
        bucket: Bucket,
        task: &TaskDescriptor,
        pack: Pack,
        execution: &Execution,
    ) -> Result<(Vec<Option<OpenFile>>, Self), Failed> {
        let got = inputs.get(object, limits::TAR_BYTES_MAX).await;
        let (_, tar) = got.map_err(|error| input_failed(&error))?;
        let found = tarred::read(&Bytes::from(tar)).and_then(|found| {
            let fit = found.iter().all(|found| found.member.place < pack.files);
            fit.then_some(found).ok_or_else(|| "it has more files than its pack".to_owned())
        });
        let found = found.map_err(|why| {
            let text = format!("obj://{}/{object} is no tar of a pack: {why}", inputs.name());
            Failed::new(Cause::InputUnreadable, text)
        })?;
        let room = Arc::new(AtomicUsize::new(limits::CHUNK_BYTES));
        let (mut files, mut held) = (Vec::new(), Vec::new());
        files.resize_with(pack.files as usize, || None);
        held.resize_with(pack.files as usize, || None);
        for found in found {
            let (sink, output) = Sink::whole(room.clone());
            let (place, source) = (found.member.place as usize, Source::held(found.content));
            let open: OpenFile = Box::new(move || Ok((source, sink)));
            files[place] = Some(open);
            held[place] = Some((found.member, output));
        }
        let (task, execution) = (task.clone(), execution.clone());
        Ok((files, Self { bucket, task, execution, held }))
    }

    /// Writes the outputs that were `made` as one object. An object of the name that has the same bytes is adopted; one that
    /// has others stays, and this one gets another name.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: transient.
    pub(super) async fn close(
        mut self,
        made: &[Option<(u64, Digest)>],
    ) -> Result<Stored, StoreError> {
        let (tar, at) = self.tar(made).map_err(|error| StoreError::lost(WHAT, &error))?;
        let mut writer = self.writer()?;
        match writer.write(tar.clone()).await {
            Ok(()) => {}
            // Another execution may have filled the bucket with this very tar.
            Err(full @ Error::Full { .. }) => {
                let there = writer.adoptable().await;
                let same = |info: &crate::object_ref::Info| info.digest == Digest::of(&tar);
                let info = there.filter(same).ok_or(full)?;
                return Ok(Stored::Tar { info: Box::new(info), at });
            }
            Err(error) => return Err(error.into()),
        }
        let stored = writer.commit_beside_broken().await?;
        Ok(Stored::Tar { info: Box::new(stored.info), at })
    }

    fn writer(&self) -> Result<Writer, Error> {
        let Self { bucket, task, execution, held } = self;
        let (first, last) = (task.index, task.index as usize + held.len() - 1);
        let labels = [("bag", task.bag.to_string()), ("codec", task.codec.to_string())];
        let text = format!("tasks {first} to {last} of bag {}, {}", task.bag, task.codec);
        let writer = bucket.writer(&subjects::tar_name(first), &format!("{first}-{execution}"))?;
        Ok(writer.description(text).metadata(labels.map(|(k, v)| (k.to_owned(), v)).into()))
    }

    /// The tar of the outputs, and at which byte of it each begins.
    fn tar(
        &mut self,
        made: &[Option<(u64, Digest)>],
    ) -> std::io::Result<(Bytes, Vec<Option<u64>>)> {
        let (mut writer, mut at) = (tarred::Writer::default(), vec![None; self.held.len()]);
        for (place, held) in self.held.iter_mut().enumerate() {
            let (Some(Some(_)), Some((member, output))) = (made.get(place), held) else { continue };
            let output = output.try_recv().map_err(std::io::Error::other)?;
            let mut name = OsString::from(&member.name);
            name.push(self.task.codec.extension());
            let member = Member { name: name.into(), ..member.clone() };
            at[place] = Some(writer.add(&member, &output)?);
        }
        Ok((writer.finish(), at))
    }
}
