//! The twins of [`ratite_qmp::Agent`] and of its files.

use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ratite_qmp::Address;
use ratite_qmp::AgentError;
use ratite_qmp::AgentInfo;
use ratite_qmp::Error;
use ratite_qmp::FsState;
use ratite_qmp::GuestInterface;
use ratite_qmp::GuestOutput;
use ratite_qmp::GuestProgram;
use ratite_qmp::ShutdownMode;
use ratite_qmp::Socket;
use ratite_qmp::SuspendMode;
use ratite_qmp::Trimmed;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::blocking::wait::Background;

/// A client of the agent in a guest; see [`ratite_qmp::Agent`].
#[derive(Debug, Clone)]
pub struct Agent {
    inner: ratite_qmp::Agent,
    background: Background,
}

impl Agent {
    pub(super) fn new(inner: ratite_qmp::Agent, background: Background) -> Self {
        Self { inner, background }
    }

    /// Connects to the host's side of an agent's channel; see [`ratite_qmp::Agent::connect`].
    ///
    /// # Errors
    /// As there.
    pub fn connect(address: &Address, limit: Duration) -> Result<Self, Error> {
        let background =
            Background::start().map_err(|source| Error::Connect { address: address.clone(), source })?;
        let inner = background.wait("Agent::connect", ratite_qmp::Agent::connect(address, limit))?;
        Ok(Self { inner, background })
    }

    /// An agent at the other end of a socket that is already connected; see [`ratite_qmp::Agent::over`].
    ///
    /// # Errors
    /// [`Error::Connect`] when it is no connected Unix or TCP socket.
    pub fn over(socket: impl Into<OwnedFd>) -> Result<Self, Error> {
        let socket = socket.into();
        let address = Address::Fd(socket.as_raw_fd());
        let made = Background::start().and_then(|background| {
            let socket = background.within(|| Socket::try_from(socket))?;
            Ok(Self { inner: ratite_qmp::Agent::over(socket), background })
        });
        made.map_err(|source| Error::Connect { address, source })
    }

    /// The same agent with another limit; see [`ratite_qmp::Agent::with_limit`].
    #[must_use]
    pub fn with_limit(&self, limit: Duration) -> Self {
        Self { inner: self.inner.with_limit(limit), background: self.background.clone() }
    }

