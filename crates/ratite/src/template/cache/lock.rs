//! Who may make, replace or remove a template: one at a time, of all programs.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FlockOperation;

/// The right to make, replace or remove one template. Its file goes with it.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits for it, without an end.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        loop {
            if let Some(lock) = Self::locked(path, FlockOperation::LockExclusive)? {
                return Ok(lock);
            }
        }
    }

    /// Takes it, if nobody has it.
    pub(super) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        match Self::locked(path, FlockOperation::NonBlockingLockExclusive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            outcome => outcome,
        }
    }

    /// `None` if the file was removed by the one who had it before.
    fn locked(path: &Path, how: FlockOperation) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, how))?;
        Ok(is_at(&file, path).then(|| Self { file, path: path.to_owned() }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: whoever has opened it meanwhile finds that it is not there any more.
        if is_at(&self.file, &self.path) {
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| {
        file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_who_want_a_lock_one_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");

        let lock = Lock::take(&path).unwrap();
        assert!(Lock::try_take(&path).unwrap().is_none());
        drop(lock);

        assert!(!path.exists());
        assert!(Lock::try_take(&path).unwrap().is_some());
    }
}
