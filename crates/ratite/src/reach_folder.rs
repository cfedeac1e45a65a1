//! The folder in which a machine is reachable by its name: where such folders are, how a name is taken, and how it is
//! given back.
//!
//! ```text
//! made aside, locked ─► renamed to NAME ─► in use ─► renamed aside ─► removed
//! ```
//!
//! A folder bears its name only while its lock is held, and whoever finds one whose lock is free sweeps it: its owner
//! was killed. Renaming is what makes it safe: of all who try, one succeeds, and nobody finds a folder half made.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use ratite_qmp::Address;
use ratite_qmp::Server;
use rustix::fs::FlockOperation;
use rustix::fs::OFlags;
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::procfs;
use crate::reach_words::ReachError;
use crate::runtime::aside;
use crate::runtime::background;

/// The socket on which QMP is spoken as with QEMU itself.
pub(crate) const QMP: &str = "qmp";

/// The socket for everything else.
pub(crate) const CONTROL: &str = "control";

/// The file that its owner keeps locked; its pid and start time are in it.
const LOCK: &str = "lock";

/// The longest path that a socket can be reached by (unix(7)).
const LONGEST_PATH: usize = 107;

/// How often, and how far apart, a name is tried for that somebody else is just sweeping.
const ATTEMPTS: (usize, Duration) = (100, Duration::from_millis(10));

/// How old a folder without a name has to be to be taken for a dead program's.
const UNNAMED_AGE: Duration = Duration::from_secs(60);

/// Where a machine is reachable.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) name: String,
    pub(crate) folder: Arc<ReachFolder>,
    /// The sockets in it, until somebody serves them.
    pub(crate) sockets: Mutex<Option<Sockets>>,
    /// Whether all who were connected have been told of the machine's end.
    pub(crate) told: watch::Sender<bool>,
}

/// What others connect to; driven by the background runtime.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) qmp: Server,
    pub(crate) control: UnixListener,
}

impl Reach {
    /// Takes the name, and listens. Whoever connects waits until somebody serves.
    ///
    /// # Errors
    /// As [`ReachFolder::take`].
    pub(crate) async fn open(name: String) -> Result<Self, ReachError> {
        let wanted = name.clone();
        let folder = aside(move || ReachFolder::take(&wanted)).await?;
        let broken = |source| ReachError::folder(folder.path(), source);
        let runtime = background().map_err(broken)?;
        let (qmp, control) = (folder.path().join(QMP), folder.path().join(CONTROL));
        let bind = async move {
            let qmp = Server::bind(&Address::unix(qmp)).await.map_err(io::Error::other)?;
            // With any mode: the folder keeps others away.
            let control = UnixListener::bind(control)?;
            Ok(Sockets { qmp, control })
        };
        let bound = runtime.spawn(bind).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let sockets = bound.map_err(broken)?;
        let (folder, sockets) = (Arc::new(folder), Mutex::new(Some(sockets)));
        Ok(Self { name, folder, sockets, told: watch::Sender::new(false) })
    }
}

/// The folder of a reachable machine. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct ReachFolder {
    path: PathBuf,
    /// Held for as long as the name is taken; `None` once the folder is removed.
    lock: Mutex<Option<File>>,
    /// A process that was forked off has a copy of this value, and is to leave the folder alone.
    maker: u32,
}

impl ReachFolder {
    /// Takes the name `name` for this program.
    ///
    /// # Errors
    /// [`ReachError::Taken`] if a living machine has it; [`ReachError::Folder`] if the folder cannot be had.
    pub(crate) fn take(name: &str) -> Result<Self, ReachError> {
        let all = all_folders()?;
        check_length(&all, name)?;
        let fault = |source| ReachError::folder(&all, source);
        make_private(&all).map_err(fault)?;
        let unnamed = path_aside(&all).map_err(fault)?;
        DirBuilder::new().mode(0o700).create(&unnamed).map_err(fault)?;
        let lock = match own_lock(&unnamed) {
            Ok(lock) => lock,
            Err(error) => {
                let _nothing_in_it = std::fs::remove_dir_all(&unnamed);
                return Err(fault(error));
            }
        };
        let mut folder = Self { path: unnamed, lock: Mutex::new(Some(lock)), maker: std::process::id() };
        folder.name_it(&all.join(name), name)?;
        Ok(folder)
    }

