//! The twin of [`ratite_qmp::Client`].

use std::time::Duration;

use ratite_qmp::Address;
use ratite_qmp::Command;
use ratite_qmp::Disconnect;
use ratite_qmp::Error;
use ratite_qmp::EventFilter;
use ratite_qmp::ExecuteError;
use ratite_qmp::Greeting;
use ratite_qmp::Options;
use ratite_qmp::Reply;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::blocking::listener::Listener;
use crate::blocking::wait::Background;

/// A QMP session; see [`ratite_qmp::Client`].
#[derive(Debug, Clone)]
pub struct Client {
    inner: ratite_qmp::Client,
    background: Background,
}

impl Client {
    pub(super) fn new(inner: ratite_qmp::Client, background: Background) -> Self {
        Self { inner, background }
    }

    /// Connects to a QMP server and negotiates; see [`ratite_qmp::Client::connect`].
    ///
    /// # Errors
    /// As there.
    pub fn connect(address: &Address, options: Options) -> Result<Self, Error> {
        let background =
            Background::start().map_err(|source| Error::Connect { address: address.clone(), source })?;
        let inner = background.wait("Client::connect", ratite_qmp::Client::connect(address, options))?;
        Ok(Self { inner, background })
    }

    /// Executes a command and returns its value; see [`ratite_qmp::Client::execute`].
    ///
    /// # Errors
    /// As there.
    pub fn execute(&self, name: &str, arguments: impl Serialize) -> Result<Value, ExecuteError> {
        self.background.wait("Client::execute", self.inner.execute(name, arguments))
    }

    /// Executes a command and returns its value as a `T`; see [`ratite_qmp::Client::execute_as`].
    ///
    /// # Errors
    /// As there.
    pub fn execute_as<T: DeserializeOwned>(
        &self,
        name: &str,
        arguments: impl Serialize,
    ) -> Result<T, ExecuteError> {
        self.background.wait("Client::execute_as", self.inner.execute_as(name, arguments))
    }

    /// Executes a command and returns the JSON text of its value; see [`ratite_qmp::Client::execute_text`].
    ///
    /// # Errors
    /// As there.
    pub fn execute_text(&self, name: &str, arguments: impl Serialize) -> Result<String, ExecuteError> {
        self.background.wait("Client::execute_text", self.inner.execute_text(name, arguments))
    }

    /// Sends `command` and returns the reply as it is; see [`ratite_qmp::Client::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send(&self, command: Command) -> Result<Reply, ExecuteError> {
        self.background.wait("Client::send", self.inner.send(command))
    }

    /// Listens to events in a queue of its own; see [`ratite_qmp::Client::listen`].
    #[must_use]
    pub fn listen(&self, filter: EventFilter) -> Listener {
        Listener::new(self.inner.listen(filter), self.background.clone())
    }

    /// What the peer said first; see [`ratite_qmp::Client::greeting`].
    #[must_use]
    pub fn greeting(&self) -> Option<&Greeting> {
        self.inner.greeting()
    }

    /// The capabilities that are on; see [`ratite_qmp::Client::capabilities`].
    #[must_use]
    pub fn capabilities(&self) -> &[String] {
        self.inner.capabilities()
    }

    /// Changes the limit of commands that have none of their own; see [`ratite_qmp::Client::set_command_limit`].
    pub fn set_command_limit(&self, limit: Duration) {
        self.inner.set_command_limit(limit);
    }

    /// Why the connection ended, if it has; see [`ratite_qmp::Client::ended`].
    #[must_use]
    pub fn ended(&self) -> Option<Disconnect> {
        self.inner.ended()
    }

    /// Closes the connection for all clones; see [`ratite_qmp::Client::close`].
    pub fn close(&self) {
        self.background.wait("Client::close", self.inner.close());
    }
}
