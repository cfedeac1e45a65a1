//! The twin of [`crate::reach`].

use std::time::Duration;

use ratite_qmp::Options;

use crate::blocking::agent::Agent;
use crate::blocking::qmp::Client;
use crate::blocking::wait::Background;
use crate::reach::Attached;
use crate::reach::Facts;
use crate::reach::ReachError;
use crate::reach::RemoteExit;

fn start() -> Result<Background, ReachError> {
    Background::start().map_err(|source| ReachError::System { source })
}

/// The machines of this user that are reachable; see [`crate::reach::list`].
///
/// # Errors
/// As there.
pub fn list() -> Result<Vec<Facts>, ReachError> {
    start()?.wait("list", crate::reach::list())
}

/// Finds the machine of this name; see [`crate::reach::attach`].
///
/// # Errors
/// As there.
pub fn attach(name: impl AsRef<str>) -> Result<Remote, ReachError> {
    let background = start()?;
    let inner = background.wait("attach", crate::reach::attach(name))?;
    Ok(Remote { inner, background })
}

/// A machine that another program runs; see [`crate::reach::Remote`].
#[derive(Debug, Clone)]
pub struct Remote {
    inner: crate::reach::Remote,
    background: Background,
}

impl Remote {
    /// The machine's name; see [`crate::reach::Remote::name`].
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// What is known of it; see [`crate::reach::Remote::facts`].
    ///
    /// # Errors
    /// As there.
    pub fn facts(&self) -> Result<Facts, ReachError> {
        self.background.wait("Remote::facts", self.inner.facts())
    }

    /// A QMP session with its QEMU; see [`crate::reach::Remote::qmp`].
    ///
    /// # Errors
    /// As there.
    pub fn qmp(&self, options: Options) -> Result<Client, ReachError> {
        let client = self.background.wait("Remote::qmp", self.inner.qmp(options))?;
        Ok(Client::new(client, self.background.clone()))
    }

    /// A console, in both directions; see [`crate::reach::Remote::console`].
    ///
    /// # Errors
    /// As there.
    pub fn console(&self, name: Option<&str>, replay: usize) -> Result<Attached, ReachError> {
        self.background.wait("Remote::console", self.inner.console(name, replay))
    }

    /// What is recorded of a console; see [`crate::reach::Remote::log`].
    ///
    /// # Errors
    /// As there.
    pub fn log(&self, name: Option<&str>, follow: bool) -> Result<Attached, ReachError> {
        self.background.wait("Remote::log", self.inner.log(name, follow))
    }

    /// The agent in its guest; see [`crate::reach::Remote::agent`].
    ///
    /// # Errors
    /// As there.
    pub fn agent(&self, limit: Duration) -> Result<Agent, ReachError> {
        let agent = self.background.wait("Remote::agent", self.inner.agent(limit))?;
        Ok(Agent::new(agent, self.background.clone()))
    }

    /// Ends the machine; see [`crate::reach::Remote::shutdown`].
    ///
    /// # Errors
    /// As there.
    pub fn shutdown(&self, grace: Duration) -> Result<RemoteExit, ReachError> {
        self.background.wait("Remote::shutdown", self.inner.shutdown(grace))
    }

    /// Ends the machine by force; see [`crate::reach::Remote::kill`].
    ///
    /// # Errors
    /// As there.
    pub fn kill(&self) -> Result<RemoteExit, ReachError> {
        self.background.wait("Remote::kill", self.inner.kill())
    }

    /// Waits until the machine ends; see [`crate::reach::Remote::wait`].
    ///
    /// # Errors
    /// As there.
    pub fn wait(&self, limit: Duration) -> Result<RemoteExit, ReachError> {
        self.background.wait("Remote::wait", self.inner.wait(limit))
    }
}
