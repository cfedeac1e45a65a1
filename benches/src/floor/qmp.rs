//! QMP with nothing but read(2) and write(2): messages are counted by their line ends and not looked at.

use std::io;
use std::os::fd::IntoRawFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

use crate::scenario::Failure;

/// A session after its negotiation. The socket stays open until the process ends.
#[derive(Debug)]
pub(crate) struct RawSession {
    fd: RawFd,
    buffer: Vec<u8>,
}

impl RawSession {
    /// Reads the greeting and negotiates, with the capabilities in `enable` (`"oob"`, or nothing).
    pub(crate) fn begin(socket: UnixStream, enable: &str) -> Result<Self, Failure> {
        let mut session = Self { fd: socket.into_raw_fd(), buffer: vec![0; 256 << 10] };
        session.read_reply()?;
        let negotiation = format!(r#"{{"execute":"qmp_capabilities","arguments":{{"enable":[{enable}]}}}}"#);
        session.write(negotiation.as_bytes())?;
        session.read_reply()?;
        Ok(session)
    }

    /// Writes `bytes`, which fit into the socket.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        // SAFETY: the bytes are readable, and as many as it says.
        let count = unsafe { libc::write(self.fd, bytes.as_ptr().cast(), bytes.len()) };
        if count == bytes.len().cast_signed() { Ok(()) } else { Err(io::Error::last_os_error().into()) }
    }

    /// Reads once, and returns what came.
    pub(crate) fn read(&mut self) -> Result<&[u8], Failure> {
        // SAFETY: the buffer is writable, and as long as it says.
        let count = unsafe { libc::read(self.fd, self.buffer.as_mut_ptr().cast(), self.buffer.len()) };
        match usize::try_from(count) {
            Ok(0) => Err("the other end has closed the monitor".into()),
            Ok(count) => Ok(&self.buffer[..count]),
            Err(_) => Err(io::Error::last_os_error().into()),
        }
    }

    /// Reads until what came last ends a line: the end of a reply, where nothing else is under way.
    pub(crate) fn read_reply(&mut self) -> Result<(), Failure> {
        while self.read()?.last() != Some(&b'\n') {}
        Ok(())
    }

    /// Reads until `count` lines have ended, and no more has come.
    pub(crate) fn read_lines(&mut self, count: usize) -> Result<(), Failure> {
        let mut left = count;
        while left > 0 {
            let ended = count_lines(self.read()?);
            left = left.checked_sub(ended).ok_or("more came than was asked for")?;
        }
        Ok(())
    }
}

/// How many lines end in `bytes`.
pub(crate) fn count_lines(bytes: &[u8]) -> usize {
    // Counted in lanes of 255 bytes, which the compiler turns into vector instructions.
    bytes
        .chunks(255)
        .map(|lane| usize::from(lane.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>()))
        .sum()
}