    /// What each command of this handle may take; see [`ratite_qmp::Agent::limit`].
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.inner.limit()
    }

    /// Executes a command and returns its value; see [`ratite_qmp::Agent::execute`].
    ///
    /// # Errors
    /// As there.
    pub fn execute(&self, name: &str, arguments: impl Serialize) -> Result<Value, AgentError> {
        self.background.wait("Agent::execute", self.inner.execute(name, arguments))
    }

    /// Executes a command and returns its value as a `T`; see [`ratite_qmp::Agent::execute_as`].
    ///
    /// # Errors
    /// As there.
    pub fn execute_as<T: DeserializeOwned>(
        &self,
        name: &str,
        arguments: impl Serialize,
    ) -> Result<T, AgentError> {
        self.background.wait("Agent::execute_as", self.inner.execute_as(name, arguments))
    }

    /// Runs a program in the guest and waits for its end; see [`ratite_qmp::Agent::exec`].
    ///
    /// # Errors
    /// As there.
    pub fn exec(&self, program: &GuestProgram, limit: Duration) -> Result<GuestOutput, AgentError> {
        self.background.wait("Agent::exec", self.inner.exec(program, limit))
    }

    /// Opens a file of the guest; see [`ratite_qmp::Agent::open_file`].
    ///
    /// # Errors
    /// As there.
    pub fn open_file(&self, path: &str, mode: &str) -> Result<GuestFile, AgentError> {
        let inner = self.background.wait("Agent::open_file", self.inner.open_file(path, mode))?;
        Ok(GuestFile { inner: Some(inner), background: self.background.clone() })
    }

    /// The whole of a file of the guest; see [`ratite_qmp::Agent::read_file`].
    ///
    /// # Errors
    /// As there.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>, AgentError> {
        self.background.wait("Agent::read_file", self.inner.read_file(path))
    }

    /// Makes `bytes` the content of a file of the guest; see [`ratite_qmp::Agent::write_file`].
    ///
    /// # Errors
    /// As there.
    pub fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), AgentError> {
        self.background.wait("Agent::write_file", self.inner.write_file(path, bytes))
    }

    /// Waits until the agent has answered; see [`ratite_qmp::Agent::ping`].
    ///
    /// # Errors
    /// As there.
    pub fn ping(&self) -> Result<(), AgentError> {
        self.background.wait("Agent::ping", self.inner.ping())
    }

    /// The agent's version, and its commands; see [`ratite_qmp::Agent::info`].
    ///
    /// # Errors
    /// As there.
    pub fn info(&self) -> Result<AgentInfo, AgentError> {
        self.background.wait("Agent::info", self.inner.info())
    }

    /// The guest's network interfaces; see [`ratite_qmp::Agent::interfaces`].
    ///
    /// # Errors
    /// As there.
    pub fn interfaces(&self) -> Result<Vec<GuestInterface>, AgentError> {
        self.background.wait("Agent::interfaces", self.inner.interfaces())
    }

    /// Whether the guest's file systems are frozen; see [`ratite_qmp::Agent::fs_status`].
    ///
    /// # Errors
    /// As there.
    pub fn fs_status(&self) -> Result<FsState, AgentError> {
        self.background.wait("Agent::fs_status", self.inner.fs_status())
    }

    /// Freezes the guest's file systems; see [`ratite_qmp::Agent::fs_freeze`].
    ///
    /// # Errors
    /// As there.
    pub fn fs_freeze(&self) -> Result<u64, AgentError> {
        self.background.wait("Agent::fs_freeze", self.inner.fs_freeze())
    }

    /// Thaws the guest's file systems; see [`ratite_qmp::Agent::fs_thaw`].
    ///
    /// # Errors
    /// As there.
    pub fn fs_thaw(&self) -> Result<u64, AgentError> {
        self.background.wait("Agent::fs_thaw", self.inner.fs_thaw())
    }

    /// Gives the free blocks of the guest's file systems back; see [`ratite_qmp::Agent::fs_trim`].
    ///
    /// # Errors
    /// As there.
    pub fn fs_trim(&self, minimum: u64) -> Result<Vec<Trimmed>, AgentError> {
        self.background.wait("Agent::fs_trim", self.inner.fs_trim(minimum))
    }

    /// Asks the guest to go down; see [`ratite_qmp::Agent::shutdown`].
    ///
    /// # Errors
    /// As there.
    pub fn shutdown(&self, mode: ShutdownMode) -> Result<(), AgentError> {
        self.background.wait("Agent::shutdown", self.inner.shutdown(mode))
    }

    /// Asks the guest to sleep; see [`ratite_qmp::Agent::suspend`].
    ///
    /// # Errors
    /// As there.
    pub fn suspend(&self, mode: SuspendMode) -> Result<(), AgentError> {
        self.background.wait("Agent::suspend", self.inner.suspend(mode))
    }

    /// The guest's clock; see [`ratite_qmp::Agent::time`].
    ///
    /// # Errors
    /// As there.
    pub fn time(&self) -> Result<Duration, AgentError> {
        self.background.wait("Agent::time", self.inner.time())
    }

    /// Sets the guest's clock; see [`ratite_qmp::Agent::set_time`].
    ///
    /// # Errors
    /// As there.
    pub fn set_time(&self, time: Duration) -> Result<(), AgentError> {
        self.background.wait("Agent::set_time", self.inner.set_time(time))
    }
}

/// A file that the agent has open in the guest; see [`ratite_qmp::GuestFile`].
#[derive(Debug)]
pub struct GuestFile {
    /// There until it is closed.
    inner: Option<ratite_qmp::GuestFile>,
    background: Background,
}

impl GuestFile {
    /// The same file with another limit; see [`ratite_qmp::GuestFile::with_limit`].
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.inner = self.inner.take().map(|file| file.with_limit(limit));
        self
    }

    /// The next piece, or `None` at the end; see [`ratite_qmp::GuestFile::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, AgentError> {
        self.background.wait("GuestFile::read", open(&mut self.inner).read())
    }

    /// Writes all of `bytes`; see [`ratite_qmp::GuestFile::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), AgentError> {
        self.background.wait("GuestFile::write", open(&mut self.inner).write(bytes))
    }

    /// Closes the file; see [`ratite_qmp::GuestFile::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(mut self) -> Result<(), AgentError> {
        let inner = self.inner.take().expect("only this takes it");
        self.background.wait("GuestFile::close", inner.close())
    }
}

impl Drop for GuestFile {
    fn drop(&mut self) {
        // Where there is a runtime around it, it closes in the background.
        self.background.within(|| drop(self.inner.take()));
    }
}

fn open(file: &mut Option<ratite_qmp::GuestFile>) -> &mut ratite_qmp::GuestFile {
    file.as_mut().expect("only `close` takes it")
}
