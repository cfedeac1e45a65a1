//! The folder of one run: made, marked with its owner, kept or removed.
//!
//! A folder's name carries its owner's pid and start time, and the owner holds a lock on a file in it for as long as it
//! lives. Either alone could err (a reused pid, another pid namespace, a moment before the lock is taken); a folder is
//! swept only when both say that its owner is gone.

mod log;

use std::ffi::OsStr;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::fs::OFlags;

pub use log::Log;

/// The work folder of one run. Dropping it removes the folder, unless it is to be kept.
#[derive(Debug)]
pub(crate) struct Workdir {
    folder: PathBuf,
    keep: bool,
    /// The process that made it; one that was forked off has a copy of this value, and is to leave the folder alone.
    maker: u32,
    /// Held, not read: the lock says that the owner lives.
    lock: Option<File>,
    removed: bool,
}

/// How often, and how far apart, a folder is tried to be removed by a program that has no descriptor left for it.
const REMOVALS: (usize, Duration) = (50, Duration::from_millis(20));

impl Drop for Workdir {
    fn drop(&mut self) {
        if !self.is_to_go() {
            return;
        }
        // A folder that never got its lock is empty, and goes without a descriptor.
        if self.lock.is_none() && std::fs::remove_dir(self.path()).is_ok() {
            return;
        }
        // One descriptor more for the removal. The owner lives, so nobody takes the folder for a dead one's.
        self.lock = None;
        let (most, pause) = REMOVALS;
        for _ in 0..most {
            match remove(self.path()) {
                // A program at its limit can remove nothing until others have closed something.
                Err(error) if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => {
                    std::thread::park_timeout(pause);
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(folder = %self.path().display(), %error, "could not remove a work folder");
                    return;
                }
                _ => return,
            }
        }
        tracing::warn!(folder = %self.path().display(), "no descriptor to remove a work folder with");
    }
}

/// Removes a folder, the lock file last: where that is broken off by the program's end, the lock still tells that its owner
/// is dead.
fn remove(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            _ if entry.file_name() == LOCK => {}
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    match std::fs::remove_file(folder.join(LOCK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::remove_dir(folder)
}

/// "Too many open files", in this process and in the system; the same numbers on every Linux.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// How often a folder is made that others sweep at once.
const CREATIONS: usize = 50;

/// The file in a work folder that its owner keeps locked.
const LOCK: &str = "owner.lock";

impl Workdir {
    /// Makes a folder `PREFIX…` in `base`, with mode 0700.
    pub(crate) fn create(base: &Path, prefix: &str, keep: bool) -> io::Result<Self> {
        let mut attempts = 0..CREATIONS;
        loop {
            match Self::try_to_create(base, prefix, keep) {
                Ok(Some(workdir)) => return Ok(workdir),
                Err(error) => return Err(error),
                Ok(None) if attempts.next().is_some() => {}
                Ok(None) => return Err(io::Error::other("others remove each folder as soon as it is made")),
            }
        }
    }

    /// The same; `None` if a program in another pid namespace, which cannot see that we live, has swept the folder before it
    /// was locked.
    fn try_to_create(base: &Path, prefix: &str, keep: bool) -> io::Result<Option<Self>> {
        let folder = tempfile::Builder::new()
            .prefix(prefix)
            .rand_bytes(8)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(base)
            .map_err(bare)?
            // Removed by this type's own drop.
            .keep();
        // Owned from here on: what fails below removes it.
        let mut workdir = Self { folder, keep, maker: std::process::id(), lock: None, removed: false };
        // The umask may have taken away even the owner's permissions: the folder's, and the lock's, which others look at.
        let mode = |metadata: &std::fs::Metadata| metadata.permissions().mode() & 0o7777;
        if mode(&std::fs::symlink_metadata(&workdir.folder)?) != 0o700 {
            std::fs::set_permissions(&workdir.folder, Permissions::from_mode(0o700))?;
        }
        let lock =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(workdir.folder.join(LOCK))?;
        let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        let metadata = lock.metadata()?;
        if mode(&metadata) != 0o600 {
            lock.set_permissions(Permissions::from_mode(0o600))?;
        }
        match locked {
            Ok(()) if metadata.nlink() > 0 => {
                workdir.lock = Some(lock);
                Ok(Some(workdir))
            }
            Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    fn is_to_go(&self) -> bool {
        !self.keep && !self.removed && self.maker == std::process::id()
    }

    /// Removes it if that takes no time, because there are only a few small files in it; whether nothing is left to be done.
    pub(crate) fn settle(&mut self) -> bool {
        if self.is_to_go() {
            self.removed = remove_small(&self.folder).is_ok();
        }
        !self.is_to_go()
    }
}

/// How many files, and of which size, are removed without a thread of their own.
const SMALL: (usize, u64) = (4, 1 << 20);

/// Removes a folder in which there is next to nothing, in the same order as [`remove`].
fn remove_small(folder: &Path) -> io::Result<()> {
    let (most, longest) = SMALL;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        let is_small = entry.file_type()?.is_file() && entry.metadata()?.len() <= longest;
        if files.len() == most || !is_small {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        files.push(entry.path());
    }
    files.iter().try_for_each(std::fs::remove_file)?;
    std::fs::remove_file(folder.join(LOCK))?;
    std::fs::remove_dir(folder)
}

/// Removes the work folders in `base` that belong to this user and whose owners are dead.
///
/// `owner` reads pid and start time from a folder's name; `is_alive` says whether that very process still lives.
pub(crate) fn sweep(
    base: &Path,
    owner: impl Fn(&OsStr) -> Option<(u32, u64)>,
    is_alive: impl Fn(u32, u64) -> bool,
) {
    let Ok(entries) = std::fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let Some((pid, start)) = owner(&entry.file_name()) else {
            continue;
        };
        if is_alive(pid, start) {
            continue;
        }
        // Held until the folder is gone: one that is just being made could get its lock meanwhile.
        let Some(_lock) = lock_of_the_dead(&entry.path()) else {
            continue;
        };
        match std::fs::remove_dir_all(entry.path()) {
            Ok(()) => tracing::info!(folder = %entry.path().display(), "swept the folder of a dead program"),
            Err(error) => tracing::debug!(folder = %entry.path().display(), %error, "could not sweep"),
        }
    }
}

/// The lock of `folder`, if the folder is this user's and nobody holds it; no file if there is none.
fn lock_of_the_dead(folder: &Path) -> Option<Option<File>> {
    let ours = |metadata: &std::fs::Metadata| metadata.uid() == rustix::process::geteuid().as_raw();
    if !std::fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir() && ours(&metadata)) {
        return None;
    }
    let lock = OpenOptions::new().write(true).custom_flags(no_follow()).open(folder.join(LOCK));
    match lock {
        Ok(lock) => {
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(Some(lock))
        }
        // Its owner died before it could lock, or is about to: only a folder of some age counts as dead.
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::metadata(folder)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > UNLOCKED_AGE))
            .then_some(None),
        Err(_) => None,
    }
}

