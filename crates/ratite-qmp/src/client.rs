//! The handle everyone uses: execute, listen, close. Talks to its connection by messages only.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::address::Address;
use crate::berth::Berth;
use crate::command::Command;
use crate::connection;
use crate::connection::Answer;
use crate::connection::Answered;
use crate::connection::Connection;
use crate::connection::Request;
use crate::deadline::TimedOut;
use crate::deadline::within;
use crate::error::Disconnect;
use crate::error::Error;
use crate::error::ExecuteError;
use crate::filter::EventFilter;
use crate::greeting::Greeting;
use crate::handshake::NEGOTIATION_ID;
use crate::handshake::handshake;
use crate::listener::Listener;
use crate::listener::Subscription;
use crate::options::Options;
use crate::registry::Registry;
use crate::reply::Reply;
use crate::reply::ReplyError;
use crate::server::PeerCredentials;
use crate::server::Server;
use crate::socket::Socket;
use crate::wire::Wire;

/// A QMP session. Cheap to clone; clones share one connection, which closes when the last of them is dropped.
///
/// Any number of commands may be under way at once, from any number of tasks and threads. Dropping a command's
/// future before it was written means that it is never sent; afterwards it takes its effect and its reply is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::UnboundedSender<Request>,
    ended: watch::Receiver<Option<Disconnect>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    berth: Arc<Berth>,
    greeting: Option<Greeting>,
    capabilities: Vec<String>,
    registry: Registry,
    command_limit: Mutex<Duration>,
    next_id: AtomicU64,
}

impl Client {
    /// Connects to a QMP server at `address` and negotiates.
    ///
    /// The whole is bounded by [`Options::connect_limit`]. Must be called within a tokio runtime, which then drives
    /// the connection.
    ///
    /// # Errors
    /// [`Error`], each with what it was about.
    pub async fn connect(address: &Address, options: Options) -> Result<Self, Error> {
        let limit = options.connect_limit;
        within(limit, format!("QMP session with {address}"), async {
            let socket = Socket::connect(address)
                .await
                .map_err(|source| Error::Connect { address: address.clone(), source })?;
            Self::begin(socket, options).await
        })
        .await?
    }

    /// Waits for a peer to connect to `server` and negotiates with it; see [`Server::accept`] for `welcome`.
    ///
    /// The whole is bounded by [`Options::connect_limit`].
    ///
    /// # Errors
    /// [`Error`], each with what it was about.
    pub async fn accept(
        server: &Server,
        welcome: impl FnMut(Option<PeerCredentials>) -> bool,
        options: Options,
    ) -> Result<Self, Error> {
        let limit = options.connect_limit;
        within(limit, format!("QMP session from {}", server.address()), async {
            Self::begin(server.accept(Duration::MAX, welcome).await?, options).await
        })
        .await?
    }

    /// Negotiates over a socket that is already connected, bounded by [`Options::connect_limit`].
    ///
    /// # Errors
    /// [`Error`], each with what it was about.
    pub async fn over(socket: impl Into<Socket>, options: Options) -> Result<Self, Error> {
        let limit = options.connect_limit;
        within(limit, "QMP session", Self::begin(socket.into(), options)).await?
    }

    async fn begin(socket: Socket, options: Options) -> Result<Self, Error> {
        let socket = socket
            .for_a_session()
            .map_err(|error| Error::Disconnected(Disconnect::io("take over", error)))?;
        let mut wire = Wire::new(socket, options.limits, options.transcript);
        let (greeting, capabilities) = if options.handshake {
            let foreseen = options.foreseen.as_deref();
            let session =
                handshake(&mut wire, &options.capabilities, foreseen, &options.subscriptions).await?;
            (Some(session.greeting), session.capabilities)
        } else {
            (None, Vec::new())
        };
        let registry = Registry::default();
        options.subscriptions.into_iter().for_each(|subscription| registry.add(subscription));
        let (requests, inbox) = mpsc::unbounded_channel();
        let (publish, ended) = watch::channel(None);
        let oob = capabilities.iter().any(|capability| capability == "oob");
        let berth = Berth::new(Connection::new(wire, inbox, registry.clone(), publish, oob));
        tokio::spawn(Arc::clone(&berth).serve());
        let command_limit = Mutex::new(options.command_limit);
        let next_id = AtomicU64::new(NEGOTIATION_ID + 1);
        let shared = Arc::new(Shared { berth, greeting, capabilities, registry, command_limit, next_id });
        Ok(Self { requests, ended, shared })
    }

