//! The twin of [`ratite_qmp::Client`].

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ratite_qmp::Address;
use ratite_qmp::Command;
use ratite_qmp::Disconnect;
use ratite_qmp::Error;
use ratite_qmp::EventFilter;
use ratite_qmp::ExecuteError;
use ratite_qmp::Greeting;
use ratite_qmp::Options;
use ratite_qmp::PeerCredentials;
use ratite_qmp::Reply;
use ratite_qmp::Socket;
use ratite_qmp::Subscription;
use ratite_qmp::within;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::blocking::listener::Listener;
use crate::blocking::wait::Background;

/// A QMP server socket that has not been connected to yet; see [`ratite_qmp::Server`].
#[derive(Debug)]
pub struct Server {
    inner: ratite_qmp::Server,
    background: Background,
}

impl Server {
    /// Listens on `address`; see [`ratite_qmp::Server::bind`].
    ///
    /// # Errors
    /// As there.
    pub fn bind(address: &Address) -> Result<Self, Error> {
        let background =
            Background::start().map_err(|source| Error::Connect { address: address.clone(), source })?;
        let inner = background.wait("Server::bind", ratite_qmp::Server::bind(address))?;
        Ok(Self { inner, background })
    }

    /// Where a peer has to connect to; see [`ratite_qmp::Server::address`].
    #[must_use]
    pub fn address(&self) -> &Address {
        self.inner.address()
    }
}

/// A QMP session; see [`ratite_qmp::Client`].
#[derive(Debug, Clone)]
pub struct Client {
    inner: ratite_qmp::Client,
    background: Background,
}

impl Client {
    /// What a twin of something else that stands on a session needs.
    pub(super) fn parts(&self) -> (ratite_qmp::Client, Background) {
        (self.inner.clone(), self.background.clone())
    }

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

    /// Waits for a peer to connect to `server` and negotiates with it; see [`ratite_qmp::Client::accept`].
    ///
    /// # Errors
    /// As there.
    pub fn accept(
        server: &Server,
        welcome: impl FnMut(Option<PeerCredentials>) -> bool,
        options: Options,
    ) -> Result<Self, Error> {
        let accepted = ratite_qmp::Client::accept(&server.inner, welcome, options);
        let inner = server.background.wait("Client::accept", accepted)?;
        Ok(Self { inner, background: server.background.clone() })
    }

    /// Negotiates over a socket that is already connected; see [`ratite_qmp::Client::over`].
    ///
    /// # Errors
    /// As there, and [`Error::Connect`] when it is no connected Unix or TCP socket.
    pub fn over(socket: impl Into<OwnedFd>, options: Options) -> Result<Self, Error> {
        Self::over_made(socket.into(), options, Socket::try_from)
    }

    /// The same over a stream whose descriptor nobody else has: a call that is alone with its command takes two system calls
    /// then; see [`Socket::unshared`].
    ///
    /// # Errors
    /// As [`Client::over`].
    pub fn over_unshared(stream: UnixStream, options: Options) -> Result<Self, Error> {
        Self::over_made(stream, options, Socket::unshared)
    }

    fn over_made<S: AsRawFd>(
        socket: S,
        options: Options,
        make: impl FnOnce(S) -> io::Result<Socket>,
    ) -> Result<Self, Error> {
        let address = Address::Fd(socket.as_raw_fd());
        let no_socket = |source| Error::Connect { address, source };
        let inner = Background::start().and_then(|background| {
            let socket = background.within(|| make(socket))?;
            Ok((background, socket))
        });
        let (background, socket) = inner.map_err(no_socket)?;
        let inner = background.wait("Client::over", ratite_qmp::Client::over(socket, options))?;
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

    /// Feeds a listener that was made apart; see [`ratite_qmp::Client::subscribe`].
    pub fn subscribe(&self, subscription: Subscription) {
        self.inner.subscribe(subscription);
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

    /// The limit of commands that have none of their own; see [`ratite_qmp::Client::command_limit`].
    #[must_use]
    pub fn command_limit(&self) -> Duration {
        self.inner.command_limit()
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

    /// Waits until the connection has ended, at most for `limit`; `None` if it has not. See
    /// [`ratite_qmp::Client::closed`].
    #[must_use]
    pub fn closed(&self, limit: Duration) -> Option<Disconnect> {
        self.background.wait("Client::closed", within(limit, "end", self.inner.closed())).ok()
    }

    /// Closes the connection for all clones; see [`ratite_qmp::Client::close`].
    pub fn close(&self) {
        self.background.wait("Client::close", self.inner.close());
    }
}
