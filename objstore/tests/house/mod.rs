//! A bag's gatherer in small: a server, a receiver, a folder, and a ledger in memory.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bagpress_broker::ids::BagId;
use bagpress_broker::result::TaskResult;
use bagpress_broker::samples;
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{Broker, Role};
use bagpress_objstore::staging::{InputFile, Own, Parts, Plan, Receiver, Target, mtime_ns};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// What the receiver asks; tasks 0 to 99, whose outputs lie in folder `out`.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    by_path: bool,
    decided: Mutex<HashMap<(u32, u32), TaskResult>>,
    inputs: Mutex<HashMap<u32, InputFile>>,
}

impl Ledger {
    /// Appends the line of an outcome.
    pub(crate) fn decide(&self, result: &TaskResult) {
        self.decided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((result.index, result.round), result.clone());
    }

    /// Makes a file, as it is now, a task's input.
    pub(crate) fn take_input(&self, index: u32, path: &Path) -> io::Result<()> {
        let metadata = path.metadata()?;
        let file = InputFile {
            path: path.to_owned(),
            bytes: metadata.len(),
            mtime_ns: mtime_ns(&metadata),
            inode: metadata.ino(),
            section: None,
        };
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner).insert(index, file);
        Ok(())
    }
}

pub(crate) fn target(index: u32) -> Target {
    Target {
        path: PathBuf::from(format!("out/out_{index}.bin")),
        attributes: None,
        replaces: None,
        own: Own::Nothing,
    }
}

impl Plan for Ledger {
    fn decided(&self, index: u32, round: u32) -> Option<TaskResult> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner).get(&(index, round)).cloned()
    }

    fn files(&self, _: u32, _: u32) -> u32 {
        1
    }

    fn is_file_decided(&self, index: u32, round: u32) -> bool {
        self.decided(index, round).is_some()
    }

    fn target(&self, index: u32) -> io::Result<Target> {
        if index < 100 { Ok(target(index)) } else { Err(io::Error::other("100 tasks")) }
    }

    fn input(&self, index: u32) -> io::Result<InputFile> {
        let input = self.inputs.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned();
        input.ok_or_else(|| io::Error::other("no file"))
    }

    fn by_path(&self) -> bool {
        self.by_path
    }

    fn output_bytes_max(&self, _index: u32, input_bytes: u64) -> u64 {
        input_bytes + 64
    }
}

pub(crate) struct House {
    pub(crate) bag: BagId,
    pub(crate) worker: Broker,
    pub(crate) gatherer: Broker,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) parts: Arc<Parts>,
    /// None while nobody gathers.
    pub(crate) receiver: Option<Receiver>,
    folder: tempfile::TempDir,
    _server: NatsServer,
}

impl House {
    pub(crate) async fn open(by_path: bool) -> Outcome<Self> {
        let server = NatsServer::start().await;
        let folder = tempfile::tempdir()?;
        let bag = samples::bag();
        let mut house = Self {
            worker: server.broker(Role::Worker).await,
            gatherer: server.broker(Role::Producer).await,
            ledger: Arc::new(Ledger { by_path, ..Ledger::default() }),
            parts: Arc::new(Parts::open(&folder.path().join("run"), &bag)?),
            bag,
            receiver: None,
            folder,
            _server: server,
        };
        house.gather().await?;
        Ok(house)
    }

    /// Begins to gather.
    pub(crate) async fn gather(&mut self) -> Outcome {
        let (parts, ledger) = (self.parts.clone(), self.ledger.clone());
        self.receiver = Some(Receiver::start(&self.gatherer, &self.bag, parts, ledger).await?);
        Ok(self.gatherer.flush().await?)
    }

    /// The output under its final name, if there is one.
    pub(crate) fn placed(&self, index: u32) -> Option<Vec<u8>> {
        std::fs::read(self.parts.root().join(target(index).path)).ok()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Bytes that differ in every chunk.
pub(crate) fn sample(bytes: usize) -> Vec<u8> {
    let kind = bagpress_codec::DataKind::Random;
    let mut sample = vec![0; bytes];
    bagpress_codec::Generator::new(kind, 1, 0, bytes as u64).fill(&mut sample);
    sample
}