    /// Executes a command and returns its value.
    ///
    /// `arguments` is anything that serialises to a JSON object; `()` for none.
    ///
    /// # Errors
    /// [`ExecuteError`]; [`ExecuteError::Refused`] carries QEMU's own words.
    pub async fn execute(&self, name: &str, arguments: impl Serialize) -> Result<Value, ExecuteError> {
        self.execute_as(name, arguments).await
    }

    /// Executes a command and returns its value as a `T`, read straight from the reply's text.
    ///
    /// # Errors
    /// As [`Client::execute`], and [`ExecuteError::Malformed`] when the value is no `T`.
    pub async fn execute_as<T: DeserializeOwned>(
        &self,
        name: &str,
        arguments: impl Serialize,
    ) -> Result<T, ExecuteError> {
        let reply = self.ask(name, self.command(name, arguments)?).await?;
        read(name, reply.decode())
    }

    /// Executes a command and returns the JSON text of its value, exactly as it arrived.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn execute_text(&self, name: &str, arguments: impl Serialize) -> Result<String, ExecuteError> {
        let reply = self.ask(name, self.command(name, arguments)?).await?;
        read(name, reply.into_returned())
    }

    /// Sends `command` and returns the reply as it is, be it a value or QEMU's refusal.
    ///
    /// # Errors
    /// [`ExecuteError`], but never [`ExecuteError::Refused`].
    pub async fn send(&self, command: Command) -> Result<Reply, ExecuteError> {
        let name = command.name.clone();
        self.ask(&name, command).await
    }

    async fn ask(&self, name: &str, command: Command) -> Result<Reply, ExecuteError> {
        let limit = command.limit.unwrap_or_else(|| self.command_limit());
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        // With no time at all, nothing is to be sent.
        let begun = if limit.is_zero() { Err(command) } else { self.write(id, command).await };
        let mut left = limit;
        // What is half written is the task's to finish: no reply comes before.
        if let Ok(true) = begun {
            match self.shared.berth.wait_here(limit) {
                Ok(answer) => return answer,
                Err(waited) => left = limit.saturating_sub(waited),
            }
        }
        let asked = match begun {
            Ok(_) => Asked::begun(id, self),
            Err(command) => Asked::handed_over(id, command, self).ok_or_else(|| self.disconnected(name))?,
        };
        match within(left, ReplyTo(name), asked).await {
            Ok(answer) => answer.unwrap_or_else(|| Err(self.disconnected(name))),
            Err(TimedOut { what, .. }) => Err(ExecuteError::TimedOut(TimedOut { what, limit })),
        }
    }

    /// Writes the command at once if nothing else is under way: whether to its end. Else it comes back.
    async fn write(&self, id: u64, command: Command) -> Result<bool, Command> {
        let mut command = Some(command);
        poll_fn(|cx| {
            let command = command.take().expect("it is ready at once");
            Poll::Ready(self.shared.berth.begin(id, command, cx.waker()))
        })
        .await
    }

    fn command(&self, name: &str, arguments: impl Serialize) -> Result<Command, ExecuteError> {
        Command::new(name)
            .arguments(arguments)
            .map_err(|source| ExecuteError::Arguments { command: name.to_owned(), source })
    }

    fn disconnected(&self, command: &str) -> ExecuteError {
        let (command, why) = (command.to_owned(), self.ended.borrow().clone());
        ExecuteError::Disconnected { command, source: why.unwrap_or(Disconnect::Runtime) }
    }

    /// Listens to the events that `filter` takes, from now on, in a queue of 16384 events.
    ///
    /// Armed when this returns: whatever a later command causes is seen.
    #[must_use]
    pub fn listen(&self, filter: EventFilter) -> Listener {
        let (listener, subscription) = Listener::new(filter);
        self.subscribe(subscription);
        listener
    }

    /// Feeds a listener that was made apart, from now on.
    pub fn subscribe(&self, subscription: Subscription) {
        self.shared.registry.add(subscription);
    }

    /// What the peer said first; `None` for a session without handshake.
    #[must_use]
    pub fn greeting(&self) -> Option<&Greeting> {
        self.shared.greeting.as_ref()
    }

    /// The capabilities that are on.
    #[must_use]
    pub fn capabilities(&self) -> &[String] {
        &self.shared.capabilities
    }

    /// The limit of commands that have none of their own.
    #[must_use]
    pub fn command_limit(&self) -> Duration {
        self.shared.command_limit()
    }

    /// Changes the limit of commands that have none of their own, for all clones.
    pub fn set_command_limit(&self, limit: Duration) {
        *self.shared.command_limit.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    /// Why the connection ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<Disconnect> {
        self.ended.borrow().clone()
    }

    /// Waits until the connection has ended, however long that takes, and says why. It does not keep the connection
    /// alive.
    pub fn closed(&self) -> impl Future<Output = Disconnect> + Send + use<> {
        closed(self.ended.clone())
    }

    pub(crate) fn downgrade(&self) -> WeakClient {
        let requests = self.requests.downgrade();
        WeakClient { requests, ended: self.ended.clone(), shared: self.shared.clone() }
    }

    /// Closes the connection for all clones; commands that wait fail. Returns once the socket is closed.
    ///
    /// The runtime that drives the connection has to run for that; it is waited for as long as for a command.
    pub async fn close(&self) {
        if self.requests.send(Request::Close).is_ok() {
            let _undriven = within(self.command_limit(), "end of the connection", self.closed()).await;
        }
    }
}

