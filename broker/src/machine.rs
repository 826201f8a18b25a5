//! This machine and its processes.

use std::sync::LazyLock;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// The name of this host.
#[must_use]
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Which run of which kernel this is: equal for all that share a file system cache. Empty if that cannot be told.
#[must_use]
pub fn boot_id() -> &'static str {
    static ID: LazyLock<String> = LazyLock::new(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map_or_else(|_| String::new(), |id| id.trim().to_owned())
    });
    &ID
}

/// Which processes our ids are of: kernel, since its start, and namespace. Empty if that cannot be told.
#[must_use]
pub fn processes() -> String {
    match (boot_id(), std::fs::read_link("/proc/self/ns/pid")) {
        (kernel, Ok(namespace)) if !kernel.is_empty() => {
            format!("{kernel}/{}", namespace.display())
        }
        _ => String::new(),
    }
}

/// Whether a process of that id lives here, of any user; 0 is no process.
#[must_use]
pub fn lives(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
        return false;
    };
    test_kill_process(pid) != Err(Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_live_and_a_process_that_was_waited_for_does_not() {
        assert!(lives(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(!lives(child.id()));
        assert!(!lives(0) && !lives(u32::MAX));
    }
}
