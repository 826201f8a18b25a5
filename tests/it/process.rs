//! Processes as the kernel knows them.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// A child of a process of ours.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(crate) command: String,
}

impl Child {
    /// Whether it runs a program of this name.
    pub(crate) fn is(&self, program: &str) -> bool {
        let path = self.command.split(' ').next().unwrap_or_default();
        path.rsplit('/').next() == Some(program)
    }

    /// Whether it has become a worker.
    pub(crate) fn is_worker(&self) -> bool {
        self.command.contains(" worker ") && !self.command.contains("__guard")
    }

    /// Whether it has become a server.
    pub(crate) fn is_server(&self) -> bool {
        self.command.contains("nats-server --config") && !self.command.contains("__guard")
    }
}

/// State and parent of a process, unless it is gone.
fn state(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name is in parentheses, and may hold any of them.
    let mut fields = text.get(text.rfind(')')? + 2..)?.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether a process runs; one that only waits for its parent to look does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The children of a process.
pub(crate) fn children(parent: u32) -> Vec<Child> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children = pids.filter(|pid| {
        state(*pid).is_some_and(|(state, of)| of == parent && !matches!(state, 'Z' | 'X'))
    });
    let command = |pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    children
        .map(|pid| Child {
            pid,
            command: String::from_utf8_lossy(&command(pid)).replace('\0', " "),
        })
        .collect()
}

/// Their process ids.
pub(crate) fn pids(children: &[Child]) -> Vec<u32> {
    children.iter().map(|child| child.pid).collect()
}

/// Bytes that a process had in memory at most, so far.
pub(crate) fn peak_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Bytes that a process has in memory for itself alone, unless it is gone: without programs and files.
pub(crate) fn private_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Sends a signal to a process that is there.
pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}
