//! What Linux reports about processes and the machine, from `/proc`.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

/// How busy a machine of how many cores was: a number that was measured during other work says so.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    /// Processes that wanted a core, averaged over a minute.
    pub(crate) load_1min: f64,
}

impl Machine {
    pub(crate) fn now() -> Self {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load_1min = load.split(' ').next().and_then(|first| first.parse().ok());
        Self { cores: cores(), load_1min: load_1min.unwrap_or(f64::NAN) }
    }
}

/// What a machine is, as far as a number depends on it; nothing that names it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Platform {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) system: String,
}

impl Platform {
    pub(crate) fn now() -> Self {
        let value = |path: &str, name: &str, between: char| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let pairs = text.lines().filter_map(|line| line.split_once(between));
            let found = pairs.into_iter().find(|(key, _)| key.trim() == name);
            found.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let memory = value("/proc/meminfo", "MemTotal", ':');
        let kib = memory.strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: value("/proc/cpuinfo", "model name", ':'),
            cores: cores(),
            memory_mib: kib.unwrap_or(0) / 1024,
            kernel: kernel.trim().to_owned(),
            system: value("/etc/os-release", "PRETTY_NAME", '=').trim_matches('"').to_owned(),
        }
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Most memory that a process ever held, in bytes, or nothing when it is gone.
pub(crate) fn peak_rss_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    kib.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The processes that a process has started.
pub(crate) fn children(of: u32) -> Vec<u32> {
    processes().filter(|&pid| parent(pid) == Some(of)).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Other processes with a text in their command line, each with that line.
pub(crate) fn mentioning(text: &str) -> Vec<String> {
    let others = processes().filter(|&pid| pid != std::process::id());
    others
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(text).then(|| format!("process {pid}: {}", line.trim()))
        })
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses, and may have any of them inside: what is meant is behind the last.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The program and the first argument of a process.
pub(crate) fn called(pid: u32) -> Option<(String, String)> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = line.split('\0');
    let program = arguments.next()?.rsplit('/').next()?.to_owned();
    Some((program, arguments.next().unwrap_or_default().to_owned()))
}

/// Sends a signal; false if there was nobody to get it.
pub(crate) fn send(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