/// How old a folder without a lock file must be to be taken for a dead program's.
const UNLOCKED_AGE: Duration = Duration::from_secs(60);

/// What the system said, without the random name that `tempfile` puts behind it.
fn bare(error: io::Error) -> io::Error {
    let said = error.to_string();
    match said.split_once(" at path \"") {
        Some((said, _)) => io::Error::new(error.kind(), said),
        None => error,
    }
}

/// Never through a symbolic link, never into a child.
fn no_follow() -> i32 {
    (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;
    use tempfile::TempDir;

    fn base() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    /// An owner as a name `w-PID-START…` tells it.
    fn owner(name: &OsStr) -> Option<(u32, u64)> {
        let mut parts = name.to_str()?.strip_prefix("w-")?.split('-');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    #[test]
    fn a_folder_is_private_and_goes_with_its_owner() {
        let base = base();
        let workdir = Workdir::create(base.path(), "w-1-1-", false).unwrap();
        let path = workdir.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(path.join("file"), "x").unwrap();

        drop(workdir);

        assert!(!path.exists());
    }

    #[test]
    fn only_folders_of_dead_owners_are_swept() {
        let base = base();
        let living_elsewhere = Workdir::create(base.path(), "w-7-1-", false).unwrap();
        let dead = Workdir::create(base.path(), "w-8-1-", true).unwrap();
        let dead_path = dead.path().to_owned();
        drop(dead);
        let alive_here = Workdir::create(base.path(), "w-9-1-", true).unwrap();
        let alive_path = alive_here.path().to_owned();
        drop(alive_here);
        let stranger = base.path().join("other");
        std::fs::create_dir(&stranger).unwrap();
        let young = base.path().join("w-8-1-young");
        std::fs::create_dir(&young).unwrap();

        sweep(base.path(), owner, |pid, _| pid == 9);

        assert!(!dead_path.exists());
        assert!(
            living_elsewhere.path().exists() && alive_path.exists() && stranger.exists() && young.exists()
        );
    }

    #[test]
    fn a_folder_is_never_swept_from_under_its_maker() {
        let base = base();
        let done = AtomicBool::new(false);

        std::thread::scope(|scope| {
            for _ in 0..2 {
                // As in other pid namespaces: nobody's number means anything.
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        sweep(base.path(), owner, |_, _| false);
                    }
                });
            }
            let is_whole =
                |workdir: io::Result<Workdir>| workdir.is_ok_and(|it| it.path().join(LOCK).exists());
            let lost = (0..300).filter(|_| !is_whole(Workdir::create(base.path(), "w-7-1-", false))).count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(lost, 0);
        });
    }
}
