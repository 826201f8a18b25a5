//! Whose run folders are trusted: a run folder decides which files are read, written and removed.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;
use rustix::fs::{AtFlags, Stat, statat};
use rustix::process::geteuid;

use crate::error::Usage;

/// Bits of a mode that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;
/// Everybody may write, which in a folder lets everybody rename what is there, unless it is sticky.
const EVERYBODY_WRITES: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Which run folders are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Those that are this user's, and that nobody else can write to.
    #[default]
    Ours,
    /// Whichever was named: `--trust-folder`.
    Anybodys,
}

/// Why something is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    Owner(u32),
    Mode(u32),
}

/// Whether something of this owner and mode may tell user `us` what to do.
fn doubt(owner: u32, mode: u32, us: u32) -> Option<Doubt> {
    // What another user owns is that user's to change, whatever its mode is now.
    let foreign = (owner != us).then_some(Doubt::Owner(owner));
    foreign.or((mode & OTHERS_WRITE != 0).then_some(Doubt::Mode(mode)))
}

/// Whether others may put something else in the place of what is in a folder of this mode. The sticky bit binds everybody
/// but the folder's owner, which must be us or root.
fn lets_others_rename(owner: u32, mode: u32, us: u32) -> bool {
    mode & EVERYBODY_WRITES != 0 && (mode & STICKY == 0 || ![0, us].contains(&owner))
}

impl Trust {
    /// Refuses what another user owns or can write to; `opened` is what was opened, and `path` what it is called.
    ///
    /// # Errors
    ///
    /// [`Usage`], naming it, its owner or mode, and what to do.
    pub(crate) fn check(self, path: &Path, opened: &Stat) -> Result<()> {
        if self == Self::Anybodys {
            return Ok(());
        }
        let us = geteuid().as_raw();
        let (path, insist) = (name(path), "insist with --trust-folder");
        match doubt(opened.st_uid, opened.st_mode & 0o7777, us) {
            None => Ok(()),
            Some(Doubt::Owner(owner)) => Err(Usage::error(
                format!("{path} belongs to user {owner}, and this is user {us}: it is not trusted"),
                format!(
                    "a run folder decides what is written and removed: check its contents, then {insist}, or make a run of \
                     your own"
                ),
            )),
            Some(Doubt::Mode(mode)) => Err(Usage::error(
                format!("others can write to {path} (mode {mode:04o}): it is not trusted"),
                format!("check its contents, then chmod -R go-w {path}, or {insist}"),
            )),
        }
    }

    /// Refuses a run folder in whose place everybody may put another one: that of `folder` and those two above it, which
    /// are the run's and the one of all runs. Further up it is as with every program that is started there.
    ///
    /// # Errors
    ///
    /// [`Usage`], naming the folder above.
    pub(crate) fn check_above(self, path: &Path, folder: impl rustix::fd::AsFd) -> Result<()> {
        if self == Self::Anybodys {
            return Ok(());
        }
        for up in ["..", "../.."] {
            let above = statat(&folder, up, AtFlags::empty()).map_err(io::Error::from);
            let above = above.with_context(|| format!("look at {}", name(path.join(up))))?;
            let mode = above.st_mode & 0o7777;
            if lets_others_rename(above.st_uid, mode, geteuid().as_raw()) {
                let above = name(path.join(up));
                return Err(Usage::error(
                    format!(
                        "everybody can write to {above} (mode {mode:04o}), and put another folder in the place of {}",
                        name(path)
                    ),
                    format!("chmod o-w {above}, or +t; or insist with --trust-folder"),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_user_owns_or_can_write_is_doubted() {
        assert_eq!(doubt(1000, 0o755, 1000), None);
        assert_eq!(doubt(1000, 0o2700, 1000), None);
        assert_eq!(doubt(0, 0o755, 1000), Some(Doubt::Owner(0)), "root's, too");
        assert_eq!(doubt(1000, 0o700, 0), Some(Doubt::Owner(1000)), "for root, too");
        assert_eq!(doubt(1000, 0o664, 1000), Some(Doubt::Mode(0o664)));
        assert_eq!(doubt(1000, 0o602, 1000), Some(Doubt::Mode(0o602)));
    }

    #[test]
    fn everybody_can_rename_where_everybody_can_write_and_it_is_not_sticky() {
        for (owner, mode, lets) in [
            (7, 0o777, true),
            (0, 0o2773, true),
            (7, 0o1777, false),
            (0, 0o1777, false),
            (8, 0o1777, true),
            (7, 0o775, false),
        ] {
            assert_eq!(lets_others_rename(owner, mode, 7), lets, "{owner} {mode:o}");
        }
    }
}