    /// Renames it, and sweeps what is there of a dead program.
    fn name_it(&mut self, path: &Path, name: &str) -> Result<(), ReachError> {
        let fault = |source| ReachError::folder(path, source);
        let (most, pause) = ATTEMPTS;
        let mut holder = None;
        for _ in 0..most {
            // A folder with something in it is never replaced (rename(2)), and the others have their locks in them.
            match std::fs::rename(&self.path, path) {
                Ok(()) => {
                    path.clone_into(&mut self.path);
                    return Ok(());
                }
                Err(error) if is_occupied(&error) => {}
                Err(error) => return Err(fault(error)),
            }
            match Holder::of(path).map_err(fault)? {
                Holder::Nobody => {}
                Holder::Dead(_lock) => sweep(path).map_err(fault)?,
                // Somebody else has made it. Empty it may go.
                Holder::Foreign => std::fs::remove_dir(path).map_err(fault)?,
                Holder::Living(pid) => {
                    return Err(ReachError::Taken { name: name.to_owned(), pid: Some(pid) });
                }
                // Somebody sweeps it, or it is a dead program's whose forked child lives on.
                Holder::Unknown(pid) => {
                    holder = pid;
                    std::thread::park_timeout(pause);
                }
            }
        }
        Err(ReachError::Taken { name: name.to_owned(), pid: holder })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the name back, and removes the folder.
    pub(crate) fn remove(&self) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        if lock.is_none() || self.maker != std::process::id() {
            return;
        }
        if let Err(error) = sweep(&self.path) {
            tracing::warn!(folder = %self.path.display(), %error, "could not remove a machine's folder");
        }
    }
}

impl Drop for ReachFolder {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The folder of this user in which every reachable machine has its own. It need not exist.
///
/// # Errors
/// [`ReachError::Folder`] if the one in `/tmp` is not to be trusted.
pub(crate) fn all_folders() -> Result<PathBuf, ReachError> {
    let uid = rustix::process::geteuid().as_raw();
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let of_the_session = PathBuf::from(format!("/run/user/{uid}"));
    let ours = |folder: &PathBuf| std::fs::metadata(folder).is_ok_and(|it| it.is_dir() && it.uid() == uid);
    if let Some(folder) = given.into_iter().chain([of_the_session]).find(ours) {
        return Ok(folder.join("ratite"));
    }
    let folder = PathBuf::from(format!("/tmp/ratite-{uid}"));
    make_private(&folder).map_err(|source| ReachError::folder(&folder, source))?;
    Ok(folder)
}

/// The same; refused if there is one in which somebody else could have put a machine.
///
/// # Errors
/// [`ReachError::Folder`].
pub(crate) fn trusted() -> Result<PathBuf, ReachError> {
    let all = all_folders()?;
    match check_private(&all) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ReachError::folder(&all, source)),
        _ => Ok(all),
    }
}

/// The names that are taken, in their order. Sweeps what dead programs have left.
///
/// # Errors
/// [`ReachError::Folder`] if the folder cannot be read; one that is not there has no names in it.
pub(crate) fn names() -> Result<Vec<String>, ReachError> {
    let all = all_folders()?;
    let entries = match std::fs::read_dir(&all) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ReachError::folder(&all, error)),
    };
    check_private(&all).map_err(|source| ReachError::folder(&all, source))?;
    let mut names = Vec::new();
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_unnamed = name.as_encoded_bytes().starts_with(b".");
        match Holder::of(&path) {
            Ok(Holder::Dead(_lock)) if !is_unnamed || is_old(&path) => {
                // What cannot be swept now is found again.
                let _later = sweep(&path);
            }
            Ok(Holder::Living(_) | Holder::Unknown(_)) if !is_unnamed => {
                names.extend(name.to_str().map(str::to_owned));
            }
            _ => {}
        }
    }
    names.sort();
    Ok(names)
}

/// Who holds the lock of a folder.
enum Holder {
    /// There is no such folder.
    Nobody,
    /// Nobody lives who held it; now it is ours, so that no other sweeps.
    Dead(File),
    /// It is none of ratite's: those have their locks from the beginning to the end.
    Foreign,
    Living(u32),
    /// Somebody other than whose pid is in it.
    Unknown(Option<u32>),
}

