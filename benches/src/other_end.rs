//! The other end of a sample's monitor: the peer, or a real QEMU, started by the sample itself and ended with it.
//!
//! The sample runs on the first core then, with all threads that it starts, and the other end on the second. Left to
//! the scheduler they meet on one core in some samples and not in others, and a wake-up costs ten times more or less.

use std::ffi::OsString;
use std::ffi::c_int;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;

use crate::measure;
use crate::scenario::Failure;

/// A process with a monitor. Killed and reaped on drop, if it has not ended before.
#[derive(Debug)]
pub(crate) struct OtherEnd {
    child: Child,
    /// Where it is reached, if it is by a path; the folder goes with it.
    path: Option<PathBuf>,
}

/// The program `peer`.
pub(crate) fn peer_program() -> Result<PathBuf, Failure> {
    beside("YARDSTICK_PEER", "peer")
}

/// The real QEMU.
pub(crate) fn qemu_program() -> OsString {
    std::env::var_os("YARDSTICK_QEMU").unwrap_or_else(|| "qemu-system-x86_64".into())
}

/// A file that `variable` names, or that lies beside this program.
pub(crate) fn beside(variable: &str, name: &str) -> Result<PathBuf, Failure> {
    match std::env::var_os(variable) {
        Some(path) => Ok(path.into()),
        None => Ok(std::env::current_exe()?.with_file_name(name)),
    }
}

/// A peer that plays `play`, ready to be started.
pub(crate) fn peer(play: &str) -> Result<Command, Failure> {
    let mut command = Command::new(peer_program()?);
    command.env("PEER_PLAY", play);
    Ok(command)
}

/// A real QEMU without a machine.
pub(crate) fn real() -> Command {
    let mut command = Command::new(qemu_program());
    command.args(["-machine", "none", "-nodefaults", "-display", "none"]);
    command
}

impl OtherEnd {
    /// Starts it with one end of a socket pair for its monitor, on another core, and returns the other end.
    pub(crate) fn paired(command: Command) -> Result<(Self, UnixStream), Failure> {
        let (end, socket) = Self::anywhere(command)?;
        end.part()?;
        Ok((end, socket))
    }

    /// The same on whatever core, and without an effect on this process.
    pub(crate) fn anywhere(mut command: Command) -> Result<(Self, UnixStream), Failure> {
        let (ours, theirs) = UnixStream::pair()?;
        let chardev = format!("socket,id=mon,fd={}", theirs.as_raw_fd());
        command.args(["-chardev", &chardev, "-mon", "chardev=mon,mode=control"]);
        Ok((Self { child: start(command, theirs.into())?, path: None }, ours))
    }

    /// Starts it with a socket that listens already, for those who connect to a path; on another core.
    pub(crate) fn listening(mut command: Command) -> Result<(Self, PathBuf), Failure> {
        let folder = std::env::temp_dir().join(format!("yardstick-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let path = folder.join("qmp");
        let listener = UnixListener::bind(&path)?;
        let chardev = format!("socket,id=mon,fd={},server=on,wait=off", listener.as_raw_fd());
        command.args(["-chardev", &chardev, "-mon", "chardev=mon,mode=control"]);
        let end = Self { child: start(command, listener.into())?, path: Some(path.clone()) };
        end.part()?;
        Ok((end, path))
    }

    /// Keeps it and this process on different cores.
    fn part(&self) -> Result<(), Failure> {
        if let [first, second, ..] = measure::cores()?.as_slice() {
            measure::pin(self.pid(), *second)?;
            measure::pin(0, *first)?;
        }
        Ok(())
    }

    /// Brings it to the core where this process is.
    pub(crate) fn meet(&self) -> Result<(), Failure> {
        let cores = measure::cores()?;
        measure::pin(self.pid(), *cores.first().ok_or("there is no core")?)
    }

    fn pid(&self) -> c_int {
        self.child.id().cast_signed()
    }
}

impl Drop for OtherEnd {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if let Some(folder) = self.path.as_deref().and_then(Path::parent) {
            // What cannot be removed is seen by whoever looks into the folder; the figures stand.
            let _left = std::fs::remove_dir_all(folder);
        }
    }
}

/// Starts `command`, which inherits `fd` under its number; ours is closed then.
fn start(mut command: Command, fd: OwnedFd) -> io::Result<Child> {
    let number = fd.as_raw_fd();
    // SAFETY: between fork and exec it only makes one system call.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(number, libc::F_SETFD, 0) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
    command.spawn()
}
