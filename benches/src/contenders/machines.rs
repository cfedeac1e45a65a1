//! Machines as the contenders have them: ratite's, and what a user of `qapi` writes around tokio's processes.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use qapi::futures::QapiService;
use qapi::qmp;
use ratite::MachineConfig;
use tokio::process::Child;
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::contenders;
use crate::contenders::qapi::Writing;
use crate::floor::process::QEMU;
use crate::other_end;
use crate::scenario::Failure;

/// How long a machine may take to end that is asked to.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// What is started.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    /// The peer, which plays this.
    Peer(&'static str),
    Real,
}

impl Which {
    pub(crate) fn program(self) -> Result<OsString, Failure> {
        match self {
            Self::Peer(_) => Ok(other_end::peer_program()?.into()),
            Self::Real => Ok(other_end::qemu_program()),
        }
    }

    pub(crate) fn play(self) -> &'static str {
        match self {
            Self::Peer(play) => play,
            Self::Real => "",
        }
    }

    /// As ratite describes it.
    pub(crate) fn config(self) -> Result<MachineConfig, Failure> {
        Ok(MachineConfig::new(self.program()?).args(QEMU).env("PEER_PLAY", self.play()))
    }
}

/// A machine by `qapi` and tokio.
pub(crate) struct QapiMachine {
    pub(crate) child: Child,
    service: QapiService<Writing>,
    reading: JoinHandle<()>,
}

impl QapiMachine {
    pub(crate) async fn launch(program: &OsStr, play: &str) -> Result<Self, Failure> {
        let (child, socket) = Self::start(program, play, Stdio::inherit())?;
        let (service, reading) = contenders::qapi::begin(socket).await?.spawn_tokio();
        Ok(Self { child, service, reading })
    }

    /// Starts the process alone.
    pub(crate) fn start(program: &OsStr, play: &str, errors: Stdio) -> Result<(Child, UnixStream), Failure> {
        let (ours, theirs) = UnixStream::pair()?;
        let number = theirs.as_raw_fd();
        // SAFETY: the descriptor is open; it is to be inherited from here on.
        if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error().into());
        }
        let chardev = format!("socket,id=mon,fd={number}");
        let mut command = Command::new(program);
        command.args(["-display", "none", "-vga", "none", "-chardev", &chardev]);
        command.args(["-mon", "chardev=mon,mode=control"]).args(QEMU).env("PEER_PLAY", play);
        Ok((command.stdin(Stdio::null()).stderr(errors).kill_on_drop(true).spawn()?, ours))
    }

    /// Asks it to quit, and waits for its end.
    pub(crate) async fn shutdown(mut self, grace: Duration) -> Result<(), Failure> {
        // Its reply may be cut off by the end.
        let ending = async {
            let _reply = self.service.execute(qmp::quit {}).await;
            self.child.wait().await
        };
        match tokio::time::timeout(grace, ending).await {
            Ok(status) => drop(status?),
            Err(_) => self.child.kill().await?,
        }
        self.reading.abort();
        Ok(())
    }
}
