//! A pack of objects: one tar of inputs, which is held whole, and one tar of outputs.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bagpress_broker::descriptor::{Again, Pack, TaskDescriptor};
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
use crate::tarred::{self, Found, Member};

const WHAT: &str = "write the outputs of a pack into a tar";

/// The outputs of a pack, until they are one object.
#[derive(Debug)]
pub(super) struct TarOutputs {
    bucket: Bucket,
    task: TaskDescriptor,
    execution: Execution,
    /// Digest of the tar of the inputs.
    input: Digest,
    /// For each file of which there is an input: its header, and where its output arrives.
    held: Vec<Option<(Member, oneshot::Receiver<Bytes>)>>,
}

impl TarOutputs {
    /// Fetches the inputs of a pack, and says how each file is opened that is among them; of one that is run again, each that its
    /// tar had.
    ///
    /// # Errors
    ///
    /// Why there are none: the object is not there, does not read back, is no tar of a pack, or not the one that was read before.
    pub(super) async fn open(
        (inputs, object): (&Bucket, &str),
        bucket: Bucket,
        task: &TaskDescriptor,
        pack: Pack,
        execution: &Execution,
    ) -> Result<(Vec<Option<OpenFile>>, Self), Failed> {
        let got = inputs.get(object, limits::TAR_BYTES_MAX).await;
        let (info, tar) = got.map_err(|error| input_failed(&error))?;
        let found = tarred::read(&Bytes::from(tar)).and_then(|found| {
            let fit = found.iter().all(|found| found.member.place < pack.files);
            fit.then_some(found).ok_or_else(|| "it has more files than its pack".to_owned())
        });
        let mut found = found.map_err(|why| {
            let text = format!("obj://{}/{object} is no tar of a pack: {why}", inputs.name());
            Failed::new(Cause::InputUnreadable, text)
        })?;
        if let Some(again) = task.again.as_deref() {
            found = those_of(again, found, info.digest).map_err(|why| {
                let text = format!("obj://{}/{object} {why}", inputs.name());
                Failed::new(Cause::InputChanged, text)
            })?;
        }
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
        let input = info.digest;
        Ok((files, Self { bucket, task, execution, input, held }))
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
                return Ok(Stored::Tar { info: Box::new(info), at, input: self.input });
            }
            Err(error) => return Err(error.into()),
        }
        let stored = writer.commit_beside_broken().await?;
        Ok(Stored::Tar { info: Box::new(stored.info), at, input: self.input })
    }

    fn writer(&self) -> Result<Writer, Error> {
        let Self { bucket, task, execution, held, .. } = self;
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

/// Of a pack that is run again, the files that its tar had: of what is `found` in the tar of its inputs, which has this digest.
fn those_of(again: &Again, found: Vec<Found>, digest: Digest) -> Result<Vec<Found>, String> {
    if digest != again.digest {
        return Err(format!("has the digest {digest}, and the pack once read {}", again.digest));
    }
    let is_wanted = |found: &Found| again.places.contains(&found.member.place);
    let found: Vec<_> = found.into_iter().filter(is_wanted).collect();
    if found.len() == again.places.len() {
        Ok(found)
    } else {
        Err("lacks files that are to be in the tar of the outputs".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_run_again_with_the_files_of_its_tar_and_of_the_very_inputs() {
        let found = |place: u32| {
            let member = Member { place, name: "f".into(), mode: 0, mtime: 0 };
            Found { member, at: 0, content: Bytes::new() }
        };
        let digest = Digest::of(b"inputs");
        let those = |places: &[u32], of: Digest| {
            let again = Again { files: 4, places: places.to_vec(), digest };
            let those = those_of(&again, vec![found(0), found(1), found(3)], of)?;
            Ok::<_, String>(those.iter().map(|found| found.member.place).collect::<Vec<_>>())
        };
        assert_eq!(those(&[0, 3], digest).unwrap(), [0, 3]);
        assert!(those(&[0, 2], digest).unwrap_err().contains("lacks files"));
        assert!(those(&[0, 3], Digest::of(b"others")).unwrap_err().contains("once read"));
    }
}
