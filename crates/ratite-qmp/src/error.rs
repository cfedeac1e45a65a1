//! What can go wrong on a QMP connection.
//!
//! Fields carry the evidence; a message is one lowercase line without its source.

use std::io;
use std::sync::Arc;

use crate::address::Address;
use crate::address::BadAddress;
use crate::command::CommandError;
use crate::deadline::TimedOut;
use crate::malformed::Malformed;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text of an address is none.
    #[error("could not understand an address")]
    Address(#[from] BadAddress),
    /// Nothing could be reached at the address.
    #[error("could not connect to {address}")]
    Connect {
        /// Where it was tried.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The address could not be listened on.
    #[error("could not listen on {address}: {reason}")]
    Bind {
        /// Where it was tried.
        address: Address,
        /// What is in the way.
        reason: String,
        /// What the system said.
        source: io::Error,
    },
    /// The peer's first message was no greeting.
    #[error("the peer did not greet, it sent `{got}`")]
    Greeting {
        /// What came instead.
        got: String,
    },
    /// The peer refused the capabilities.
    #[error("the peer refused the negotiation")]
    Negotiation(#[source] CommandError),
    /// The connection ended before the session was ready.
    #[error("the connection ended before the session was ready")]
    Disconnected(#[source] Disconnect),
    /// It took too long.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

/// Why a connection ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnect {
    /// The peer closed it, or ended, between two messages.
    #[error("the peer closed the connection")]
    ByPeer,
    /// This side closed it, or dropped its last [`crate::Client`].
    #[error("the connection was closed on this side")]
    ByUs,
    /// The peer sent something that is no QMP.
    #[error("the peer broke the protocol")]
    Malformed(#[source] Malformed),
    /// Reading or writing failed.
    #[error("could not {operation} the connection")]
    Io {
        /// "read from" or "write to".
        operation: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The runtime that drove the connection ended.
    #[error("the runtime that drove the connection ended")]
    Runtime,
    /// There was none: it was never made, or failed before it was ready.
    #[error("there was no connection")]
    NeverBegan,
}

impl Disconnect {
    pub(crate) fn io(operation: &'static str, source: io::Error) -> Self {
        match source.kind() {
            // A peer that ends with input unread looks like this.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::ByPeer,
            _ => Self::Io { operation, source: Arc::new(source) },
        }
    }
}

/// Why a command has no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// QEMU said no.
    #[error("QEMU refused `{command}`")]
    Refused {
        /// The command's name.
        command: String,
        /// QEMU's words.
        source: CommandError,
    },
    /// The arguments cannot be sent; nothing was.
    #[error("could not write the arguments of `{command}` as JSON")]
    Arguments {
        /// The command's name.
        command: String,
        /// What is wrong with them.
        source: serde_json::Error,
    },
    /// The peer did not negotiate `oob`; nothing was sent.
    #[error("could not send `{command}` out of band: the peer did not negotiate `oob`")]
    NoOob {
        /// The command's name.
        command: String,
    },
    /// The connection cannot carry descriptors; nothing was sent.
    #[error("could not send a descriptor with `{command}`: only a Unix socket carries descriptors")]
    NoDescriptors {
        /// The command's name.
        command: String,
    },
    /// More descriptors than the kernel lets travel with one message; nothing was sent.
    #[error("could not send {count} descriptors with `{command}`: at most {most} go with one message")]
    TooManyDescriptors {
        /// The command's name.
        command: String,
        /// How many it has.
        count: usize,
        /// The most there may be (SCM_MAX_FD, unix(7)).
        most: usize,
    },
    /// No reply came in time. If it comes yet, it is dropped.
    #[error(transparent)]
    TimedOut(TimedOut),
    /// The connection ended, before or while the command waited.
    #[error("the connection ended while `{command}` waited")]
    Disconnected {
        /// The command's name.
        command: String,
        /// Why it ended.
        source: Disconnect,
    },
    /// The reply is not what QMP says, or not of the type that was asked for.
    #[error("could not read the reply to `{command}`")]
    Malformed {
        /// The command's name.
        command: String,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The peer sent an error that names no command while this one waited, so it may be this one's.
    #[error("the peer sent an error that names no command while `{command}` waited")]
    Unattributed {
        /// The command's name.
        command: String,
        /// What the peer said.
        source: CommandError,
    },
}

impl ExecuteError {
    /// QEMU's own words, if it is QEMU that said no.
    #[must_use]
    pub fn refusal(&self) -> Option<&CommandError> {
        match self {
            Self::Refused { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected { .. })
    }
}

/// Why a listener yields no event.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The queue was full, and its oldest events were dropped; the next read goes on with what is there.
    #[error("{dropped} events were dropped because nobody read them")]
    Lagged {
        /// How many since the last read.
        dropped: u64,
    },
    /// No event came in time.
    #[error("{wait}{}", lag(*dropped))]
    TimedOut {
        /// How many events this listener has dropped unread; the one waited for may have been among them.
        dropped: u64,
        /// What was waited for, and how long.
        wait: TimedOut,
    },
    /// The connection ended, and all that it brought was read.
    #[error("the connection ended")]
    Disconnected(#[source] Disconnect),
}

fn lag(dropped: u64) -> String {
    if dropped == 0 { String::new() } else { format!(" ({dropped} events were dropped unread)") }
}
