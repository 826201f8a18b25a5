//! A file system of a few megabytes, for one command. It lives in a mount namespace of its own; where
//! that cannot be had, the test fails and says so.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::harness::{Ended, Place, Running};
use crate::process;

/// Mounts, runs the command, and keeps what the disk held beside it. The command dies with the shell.
const SCRIPT: &str = r#"
set -e
disk=$1 size=$2; shift 2
mkdir -p "$disk"
mount -t tmpfs -o "size=$size" small "$disk"
set +e
setpriv --pdeathsig KILL "$@"
code=$?
rm -f "$disk/filler"
cp -a "$disk" "$disk.kept"
exit $code
"#;

/// A command whose folder `disk` is a small file system.
pub(crate) struct OnSmallDisk {
    shell: Running,
    disk: PathBuf,
}

impl OnSmallDisk {
    /// Starts the program with `disk`, a folder of `place`, on a file system of `bytes`.
    pub(crate) fn start(place: &Place, disk: &str, bytes: u64, words: &str) -> Self {
        let disk = place.path(disk);
        let mut command = place.command(Path::new("unshare"), "--mount");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["sh", "-c", SCRIPT, "sh"]).arg(&disk).arg(bytes.to_string());
        command.arg(env!("CARGO_BIN_EXE_bagpress")).args(words.split_whitespace());
        Self { shell: place.start(command), disk }
    }

    /// Waits until the program itself runs, and gives its process id.
    pub(crate) async fn pid(&self, place: &Place) -> u32 {
        place
            .until("the program runs on its small disk", || {
                process::children(self.shell.pid()).iter().find(|c| c.is_bagpress()).map(|c| c.pid)
            })
            .await
    }

    /// The disk, as its processes see it, while they run.
    pub(crate) fn disk(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.shell.pid()));
        root.join(self.disk.strip_prefix("/").unwrap())
    }

    pub(crate) fn stderr(&self) -> String {
        self.shell.stderr()
    }

    /// Takes room until `left` bytes are free.
    pub(crate) fn fill(&self, left: u64) {
        let mut filler = File::options().create(true).append(true).open(self.disk().join("filler"));
        let filler = filler.as_mut().unwrap();
        while let Ok(stat) = rustix::fs::statvfs(self.disk())
            && stat.f_bavail * stat.f_frsize > left
        {
            let more = stat.f_bavail * stat.f_frsize - left;
            let more = usize::try_from(more.min(1 << 20)).unwrap();
            if filler.write_all(&vec![0; more]).is_err() {
                return;
            }
        }
    }

    /// Gives the room back.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.disk().join("filler")).unwrap();
    }

    /// Waits for its end. What was on the disk is then in a folder beside it, named `.kept`.
    pub(crate) async fn ended(self, place: &Place) -> Ended {
        self.shell.ended(place).await
    }
}
