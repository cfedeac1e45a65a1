//! The handle for a guest agent, QEMU's `qemu-ga`: a program in the guest that does what only the guest can do.
//!
//! It speaks like QMP, but without greeting, events and ids, over a channel that may have been used by others before
//! and that may have nobody at its other end. So commands take turns, in the order in which they were asked for, and
//! a [`Line`] sees to it that no reply is taken for another one's. No task: whoever waits drives the socket.

mod error;
mod exec;
mod files;
mod line;
mod system;
mod visitor;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::address::Address;
use crate::agent::line::Line;
use crate::agent::line::SYNC;
use crate::agent::visitor::Visitor;
use crate::command::Command;
use crate::deadline::TimedOut;
use crate::deadline::within;
use crate::error::Error;
use crate::json::from_text;
use crate::reply::Reply;
use crate::reply::ReplyError;
use crate::socket::Socket;

pub use error::AgentError;
pub use exec::GuestExit;
pub use exec::GuestOutput;
pub use exec::GuestProgram;
pub use files::GuestFile;
pub use system::AgentCommand;
pub use system::AgentInfo;
pub use system::FsState;
pub use system::GuestAddress;
pub use system::GuestInterface;
pub use system::ShutdownMode;
pub use system::SuspendMode;
pub use system::Trimmed;

/// A client of the agent in a guest. Cheap to clone; clones share one connection, which closes with the last of them.
///
/// One command is under way at a time; the others wait for their turn, within their limits. A command that timed out
/// or was cancelled harms none of the following: the next one first brings both sides back in step.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ratite_qmp::{Agent, GuestProgram};
/// use std::time::Duration;
///
/// let agent = Agent::connect(&"./agent.sock".parse()?, Duration::from_secs(5)).await?;
/// let uname = GuestProgram::new("uname").arg("-r");
/// let output = agent.exec(&uname, Duration::from_secs(30)).await?;
/// println!("{} {}", output.exit, output.text());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Agent {
    /// Held for one command; its queue is the order of the commands.
    line: Arc<Mutex<Line>>,
    /// Whether the agent has answered since it was last asked whether it is there.
    answers: Arc<AtomicBool>,
    limit: Duration,
}

/// What a command may take when nothing else is said.
const DEFAULT_LIMIT: Duration = Duration::from_secs(30);

/// How long a command that has no reply when it succeeds is listened to, for its failure.
const SILENCE: Duration = Duration::from_secs(5);

/// How long somebody who waits for the agent on behalf of a visitor keeps the turn, so that others come to theirs.
const SLICE: Duration = Duration::from_secs(5);

/// The commands that have no reply when they succeed (`success-response` in the agent's schema).
const WITHOUT_REPLY: [&str; 4] =
    ["guest-shutdown", "guest-suspend-disk", "guest-suspend-ram", "guest-suspend-hybrid"];

impl Agent {
    /// Connects to the host's side of an agent's channel, within `limit`.
    ///
    /// That says nothing about the agent: the first command finds out whether there is one. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::TimedOut`].
    pub async fn connect(address: &Address, limit: Duration) -> Result<Self, Error> {
        let socket = within(limit, format!("connection to {address}"), Socket::connect(address)).await?;
        let refused = |source| Error::Connect { address: address.clone(), source };
        Ok(Self::over(socket.map_err(refused)?))
    }

    /// An agent at the other end of a socket that is already connected.
    #[must_use]
    pub fn over(socket: impl Into<Socket>) -> Self {
        let line = Line::new(socket.into());
        let answers = line.answers();
        Self { line: Arc::new(Mutex::new(line)), answers, limit: DEFAULT_LIMIT }
    }

    /// The same agent, through a handle whose commands have another limit than 30 s. [`Duration::MAX`] waits for ever.
    #[must_use]
    pub fn with_limit(&self, limit: Duration) -> Self {
        Self { line: self.line.clone(), answers: self.answers.clone(), limit }
    }

    /// What each command of this handle may take, with the wait for its turn and for the agent.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Executes a command and returns its value.
    ///
    /// `arguments` is anything that serialises to a JSON object; `()` for none. The four commands that have no reply
    /// when they succeed (`guest-shutdown`, `guest-suspend-…`) return `null` once the agent is done with them, or has
    /// gone, or has said nothing for 5 s, or for the limit if that is shorter.
    ///
    /// # Errors
    /// [`AgentError`]; [`AgentError::NoAgent`] when the limit is over and nobody has answered.
    pub async fn execute(&self, name: &str, arguments: impl Serialize) -> Result<Value, AgentError> {
        self.execute_as(name, arguments).await
    }

    /// Executes a command and returns its value as a `T`.
    ///
    /// # Errors
    /// As [`Agent::execute`], and [`AgentError::Malformed`] when the value is no `T`.
    pub async fn execute_as<T: DeserializeOwned>(
        &self,
        name: &str,
        arguments: impl Serialize,
    ) -> Result<T, AgentError> {
        let command = command(name, arguments)?;
        if WITHOUT_REPLY.contains(&name) {
            if let Some(reply) = self.tell(&command).await? {
                read::<Value>(name, &reply)?;
            }
            return from_text("null", 1)
                .map_err(|source| AgentError::Malformed { command: name.to_owned(), source });
        }
        self.ask(command, self.limit).await
    }

