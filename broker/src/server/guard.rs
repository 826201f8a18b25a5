//! Children that die with their parent.
//!
//! `bagpress __guard PARENT PROGRAM ARG…` asks the kernel to be killed when its parent ends, makes sure
//! that the parent had not ended before that, and becomes the program. The request survives `exec`.
//! Linux fires it when the *thread* that started the child ends (prctl(2), `PR_SET_PDEATHSIG`), hence
//! children are started from the main thread.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The running program, whatever became of its file.
const RUNNING: &str = "/proc/self/exe";
/// What a child of that name is called where processes are listed.
const SHOWN: &str = "bagpress";

/// The hidden verb.
pub const VERB: &str = "__guard";

/// How children are started.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The program that has the hidden verb: our own.
    pub executable: PathBuf,
}

impl Guard {
    /// Guards by the running program.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn of_this_program() -> io::Result<Self> {
        // The kernel's own name for it leads to the program that runs, also when an update has put
        // another file in its place, or none.
        let running = PathBuf::from(RUNNING);
        let executable = if running.exists() { running } else { std::env::current_exe()? };
        Ok(Self { executable })
    }

    /// A command that becomes `program`; give it the program's arguments.
    ///
    /// It is in a process group of its own: a terminal's Ctrl-C reaches the parent alone, which stops
    /// its children in order.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = named(Command::new(&self.executable), self.executable.as_os_str());
        command.arg(VERB).arg(std::process::id().to_string()).arg(program.as_ref());
        command.process_group(0);
        command
    }
}

/// What the hidden verb does: becomes the program of `arguments`, which are those behind the verb.
/// Returns only if it cannot.
pub fn exec(mut arguments: impl Iterator<Item = OsString>) -> io::Error {
    let parent = arguments.next().and_then(|text| text.to_str()?.parse::<i32>().ok());
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        return io::Error::other("usage: __guard PARENT PROGRAM ARG…");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
        return io::Error::other("the parent ended before its child began");
    }
    named(Command::new(&program), &program).args(arguments).exec()
}

fn named(mut command: Command, program: &OsStr) -> Command {
    if program == RUNNING {
        command.arg0(SHOWN);
    }
    command
}
