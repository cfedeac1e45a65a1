//! A shell of this system on a terminal of its own, with a socket as its far end, as a guest's serial line has one.
//!
//! It lives until it is dropped, which ends its session's leader and waits for it.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::thread::JoinHandle;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;

/// The shell, and who carries bytes between its terminal and the socket.
#[derive(Debug)]
pub struct ShellOnPty {
    child: Child,
    socket: UnixStream,
    carriers: Vec<JoinHandle<()>>,
}

impl ShellOnPty {
    /// Starts `words` on a new terminal; the stream is its far end.
    ///
    /// # Errors
    /// When there is no such shell, no `setsid`, or no terminal.
    pub fn start(words: &[&str]) -> io::Result<(Self, UnixStream)> {
        let near = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&near)?;
        rustix::pty::unlockpt(&near)?;
        let name = rustix::pty::ptsname(&near, Vec::new())?;
        let far = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let terminal = || far.try_clone().map(Stdio::from);
        let child = Command::new("setsid")
            .arg("-c")
            .args(words)
            .env_clear()
            .envs([
                ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                ("HOME", "/"),
                ("TERM", "xterm"),
                ("LC_ALL", "C"),
            ])
            .stdin(terminal()?)
            .stdout(terminal()?)
            .stderr(terminal()?)
            .spawn()?;

        let (socket, theirs) = UnixStream::pair()?;
        let near = File::from(near);
        let typed = carry(socket.try_clone()?, near.try_clone()?, None);
        let shown = carry(near, socket.try_clone()?, Some(socket.try_clone()?));
        Ok((Self { child, socket, carriers: vec![typed, shown] }, theirs))
    }
}

/// Carries bytes until either end is over, and tells `end` then.
fn carry(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    end: Option<UnixStream>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        // A terminal whose last user has gone is an error, and means the end too.
        let _ended = io::copy(&mut from, &mut to);
        if let Some(end) = end {
            // It may have been told before.
            let _told = end.shutdown(Shutdown::Both);
        }
    })
}

impl Drop for ShellOnPty {
    fn drop(&mut self) {
        // It may have ended by itself; its terminal hangs up all that it has started.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _told = self.socket.shutdown(Shutdown::Both);
        for carrier in self.carriers.drain(..) {
            // A panic there has been told.
            let _over = carrier.join();
        }
    }
}
