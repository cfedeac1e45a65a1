//! Why a guest agent's command has no value.

use std::time::Duration;

use crate::command::CommandError;
use crate::deadline::TimedOut;
use crate::error::Disconnect;
use crate::malformed::Malformed;

/// Why a guest agent's command has no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Nobody answers: the agent is not installed, does not run (yet), or has another channel.
    #[error(
        "no guest agent answered within {limit:?}{}: in the guest, qemu-guest-agent has to run, on the channel \
         org.qemu.guest_agent.0",
        instead(heard.as_deref())
    )]
    NoAgent {
        /// The command, which was not sent.
        command: String,
        /// How long it was waited for.
        limit: Duration,
        /// The beginning of what came instead, escaped; `None` when nothing came.
        heard: Option<String>,
    },
    /// The peer is QEMU's own monitor.
    #[error("the peer is a QMP monitor, not a guest agent")]
    Monitor {
        /// The command, which was not sent.
        command: String,
    },
    /// The agent is there, but did not answer in time. If a reply comes yet, it is dropped.
    #[error(transparent)]
    TimedOut(TimedOut),
    /// The agent knows the command, but its configuration or its state (frozen file systems) forbids it.
    #[error("the guest agent has `{command}` disabled")]
    Disabled {
        /// The command's name.
        command: String,
        /// The agent's words.
        source: CommandError,
    },
    /// The agent does not know the command: it is too old, or made for another system.
    #[error("the guest agent does not have `{command}`")]
    Unknown {
        /// The command's name.
        command: String,
        /// The agent's words.
        source: CommandError,
    },
    /// The agent said no.
    #[error("the guest agent refused `{command}`")]
    Refused {
        /// The command's name.
        command: String,
        /// The agent's words.
        source: CommandError,
    },
    /// The program still runs in the guest; an agent cannot end it.
    #[error("`{path}` still runs after {limit:?}, as process {pid} of the guest")]
    StillRuns {
        /// The program.
        path: String,
        /// Its process in the guest.
        pid: i64,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The arguments cannot be sent; nothing was.
    #[error("could not write the arguments of `{command}` as JSON")]
    Arguments {
        /// The command's name.
        command: String,
        /// What is wrong with them.
        source: serde_json::Error,
    },
    /// The connection ended, before or while the command waited.
    #[error("the connection to the guest agent ended while `{command}` waited")]
    Disconnected {
        /// The command's name.
        command: String,
        /// Why it ended.
        source: Disconnect,
    },
    /// The reply is not what the agent's protocol says, or not of the type that was asked for.
    #[error("could not read the guest agent's reply to `{command}`")]
    Malformed {
        /// The command's name.
        command: String,
        /// What is wrong with it.
        source: Malformed,
    },
}

impl AgentError {
    /// The agent's own words, if it is the agent that said no.
    #[must_use]
    pub fn refusal(&self) -> Option<&CommandError> {
        match self {
            Self::Disabled { source, .. } | Self::Unknown { source, .. } | Self::Refused { source, .. } => {
                Some(source)
            }
            _ => None,
        }
    }

    /// Whether a limit was over.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(self, Self::NoAgent { .. } | Self::TimedOut(_) | Self::StillRuns { .. })
    }

    /// What the agent's words mean.
    pub(crate) fn refused(command: &str, source: CommandError) -> Self {
        let command = command.to_owned();
        match source.class.as_str() {
            // The class is the same for both (`CommandNotFound`), and before QEMU 2.10 it was another one.
            _ if source.desc.contains("has been disabled") => Self::Disabled { command, source },
            "CommandNotFound" => Self::Unknown { command, source },
            _ => Self::Refused { command, source },
        }
    }

    /// Why the connection gave no reply.
    pub(crate) fn disconnected(command: &str, why: Disconnect) -> Self {
        let command = command.to_owned();
        match why {
            Disconnect::Malformed(source) => Self::Malformed { command, source },
            source => Self::Disconnected { command, source },
        }
    }
}

fn instead(heard: Option<&str>) -> String {
    heard.map_or_else(String::new, |heard| format!(", only `{heard}` came"))
}
