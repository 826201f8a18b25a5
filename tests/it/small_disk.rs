//! A file system of a few megabytes, for one command. It lives in a mount namespace of its own; where
//! that cannot be had, the test fails and says so.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Ended, Place, Running};
use crate::process;

/// Mounts, runs the command, and keeps the contents of the disk next to it. The command dies with the shell.
const SCRIPT: &str = r#"
set -e
kind=$1 disk=$2 size=$3; shift 3
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$disk"
if [ "$kind" = tmpfs ]; then
    mount -t tmpfs -o "size=$size" small "$disk"
else
    truncate --size "$size" "$disk.image"
    mkfs.ext4 -q "$disk.image"
    mount -o loop "$disk.image" "$disk"
fi
set +e
setpriv --pdeathsig KILL "$@"
code=$?
rm -f "$disk/filler"
cp -a "$disk" "$disk.kept"
exit $code
"#;

/// Mounts, and starts the command again whenever it ends.
const KEEPER: &str = r#"
set -e
disk=$1 size=$2; shift 2
mkdir -p "$disk"
mount -t tmpfs -o "size=$size" small "$disk"
set +e
while :; do setpriv --pdeathsig KILL "$@"; done
"#;

/// A command whose folder `disk` is a small file system.
pub(crate) struct OnSmallDisk {
    shell: Running,
    disk: PathBuf,
}

impl OnSmallDisk {
    /// Starts the program with `disk`, a folder of `place`, on a file system of `bytes`.
    pub(crate) fn start(place: &Place, disk: &str, bytes: u64, words: &str) -> Self {
        Self::start_on("tmpfs", place, disk, bytes, words)
    }

    /// The same on a file system that can be made to hang. It takes root and a loop device; where they
    /// are not to be had, the test fails.
    pub(crate) fn start_on_disk(place: &Place, disk: &str, bytes: u64, words: &str) -> Self {
        Self::start_on("ext4", place, disk, bytes, words)
    }

    fn start_on(kind: &str, place: &Place, disk: &str, bytes: u64, words: &str) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_bagpress"));
        Self::start_script(place, &[SCRIPT, "sh", kind], disk, bytes, (program, words))
    }

    /// Starts a server with `disk` on a small file system, and again whenever it ends.
    pub(crate) fn keep_running(
        place: &Place,
        disk: &str,
        bytes: u64,
        program: &Path,
        words: &str,
    ) -> Self {
        Self::start_script(place, &[KEEPER, "sh"], disk, bytes, (program, words))
    }

    fn start_script(
        place: &Place,
        script: &[&str],
        disk: &str,
        bytes: u64,
        (program, words): (&Path, &str),
    ) -> Self {
        let disk = place.path(disk);
        let mut command = place.command(Path::new("unshare"), "--mount");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["sh", "-c"]).args(script).arg(&disk).arg(bytes.to_string());
        command.arg(program).args(words.split_whitespace());
        Self { shell: place.start(command), disk }
    }

    /// The process id of what runs on it, by the name of its program.
    pub(crate) fn child(&self, program: &str) -> Option<u32> {
        let children = process::children(self.shell.pid());
        children.iter().find(|child| child.is(program)).map(|child| child.pid)
    }

    /// Waits until the program itself runs, and gives its process id.
    pub(crate) async fn pid(&self, place: &Place) -> u32 {
        place.until("the program runs on its small disk", || self.child("bagpress")).await
    }

    /// Starts the program where the disk can be seen, too.
    pub(crate) fn beside(&self, place: &Place, words: &str) -> Running {
        let mut command = place.command(Path::new("nsenter"), "--mount");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--target", &self.shell.pid().to_string(), "--"]);
        command.arg(env!("CARGO_BIN_EXE_bagpress")).args(words.split_whitespace());
        place.start(command)
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

    /// Makes the disk hang: whatever is written or synced from now on waits, and nothing fails.
    pub(crate) fn freeze(&self) -> Frozen {
        let disk = File::open(self.disk()).unwrap();
        fsfreeze("--freeze", &disk);
        Frozen(disk)
    }

    /// Gives the room back.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.disk().join("filler")).unwrap();
    }

    /// Waits for its end. What was on the disk is then in a folder next to it, named `.kept`.
    pub(crate) async fn ended(self, place: &Place) -> Ended {
        self.shell.ended(place).await
    }
}

/// A disk that hangs until this is dropped. It must be, before its processes can end.
pub(crate) struct Frozen(File);

impl Drop for Frozen {
    fn drop(&mut self) {
        fsfreeze("--unfreeze", &self.0);
    }
}

fn fsfreeze(how: &str, disk: &File) {
    let path = format!("/proc/{}/fd/{}", std::process::id(), disk.as_raw_fd());
    let done = Command::new("/usr/sbin/fsfreeze").args([how, &path]).status().unwrap();
    assert!(done.success(), "fsfreeze {how}: {done}");
}
