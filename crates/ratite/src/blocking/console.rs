//! The twin of [`crate::Console`].

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::blocking::wait::Background;
use crate::config::ConsoleConfig;
use crate::console::ConsoleError;
use crate::console::Found;
use crate::exit::Tail;
use crate::history::Match;
use crate::pattern::Patterns;

/// The console of a machine; see [`crate::Console`].
#[derive(Debug, Clone)]
pub struct Console {
    inner: crate::console::Console,
    background: Background,
}

impl Console {
    pub(super) fn new(inner: crate::console::Console, background: Background) -> Self {
        Self { inner, background }
    }

    pub(super) fn parts(&self) -> (&crate::console::Console, &Background) {
        (&self.inner, &self.background)
    }

    /// A console over any connected stream; see [`crate::Console::over`].
    ///
    /// # Errors
    /// As there.
    pub fn over(stream: UnixStream, config: &ConsoleConfig, write_limit: Duration) -> io::Result<Self> {
        let background = Background::start()?;
        crate::console::Console::over(stream, config, write_limit).map(|inner| Self::new(inner, background))
    }

    /// The same console, read from a place of its own; see [`crate::Console::reader`].
    #[must_use]
    pub fn reader(&self) -> Self {
        Self::new(self.inner.reader(), self.background.clone())
    }

    /// The same, but from now on; see [`crate::Console::reader_from_now`].
    #[must_use]
    pub fn reader_from_now(&self) -> Self {
        Self::new(self.inner.reader_from_now(), self.background.clone())
    }

    /// The same, but from where this handle stands; see [`crate::Console::reader_from_here`].
    #[must_use]
    pub fn reader_from_here(&self) -> Self {
        Self::new(self.inner.reader_from_here(), self.background.clone())
    }

    /// Stops the pump and hands over the stream itself; see [`crate::Console::take_stream`].
    ///
    /// # Errors
    /// As there.
    pub fn take_stream(&self) -> Result<(UnixStream, Vec<u8>), ConsoleError> {
        self.background.wait("Console::take_stream", self.inner.take_stream())
    }

    /// Takes what has arrived, waiting for the first byte; see [`crate::Console::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, limit: Duration) -> Result<Vec<u8>, ConsoleError> {
        self.background.wait("Console::read", self.inner.read(limit))
    }

    /// The same, but at most `bytes` bytes; see [`crate::Console::read_at_most`].
    ///
    /// # Errors
    /// As there.
    pub fn read_at_most(&self, bytes: usize, limit: Duration) -> Result<Vec<u8>, ConsoleError> {
        self.background.wait("Console::read_at_most", self.inner.read_at_most(bytes, limit))
    }

    /// Takes what has arrived; see [`crate::Console::take`].
    ///
    /// # Errors
    /// As there.
    pub fn take(&self) -> Result<Vec<u8>, ConsoleError> {
        self.inner.take()
    }

    /// Waits until one of `patterns` appears; see [`crate::Console::expect`].
    ///
    /// # Errors
    /// As there.
    pub fn expect(&self, patterns: impl Into<Patterns>, limit: Duration) -> Result<Match, ConsoleError> {
        self.background.wait("Console::expect", self.inner.expect(patterns, limit))
    }

    /// The same, but takes nothing; see [`crate::Console::find`].
    ///
    /// # Errors
    /// As there.
    pub fn find(&self, patterns: impl Into<Patterns>, limit: Duration) -> Result<Found, ConsoleError> {
        self.background.wait("Console::find", self.inner.find(patterns, limit))
    }

    /// Waits until a read would yield something; see [`crate::Console::ready`].
    ///
    /// # Errors
    /// As there.
    pub fn ready(&self, limit: Duration) -> Result<(), ConsoleError> {
        self.background.wait("Console::ready", self.inner.ready(limit))
    }

    /// Writes all of `bytes`; see [`crate::Console::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, bytes: impl AsRef<[u8]>) -> Result<(), ConsoleError> {
        self.background.wait("Console::write", self.inner.write(bytes))
    }

    /// Types a line and the Enter key; see [`crate::Console::send_line`].
    ///
    /// # Errors
    /// As there.
    pub fn send_line(&self, line: impl AsRef<str>) -> Result<(), ConsoleError> {
        self.background.wait("Console::send_line", self.inner.send_line(line))
    }

    /// Types `text`, and waits for its echo; see [`crate::Console::send_echoed`].
    ///
    /// # Errors
    /// As there.
    pub fn send_echoed(&self, text: impl AsRef<str>, limit: Duration) -> Result<Match, ConsoleError> {
        self.background.wait("Console::send_echoed", self.inner.send_echoed(text, limit))
    }

    /// At most the last `limit` bytes; see [`crate::Console::tail`].
    #[must_use]
    pub fn tail(&self, limit: usize) -> Tail {
        self.inner.tail(limit)
    }

    /// How many bytes the guest has written in all; see [`crate::Console::bytes_seen`].
    #[must_use]
    pub fn bytes_seen(&self) -> u64 {
        self.inner.bytes_seen()
    }

    /// Whether the stream has ended; see [`crate::Console::has_ended`].
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.inner.has_ended()
    }

    /// Why the log file gets no more; see [`crate::Console::log_fault`].
    #[must_use]
    pub fn log_fault(&self) -> Option<String> {
        self.inner.log_fault()
    }
}