    /// Speaks the agent's protocol with somebody else on its behalf, until he goes or the agent's channel ends. `begun` is
    /// what was read of `socket` already.
    ///
    /// To him it is an agent of his own. His commands take turns with those of every handle and of every other visitor,
    /// and what he leaves half done holds nobody up. 0xFF gives up what he has asked for. A synchronisation is answered
    /// as soon as the agent is known to be there, also while it is busy with somebody else's command. A command of his may take
    /// 10 minutes, and of what he sends at most eight wait; one that has ended his own direction gets his last replies within
    /// the limit of this handle.
    pub async fn attend(&self, socket: impl Into<Socket>, begun: &[u8]) {
        let end = Visitor::new(socket.into(), self.clone(), begun).serve().await;
        tracing::debug!("a visitor of a guest agent is gone: {end}");
    }

    /// A command's value.
    async fn ask<T: DeserializeOwned>(&self, command: Command, limit: Duration) -> Result<T, AgentError> {
        let reply = self.reply(&command, limit).await?;
        read(&command.name, &reply)
    }

    /// A command's reply, whatever it says.
    async fn reply(&self, command: &Command, limit: Duration) -> Result<Reply, AgentError> {
        let name = &command.name;
        let clock = Clock::start(limit);
        let mut line = self.turn(name, clock).await?;
        let reply = within(clock.left(), "", line.ask(command)).await;
        drop(line);
        let reply = reply.map_err(|_| clock.timed_out(format!("reply to `{name}`")))?;
        reply.map_err(|why| AgentError::disconnected(name, why))
    }

    /// Sends a command that has no reply when it succeeds. An agent that answers nevertheless is taken at its word.
    async fn tell(&self, command: &Command) -> Result<Option<Reply>, AgentError> {
        let name = &command.name;
        let clock = Clock::start(self.limit);
        let mut line = self.turn(name, clock).await?;
        let told = match within(clock.left().min(SILENCE), "", line.tell(command)).await {
            Ok(told) => told,
            // The agent has just answered, so silence means that the guest is on its way.
            Err(_) if line.is_written() => return Ok(None),
            Err(_) => return Err(clock.timed_out(format!("room for `{name}`"))),
        };
        told.map_err(|why| AgentError::disconnected(name, why))
    }

    /// A command's reply as it came; `None` from a command that has none.
    async fn forward(&self, command: &Command) -> Result<Option<Reply>, AgentError> {
        match WITHOUT_REPLY.contains(&command.name()) {
            true => self.tell(command).await,
            false => self.reply(command, self.limit).await.map(Some),
        }
    }

    /// Waits until the agent is known to be there: it has answered the last command, or is busy with one.
    async fn found(&self) -> Result<(), AgentError> {
        let clock = Clock::start(self.limit);
        loop {
            match self.line.try_lock() {
                Ok(line) if line.is_in_order() => return Ok(()),
                Err(_) if self.answers.load(Ordering::Acquire) => return Ok(()),
                _ => {}
            }
            let slice = Clock::start(clock.left().min(SLICE));
            match self.turn(SYNC, slice).await {
                Ok(_line) => return Ok(()),
                Err(AgentError::NoAgent { heard, .. }) if clock.left().is_zero() => {
                    return Err(AgentError::NoAgent { command: SYNC.into(), limit: self.limit, heard });
                }
                Err(error) if error.is_timed_out() && !clock.left().is_zero() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the turn of a command, and brings the line in order for it.
    async fn turn(&self, name: &str, clock: Clock) -> Result<tokio::sync::MutexGuard<'_, Line>, AgentError> {
        let turn = within(clock.left(), "", self.line.lock()).await;
        let mut line = turn.map_err(|_| match self.answers.load(Ordering::Acquire) {
            true => clock.timed_out(format!("turn for `{name}`")),
            // Whoever has the turn waits for the agent, too.
            false => AgentError::NoAgent { command: name.to_owned(), limit: clock.limit, heard: None },
        })?;
        match within(clock.left(), "", line.synchronise()).await {
            Ok(Ok(())) => Ok(line),
            Ok(Err(_)) if line.greeted() => Err(AgentError::Monitor { command: name.to_owned() }),
            Ok(Err(why)) => Err(AgentError::disconnected(name, why)),
            Err(_) => {
                let (command, limit, heard) = (name.to_owned(), clock.limit, line.heard());
                Err(AgentError::NoAgent { command, limit, heard })
            }
        }
    }
}

fn command(name: &str, arguments: impl Serialize) -> Result<Command, AgentError> {
    Command::new(name)
        .arguments(arguments)
        .map_err(|source| AgentError::Arguments { command: name.to_owned(), source })
}

fn read<T: DeserializeOwned>(command: &str, reply: &Reply) -> Result<T, AgentError> {
    reply.decode().map_err(|error| match error {
        ReplyError::Refused(source) => AgentError::refused(command, source),
        ReplyError::Malformed(source) => AgentError::Malformed { command: command.to_owned(), source },
    })
}

/// A limit on several waits together.
#[derive(Debug, Clone, Copy)]
struct Clock {
    started: Instant,
    limit: Duration,
}

impl Clock {
    fn start(limit: Duration) -> Self {
        Self { started: Instant::now(), limit }
    }

    fn left(self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    fn timed_out(self, what: String) -> AgentError {
        AgentError::TimedOut(TimedOut { what, limit: self.limit })
    }
}
