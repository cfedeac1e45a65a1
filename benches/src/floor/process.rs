//! A machine by system calls alone: a socket pair, posix_spawn, which copies no memory, and what is said on the monitor.

use std::ffi::CString;
use std::ffi::OsStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;

use crate::scenario::Failure;

/// What is started, ready for the kernel.
#[derive(Debug)]
pub(crate) struct Image {
    words: Vec<CString>,
    environment: Vec<CString>,
}

/// A process and our end of its monitor.
#[derive(Debug)]
pub(crate) struct RawMachine {
    pub(crate) pid: c_int,
    monitor: UnixStream,
}

impl Image {
    /// A QEMU with its monitor at 3, or the peer, which plays `play`.
    pub(crate) fn new(program: &OsStr, play: &str) -> Result<Self, Failure> {
        let mut words = vec![CString::new(program.as_bytes())?];
        let monitor = ["-chardev", "socket,id=mon,fd=3", "-mon", "chardev=mon,mode=control"];
        for word in ["-display", "none", "-vga", "none"].into_iter().chain(monitor).chain(QEMU) {
            words.push(CString::new(word)?);
        }
        let mut environment = vec![CString::new(format!("PEER_PLAY={play}"))?];
        for (mut name, value) in std::env::vars_os() {
            name.push("=");
            name.push(value);
            environment.push(CString::new(name.into_vec())?);
        }
        Ok(Self { words, environment })
    }

    /// Starts it; its stderr goes to `errors`, if there is one.
    pub(crate) fn start(&self, errors: Option<&OwnedFd>) -> Result<RawMachine, Failure> {
        let (monitor, theirs) = UnixStream::pair()?;
        let pointers = |texts: &[CString]| -> Vec<*mut c_char> {
            let texts = texts.iter().map(|text| text.as_ptr().cast_mut());
            texts.chain([std::ptr::null_mut()]).collect()
        };
        let (words, environment) = (pointers(&self.words), pointers(&self.environment));
        let mut pid = 0;
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the actions are made before they are used, and the arrays end with a null and outlive the call.
        let failed = unsafe {
            libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
            let actions = actions.assume_init_mut();
            libc::posix_spawn_file_actions_adddup2(actions, theirs.as_raw_fd(), 3);
            if let Some(errors) = errors {
                libc::posix_spawn_file_actions_adddup2(actions, errors.as_raw_fd(), 2);
            }
            let failed = libc::posix_spawnp(
                &raw mut pid,
                self.words[0].as_ptr(),
                actions,
                std::ptr::null(),
                words.as_ptr(),
                environment.as_ptr(),
            );
            libc::posix_spawn_file_actions_destroy(actions);
            failed
        };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed).into());
        }
        Ok(RawMachine { pid, monitor })
    }
}

/// The arguments of every machine here: nothing is built that takes time.
pub(crate) const QEMU: [&str; 3] = ["-machine", "none", "-nodefaults"];

impl RawMachine {
    /// Reads once; how many bytes came, 0 at the end.
    pub(crate) fn read(&self) -> Result<usize, Failure> {
        let mut buffer = [0_u8; 4096];
        // SAFETY: the buffer is writable, and as long as it says.
        let count = unsafe { libc::read(self.monitor.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error().into())
    }

    /// Writes what fits into the socket.
    pub(crate) fn write(&self, text: &str) -> Result<(), Failure> {
        // SAFETY: the text is readable, and as long as it says.
        let count = unsafe { libc::write(self.monitor.as_raw_fd(), text.as_ptr().cast(), text.len()) };
        if count == text.len().cast_signed() { Ok(()) } else { Err(io::Error::last_os_error().into()) }
    }

    /// From the greeting to where it takes commands.
    pub(crate) fn negotiate(&self) -> Result<(), Failure> {
        self.read()?;
        self.write(NEGOTIATE)?;
        self.read()?;
        Ok(())
    }

    pub(crate) fn quit(&self) -> Result<(), Failure> {
        self.write(r#"{"execute":"quit","id":1}"#)
    }

    pub(crate) fn kill(&self) {
        // SAFETY: it is a child that is not reaped: the number is its.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
    }

    /// Whether it ends within so many milliseconds.
    pub(crate) fn ends_within(&self, timeout: c_int) -> Result<bool, Failure> {
        // SAFETY: it is a child that is not reaped: the number is its.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        let mut polled = libc::pollfd { fd: c_int::try_from(pidfd)?, events: libc::POLLIN, revents: 0 };
        // SAFETY: it is one of what poll takes, and the descriptor is closed once.
        let ended = unsafe {
            let ended = libc::poll(&raw mut polled, 1, timeout);
            libc::close(polled.fd);
            ended
        };
        Ok(ended == 1)
    }

    /// Waits for its end; its status as the system has it.
    pub(crate) fn reap(self) -> Result<c_int, Failure> {
        let mut status = 0;
        // SAFETY: the kernel fills the status.
        match unsafe { libc::waitpid(self.pid, &raw mut status, 0) } {
            pid if pid == self.pid => Ok(status),
            _ => Err(io::Error::last_os_error().into()),
        }
    }
}

/// Turns the monitor on.
pub(crate) const NEGOTIATE: &str = r#"{"execute":"qmp_capabilities","id":0}"#;
