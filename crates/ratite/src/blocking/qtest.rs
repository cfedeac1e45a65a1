//! The twin of [`crate::Qtest`].

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ratite_qmp::Socket;

use crate::blocking::wait::Background;
use crate::qtest::Irqs;
use crate::qtest::QtestError;

/// A qtest session; see [`crate::Qtest`].
#[derive(Debug, Clone)]
pub struct Qtest {
    inner: crate::qtest::Qtest,
    background: Background,
}

impl Qtest {
    pub(super) fn new(inner: crate::qtest::Qtest, background: Background) -> Self {
        Self { inner, background }
    }

    /// Speaks qtest over a connected socket; see [`crate::Qtest::over`].
    ///
    /// # Errors
    /// When it is no connected Unix or TCP socket.
    pub fn over(socket: impl Into<OwnedFd>, limit: Duration) -> io::Result<Self> {
        let background = Background::start()?;
        let socket = socket.into();
        let inner = background
            .within(|| Socket::try_from(socket).map(|socket| crate::qtest::Qtest::over(socket, limit)))?;
        Ok(Self { inner, background })
    }

    /// Sends a command and returns what came behind `OK`; see [`crate::Qtest::command`].
    ///
    /// # Errors
    /// As there.
    pub fn command(&self, command: &str) -> Result<String, QtestError> {
        self.background.wait("Qtest::command", self.inner.command(command))
    }

    /// Sends a command and returns its answer as it came; see [`crate::Qtest::raw`].
    ///
    /// # Errors
    /// As there.
    pub fn raw(&self, command: &str) -> Result<String, QtestError> {
        self.background.wait("Qtest::raw", self.inner.raw(command))
    }

    /// The levels of the interrupt lines; see [`crate::Qtest::irqs`].
    #[must_use]
    pub fn irqs(&self) -> Irqs {
        self.inner.irqs()
    }

    /// Waits until an interrupt line is at a level; see [`crate::Qtest::wait_irq`].
    ///
    /// # Errors
    /// As there.
    pub fn wait_irq(&self, number: u32, level: bool, limit: Duration) -> Result<(), QtestError> {
        self.background.wait("Qtest::wait_irq", self.inner.wait_irq(number, level, limit))
    }
}