impl Holder {
    fn of(folder: &Path) -> io::Result<Self> {
        let path = folder.join(LOCK);
        // Non-blocking for what is no plain file: a pipe would hold up everybody who looks around.
        let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK).bits().cast_signed();
        let mut lock = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if folder.symlink_metadata().is_ok() { Self::Foreign } else { Self::Nobody });
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Self::Foreign),
            Err(error) => return Err(error),
        };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Another may stand there by now, whose lock this is not.
            let is_same = |it: std::fs::Metadata| {
                lock.metadata().is_ok_and(|lock| (it.dev(), it.ino()) == (lock.dev(), lock.ino()))
            };
            return Ok(match std::fs::symlink_metadata(&path).is_ok_and(is_same) {
                true => Self::Dead(lock),
                false => Self::Unknown(None),
            });
        }
        let mut text = String::new();
        lock.read_to_string(&mut text)?;
        let mut words = text.split_whitespace();
        let pid: Option<u32> = words.next().and_then(|pid| pid.parse().ok());
        let start: Option<u64> = words.next().and_then(|start| start.parse().ok());
        // Where numbers mean nothing, the lock alone tells.
        let lives = |pid| match (procfs::is_ours(), start) {
            (true, Some(start)) => procfs::start_time(pid).is_ok_and(|living| living == start),
            _ => true,
        };
        Ok(match pid {
            Some(pid) if lives(pid) => Self::Living(pid),
            pid => Self::Unknown(pid),
        })
    }
}

/// Removes a folder so that nobody sees it half removed.
fn sweep(folder: &Path) -> io::Result<()> {
    let parent = folder.parent().unwrap_or(Path::new("/"));
    let aside = path_aside(parent)?;
    match std::fs::rename(folder, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    std::fs::remove_dir_all(&aside)
}

/// A path in `folder` that no other has.
fn path_aside(folder: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(folder.join(format!(".{:016x}", u64::from_ne_bytes(random))))
}

fn is_occupied(error: &io::Error) -> bool {
    use io::ErrorKind::AlreadyExists;
    use io::ErrorKind::DirectoryNotEmpty;
    use io::ErrorKind::NotADirectory;
    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
}

fn is_old(folder: &Path) -> bool {
    let made = std::fs::symlink_metadata(folder).and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > UNNAMED_AGE))
}

/// A lock file in `folder`, locked by this process.
fn own_lock(folder: &Path) -> io::Result<File> {
    let mut lock =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(folder.join(LOCK))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    let pid = std::process::id();
    match procfs::start_time(pid) {
        Ok(start) if procfs::is_ours() => writeln!(lock, "{pid} {start}")?,
        _ => writeln!(lock, "{pid}")?,
    }
    Ok(lock)
}

/// Makes `folder` with mode 0700, or finds it so.
fn make_private(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_private(folder),
        Err(error) => Err(error),
    }
}

/// Refuses a folder in which somebody else could put what we would trust.
fn check_private(folder: &Path) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(folder)?;
    let refused = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    let uid = rustix::process::geteuid().as_raw();
    if metadata.is_symlink() {
        return refused("it is a symbolic link".into());
    }
    if !metadata.is_dir() {
        return refused("it is no folder".into());
    }
    if metadata.uid() != uid {
        return refused(format!("it belongs to user {}, and this is user {uid}", metadata.uid()));
    }
    match metadata.mode() & 0o777 {
        0o700 => Ok(()),
        mode => refused(format!("its mode is {mode:04o}, and has to be 0700")),
    }
}

fn check_length(all: &Path, name: &str) -> Result<(), ReachError> {
    let length = |name: &OsStr| all.join(name).join(CONTROL).as_os_str().len();
    let most = LONGEST_PATH.saturating_sub(length(OsStr::new("")));
    match length(OsStr::new(name)) <= LONGEST_PATH {
        true => Ok(()),
        false => Err(ReachError::Name {
            name: name.to_owned(),
            reason: format!(
                "it is {} bytes long, and in `{}` a name may have {most}, since a socket's path may have {LONGEST_PATH}",
                name.len(),
                all.display(),
            ),
        }),
    }
}