/// A client that does not keep its connection alive.
#[derive(Debug, Clone)]
pub(crate) struct WeakClient {
    requests: mpsc::WeakUnboundedSender<Request>,
    ended: watch::Receiver<Option<Disconnect>>,
    shared: Arc<Shared>,
}

impl WeakClient {
    /// The client, if there is another yet.
    pub(crate) fn upgrade(&self) -> Option<Client> {
        let requests = self.requests.upgrade()?;
        Some(Client { requests, ended: self.ended.clone(), shared: self.shared.clone() })
    }

    /// As [`Client::closed`].
    pub(crate) fn closed(&self) -> impl Future<Output = Disconnect> + Send + use<> {
        closed(self.ended.clone())
    }

    /// As [`Client::command_limit`].
    pub(crate) fn command_limit(&self) -> Duration {
        self.shared.command_limit()
    }
}

impl Shared {
    fn command_limit(&self) -> Duration {
        *self.command_limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn closed(mut ended: watch::Receiver<Option<Disconnect>>) -> Disconnect {
    let outcome = ended.wait_for(Option::is_some).await.map(|why| (*why).clone());
    outcome.ok().flatten().unwrap_or(Disconnect::Runtime)
}

/// A command that was asked for. Dropped before it is answered, it lets the connection forget the command.
struct Asked<'a> {
    id: u64,
    client: &'a Client,
    /// None if the command has the connection's seat, where the answer will be.
    channel: Option<oneshot::Receiver<Answered>>,
    is_answered: bool,
}

impl<'a> Asked<'a> {
    fn begun(id: u64, client: &'a Client) -> Self {
        Self { id, client, channel: None, is_answered: false }
    }

    /// Hands the command to the connection's task; none if that is gone.
    fn handed_over(id: u64, command: Command, client: &'a Client) -> Option<Self> {
        let (answer, channel) = oneshot::channel();
        let request =
            Request::Execute(Box::new(connection::Asked { id, command, answer: Answer::Channel(answer) }));
        client.requests.send(request).ok()?;
        Some(Self { id, client, channel: Some(channel), is_answered: false })
    }
}

impl Future for Asked<'_> {
    /// None if the connection went without a word.
    type Output = Option<Answered>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answered>> {
        let answer = match &mut self.channel {
            None => ready!(self.client.shared.berth.poll_answer(cx)),
            Some(channel) => ready!(Pin::new(channel).poll(cx)).ok(),
        };
        self.is_answered = true;
        Poll::Ready(answer)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        if self.channel.is_none() {
            self.client.shared.berth.dismiss();
        }
        // A connection that is gone has forgotten it.
        let _gone = self.client.requests.send(Request::GiveUp { id: self.id });
    }
}

/// What a command waits for; written out only when it does not come.
struct ReplyTo<'a>(&'a str);

impl fmt::Display for ReplyTo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reply to `{}`", self.0)
    }
}

/// A reply's value, or why there is none.
fn read<T>(command: &str, outcome: Result<T, ReplyError>) -> Result<T, ExecuteError> {
    outcome.map_err(|error| match error {
        ReplyError::Refused(source) => ExecuteError::Refused { command: command.to_owned(), source },
        ReplyError::Malformed(source) => ExecuteError::Malformed { command: command.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sendable<T: Send>(value: T) -> T {
        value
    }

    #[test]
    fn every_wait_can_move_between_threads() {
        // Compiling is the test.
        let _waits = |client: Client| {
            drop(sendable(client.execute("x", ())));
            drop(sendable(client.send(Command::new("x"))));
            drop(sendable(client.close()));
            drop(sendable(client.listen(EventFilter::any()).next(Duration::ZERO)));
        };
    }
}
