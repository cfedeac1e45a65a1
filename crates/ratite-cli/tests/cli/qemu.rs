//! A QEMU that ratite has not started: whom `ratite cmd`, `events` and `shell` are spoken with.

use std::os::unix::net::UnixStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::send;
use crate::harness::wait_for_fact;

/// A QEMU with two QMP monitors, each for one client at a time. Dropped, it is killed.
pub(crate) struct Qemu {
    child: Child,
    folder: TempDir,
}

impl Qemu {
    /// One without devices, that runs firmware.
    pub(crate) fn start() -> Self {
        Self::start_with(&["-m", "4"])
    }

    /// One with these arguments, too.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg", "-nodefaults", "-display", "none"]).args(arguments);
        for name in ["one", "two"] {
            let path = folder.path().join(name);
            command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", path.display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let qemu = Self { child: command.spawn().unwrap(), folder };
        for path in [qemu.one(), qemu.two()] {
            let listens = wait_for_fact(|| UnixStream::connect(&path).ok());
            assert!(listens.is_some(), "QEMU does not listen on {path}");
        }
        qemu
    }

    /// The address of its first monitor.
    pub(crate) fn one(&self) -> String {
        self.folder.path().join("one").display().to_string()
    }

    /// The address of its second monitor.
    pub(crate) fn two(&self) -> String {
        self.folder.path().join("two").display().to_string()
    }

    /// A file in a folder that goes with it.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}
