//! A mount namespace of our own, for a small disk that can be filled and that goes with its last process.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cli::ISOLATED;

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command
}

/// Becomes the same program with a mount namespace of its own; returns if the machine has none for us.
pub(super) fn isolate() -> Result<()> {
    let can = unshare().arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let program = std::env::current_exe().context("find this program")?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let error = unshare().arg(program).args(arguments).arg(format!("--{ISOLATED}")).exec();
    Err(error).context("start in a mount namespace")
}

/// Mounts a disk of so many bytes on a folder.
pub(super) fn mount(folder: &Path, bytes: u64) -> Result<()> {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "bagpress-drill"]).arg(folder);
    let output = mount.output().context("mount a disk")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mount a disk on {}: {}", folder.display(), said.trim());
    Ok(())
}

/// Takes it away again.
pub(super) fn unmount(folder: &Path) -> Result<()> {
    let status = Command::new("umount").arg(folder).status().context("unmount a disk")?;
    ensure!(status.success(), "unmount {}", folder.display());
    Ok(())
}
