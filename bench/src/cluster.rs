//! A broker and workers in processes of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use bagpress_producer::message;

use crate::program::{Bagpress, run_bag};
use crate::server::Server;

/// Empty tasks of the bag that a new cluster gets first, which gives its workers time to connect.
const WARM_UP_TASKS: u32 = 200;

/// A broker and workers in processes of their own, as on a cluster.
pub(crate) struct Cluster {
    pub(crate) server: Server,
    workers: Vec<Child>,
    store: PathBuf,
}

impl Cluster {
    /// Starts them, and runs a small bag, so that they are there.
    pub(crate) fn start(
        bagpress: &Bagpress,
        folder: &Path,
        name: &str,
        workers: u16,
    ) -> Result<Self> {
        let store = folder.join(format!("{name}-store"));
        let log = folder.join(format!("{name}-broker.log"));
        let server = Server::start(bagpress.clone(), store.clone(), log)?;
        let mut cluster = Self { server, workers: Vec::new(), store };
        let (bagpress, url) = (cluster.server.bagpress(), cluster.server.url());
        for number in 0..workers {
            let mut worker = bagpress.command("worker");
            worker.args(["--slots", "1", "--server", &url]);
            worker.arg("--log").arg(folder.join(format!("{name}-worker-{number}.log")));
            cluster.workers.push(quietly(&mut worker).spawn().context("start a worker")?);
        }
        let mut warm_up = bagpress.command("run");
        warm_up.args(["--codec", "noop", "--server", &url, "--quiet", "--json", "--runs"]);
        warm_up.arg(folder).args(["--name", &format!("{name}-warm-up")]);
        warm_up.args(["--tasks", &WARM_UP_TASKS.to_string()]);
        run_bag(warm_up, &folder.join("stderr"), |_, _| ())?;
        Ok(cluster)
    }

    pub(crate) fn a_worker(&self) -> u32 {
        self.workers.first().map_or(0, Child::id)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // One of them was killed already, which is what is measured.
            worker.kill().ok();
            worker.wait().ok();
        }
        if let Err(error) = self.server.stop() {
            message(&format!("note: {error:#}"));
        }
        // What stays goes with the temporary folder around it.
        fs::remove_dir_all(&self.store).ok();
    }
}

fn quietly(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}
