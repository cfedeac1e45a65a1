//! The log of one run: what QEMU writes to stdout and stderr, in a file that its machine alone writes to.

use std::ffi::OsStr;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::FlockOperation;

use crate::exit::Tail;
use crate::runtime::later;
use crate::workdir::bare;
use crate::workdir::no_follow;

/// What QEMU writes to stdout and stderr. Can be read while the machine runs, and as long as this lives.
///
/// Cheap to clone; clones share the file.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
    file: Arc<Closing>,
}

/// A file, and whether it is closed where nobody waits for it. The last descriptor of a log whose folder is removed lets the file
/// system free them both, and some (ext4 with `discard`) wait for the disk then. Where others want its name and its lock, it is
/// closed at once.
#[derive(Debug)]
struct Closing {
    file: Option<File>,
    later: bool,
}

impl Closing {
    fn now(file: File) -> Arc<Self> {
        Arc::new(Self { file: Some(file), later: false })
    }

    fn later(file: File) -> Arc<Self> {
        Arc::new(Self { file: Some(file), later: true })
    }
}

impl Deref for Closing {
    type Target = File;

    fn deref(&self) -> &File {
        self.file.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let file = self.file.take();
        match self.later {
            true => later(|| drop(file)),
            false => drop(file),
        }
    }
}

impl Log {
    /// Opens `NAME.log` in `folder` for a new run. A log of an earlier run becomes `NAME.log.1`.
    ///
    /// The file is locked for as long as somebody writes to it, QEMU included, so that two machines cannot share it; it has
    /// its lock before it has its name, so that of all who try at once just one succeeds.
    pub(crate) fn create(folder: &Path, name: &OsStr) -> io::Result<Self> {
        let path = Self::path_in(folder, name);
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {}", path.display(), bare(error)));
        let (file, mut unnamed) = tempfile::Builder::new()
            .prefix(".ratite-")
            .append(true)
            // As any new file, which the umask decides; but not on what its owner may, who reads and rotates it.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(named)?
            .into_parts();
        let mode = file.metadata()?.permissions().mode() | 0o600;
        file.set_permissions(Permissions::from_mode(mode))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        loop {
            match unnamed.persist_noclobber(&path) {
                Ok(()) => return Ok(Self { path, file: Closing::now(file) }),
                Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
                    set_aside(&path)?;
                    unnamed = refused.path;
                }
                Err(refused) => return Err(named(refused.error)),
            }
        }
    }

    /// The same in a folder that nobody else has a use for: no name in it is taken, and nobody tries at once.
    pub(crate) fn create_alone(folder: &Path, name: &OsStr) -> io::Result<Self> {
        let path = Self::path_in(folder, name);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // As any new file: its mode is for the umask to decide.
        let created = OpenOptions::new().read(true).append(true).create_new(true).open(&path);
        let file = match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Self::create(folder, name),
            created => created.map_err(named)?,
        };
        let mode = file.metadata()?.permissions().mode();
        if mode & 0o600 != 0o600 {
            file.set_permissions(Permissions::from_mode(mode | 0o600))?;
        }
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, file: Closing::later(file) })
    }

    fn path_in(folder: &Path, name: &OsStr) -> PathBuf {
        let mut file_name = name.to_owned();
        file_name.push(".log");
        folder.join(&file_name)
    }

    /// Where the file is, or was.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything written so far, byte for byte.
    ///
    /// # Errors
    /// What the system says while reading.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        self.tail(usize::MAX).map(|tail| tail.bytes)
    }

    /// Everything written so far, as text; what is no UTF-8 is replaced (U+FFFD).
    ///
    /// # Errors
    /// What the system says while reading.
    pub fn text(&self) -> io::Result<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// At most the last `limit` bytes written so far.
    ///
    /// # Errors
    /// What the system says while reading.
    pub fn tail(&self, limit: usize) -> io::Result<Tail> {
        let length = self.file.metadata()?.len();
        let wanted = length.min(limit as u64);
        let start = length - wanted;
        let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(usize::MAX)];
        let mut read = 0;
        while read < bytes.len() {
            match self.file.read_at(&mut bytes[read..], start + read as u64)? {
                // Somebody has truncated it meanwhile.
                0 => break,
                count => read += count,
            }
        }
        bytes.truncate(read);
        Ok(Tail { bytes, omitted: start })
    }

    /// Says that nobody writes any more: another run may set the file aside. It can still be read here.
    pub(crate) fn finished(&self) {
        // An error would mean that there is no lock.
        let _unlocked = rustix::fs::flock(&**self.file, FlockOperation::Unlock);
    }

    /// A descriptor for the child's stdout or stderr.
    pub(crate) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Moves a log of an earlier run out of the way; refuses what is in use or no plain file.
fn set_aside(path: &Path) -> io::Result<()> {
    let refused =
        |reason: &str| io::Error::new(io::ErrorKind::AlreadyExists, format!("{}: {reason}", path.display()));
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if metadata.is_symlink() => return Err(refused("it is a symbolic link")),
        Ok(metadata) if !metadata.is_file() => return Err(refused("it is no plain file")),
        Ok(_) => {}
    }
    let old = match OpenOptions::new().append(true).custom_flags(no_follow()).open(path) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if rustix::fs::flock(&old, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(refused("another machine writes to it"));
    }
    // Only the file that was locked: another may stand there by now, and then the caller looks again.
    let identity = |metadata: io::Result<std::fs::Metadata>| metadata.map(|it| (it.dev(), it.ino())).ok();
    if identity(std::fs::symlink_metadata(path)) != identity(old.metadata()) {
        return Ok(());
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".1");
    std::fs::rename(path, aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn base() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_log_is_read_raw_while_it_is_written() {
        let base = base();
        let log = Log::create(base.path(), OsStr::new("m")).unwrap();
        log.writer().unwrap().write_all(b"one\r\n\xff").unwrap();

        assert_eq!(log.bytes().unwrap(), b"one\r\n\xff");
        assert_eq!(log.text().unwrap(), "one\r\n\u{fffd}");
        assert_eq!(log.tail(2).unwrap(), Tail { bytes: b"\n\xff".to_vec(), omitted: 4 });
    }

    #[test]
    fn an_earlier_log_is_kept_aside() {
        let base = base();
        drop(Log::create(base.path(), OsStr::new("m")).map(|log| log.writer().unwrap().write_all(b"first")));

        let log = Log::create(base.path(), OsStr::new("m")).unwrap();

        assert_eq!(log.bytes().unwrap(), b"");
        assert_eq!(std::fs::read(base.path().join("m.log.1")).unwrap(), b"first");
    }

    #[test]
    fn a_log_that_cannot_be_made_is_named_without_the_name_it_had_before() {
        let error = Log::create(Path::new("/nowhere"), OsStr::new("m")).unwrap_err();

        assert_eq!(error.to_string(), "/nowhere/m.log: No such file or directory (os error 2)");
    }

    #[test]
    fn a_log_in_use_or_behind_a_link_is_refused() {
        let base = base();
        let _in_use = Log::create(base.path(), OsStr::new("m")).unwrap();
        let victim = base.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, base.path().join("l.log")).unwrap();

        let in_use = Log::create(base.path(), OsStr::new("m")).unwrap_err();
        let link = Log::create(base.path(), OsStr::new("l")).unwrap_err();

        assert!(in_use.to_string().ends_with("m.log: another machine writes to it"), "{in_use}");
        assert!(link.to_string().ends_with("l.log: it is a symbolic link"), "{link}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }
}
