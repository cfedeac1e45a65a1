//! What is said on a machine's control socket, and what can go wrong there: docs/design/reach.md has the whole.
//!
//! One line of JSON asks, one line of JSON answers; behind some answers follow raw bytes. Plain data; no I/O.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use ratite_qmp::TimedOut;
use serde::Deserialize;
use serde::Serialize;

use crate::exit::ProcessExit;

/// The version of what is said. One that knows more says the same to what an older one asks.
pub(crate) const VERSION: u32 = 1;

/// The longest line that asks for something.
pub(crate) const LONGEST_REQUEST: usize = 64 << 10;

/// The longest line that answers.
pub(crate) const LONGEST_ANSWER: usize = 4 << 20;

/// What can be asked for, one thing for each connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "open", rename_all = "lowercase")]
pub(crate) enum Ask {
    /// What is known of the machine.
    Facts {},
    /// A console, in both directions.
    Console {
        /// Which; the first by default.
        #[serde(default)]
        name: Option<String>,
        /// How many of the last recorded bytes come first.
        #[serde(default)]
        replay: usize,
    },
    /// What a console has recorded, and with `follow` what it says up to its end.
    Log {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        follow: bool,
    },
    /// The agent in its guest.
    Agent {},
    /// The machine's end, asked for.
    Stop { grace_ms: u64 },
    /// The machine's end, by force.
    Kill {},
    /// The machine's end, whoever wants it.
    Wait {},
}

/// The line that answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer<T> {
    /// [`VERSION`] of whoever answers.
    pub(crate) version: u32,
    /// Why not, instead of what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// What was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answer: Option<T>,
}

/// What comes before a console's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// The console's name.
    pub(crate) name: String,
    /// How many recorded bytes came before those that follow, and are not recorded any more, or were not asked for.
    pub(crate) omitted: u64,
    /// How many of the bytes that follow were recorded before.
    #[serde(default)]
    pub(crate) recorded: u64,
}

/// What comes before what an agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Channel {}

/// How it ended, and what was not well about that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ending {
    #[serde(flatten)]
    pub(crate) exit: WireExit,
    /// What a shutdown says that was not clean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<String>,
}

/// An exit as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireExit {
    /// The exit status, if the process exited.
    pub(crate) status: Option<i32>,
    /// The signal, if one ended it.
    pub(crate) signal: Option<i32>,
    /// The status as wait(2) has it; none if it is unknown.
    pub(crate) wait_status: Option<i32>,
    pub(crate) reason: Option<String>,
    pub(crate) success: bool,
    pub(crate) ran_ms: u64,
}

impl WireExit {
    pub(crate) fn new(status: ProcessExit, reason: Option<String>, ran: Duration) -> Self {
        Self {
            status: status.code(),
            signal: status.signal(),
            wait_status: status.status().map(ExitStatusExt::into_raw),
            reason,
            success: status.code() == Some(0),
            ran_ms: milliseconds(ran),
        }
    }

    pub(crate) fn read(self) -> RemoteExit {
        let status = self.wait_status.map(ExitStatus::from_raw);
        RemoteExit {
            status: status.map_or_else(ProcessExit::unknown, ProcessExit::new),
            shutdown_reason: self.reason,
            run_time: Duration::from_millis(self.ran_ms),
        }
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How a machine of another program ended. Displays as "QEMU exited with status 0 (guest-shutdown)".
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteExit {
    /// How its process ended.
    pub status: ProcessExit,
    /// The `reason` of QEMU's `SHUTDOWN` event, if it sent one: `guest-shutdown`, `host-qmp-quit`, ….
    pub shutdown_reason: Option<String>,
    /// From the start of the process to its end.
    pub run_time: Duration,
}

impl RemoteExit {
    /// Whether the process exited with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.code() == Some(0)
    }
}

impl fmt::Display for RemoteExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QEMU {}", self.status)?;
        match &self.shutdown_reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// What is known of a machine of another program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Facts {
    /// The name by which it is reachable.
    pub name: String,
    /// The process that was started: QEMU, or the wrapper if there is one.
    pub pid: u32,
    /// The program that runs it, and with which it ends.
    pub owner: u32,
    /// The binary, as its owner named it.
    pub binary: String,
    /// QEMU's version, such as `7.2.22`; none for a machine without a monitor.
    pub version: Option<String>,
    /// What QEMU says of its state: `running`, `paused`, …; `unknown` if it does not say so within a second.
    pub state: String,
    /// How long its process has been running, in milliseconds.
    pub uptime_ms: u64,
    /// Its consoles, in their order.
    pub consoles: Vec<ConsoleFacts>,
    /// Whether it has a channel to an agent in its guest.
    #[serde(default)]
    pub agent: bool,
    /// Its work folder.
    pub work_folder: PathBuf,
    /// The file with what QEMU itself says.
    pub log_file: PathBuf,
    /// What was run, as one line for a shell, with secrets masked.
    pub command_line: String,
    /// Where QMP can be spoken with it.
    pub qmp: PathBuf,
}

impl Facts {
    /// How long its process has been running.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        Duration::from_millis(self.uptime_ms)
    }
}

/// What is known of a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConsoleFacts {
    /// Its name.
    pub name: String,
    /// How many bytes the guest has written.
    pub bytes: u64,
    /// The last line that is not empty, as text without escape sequences.
    pub last_line: String,
}

/// What is wrong with another program's machine, or with the name of one's own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReachError {
    /// No machine can have this name.
    #[error("`{name}` cannot name a reachable machine: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A machine that runs has this name.
    #[error("the name `{name}` is taken{}", by(*pid))]
    Taken {
        /// The name.
        name: String,
        /// The program that runs it, if it is known.
        pid: Option<u32>,
    },
    /// The folder for reachable machines is not to be had, or not to be trusted.
    #[error("could not use the folder `{}`: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The system lacks what is needed to wait.
    #[error("could not begin")]
    System {
        /// What the system said.
        source: io::Error,
    },
    /// No machine of this user is reachable by this name.
    #[error("no machine is named `{name}`")]
    NotThere {
        /// The name.
        name: String,
    },
    /// The machine is there and cannot be spoken with.
    #[error("could not speak with the machine `{name}`")]
    Broken {
        /// The name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// QMP cannot be spoken with it.
    #[error("could not speak QMP with the machine `{name}`")]
    Qmp {
        /// The name.
        name: String,
        /// Why not.
        source: ratite_qmp::Error,
    },
    /// The program that ran the machine ended, or let go of the machine, before it answered.
    #[error("the program that ran the machine `{name}` ended before it could tell {what}")]
    Gone {
        /// The name.
        name: String,
        /// What was asked.
        what: &'static str,
    },
    /// The machine said no.
    #[error("the machine `{name}` refused: {reason}")]
    Refused {
        /// The name.
        name: String,
        /// Its words.
        reason: String,
    },
    /// It is down, but did not end as it should.
    #[error("{fault}")]
    Unclean {
        /// What was not as it should be.
        fault: String,
        /// How it ended.
        exit: RemoteExit,
    },
    /// It took too long.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

fn by(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" by a machine of process {pid}")).unwrap_or_default()
}

impl ReachError {
    pub(crate) fn folder(folder: &Path, source: io::Error) -> Self {
        Self::Folder { folder: folder.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_a_line_that_people_can_type() {
        let check =
            |text: &str, expected: Ask| assert_eq!(serde_json::from_str::<Ask>(text).unwrap(), expected);

        check(r#"{"open":"facts"}"#, Ask::Facts {});
        check(r#"{"open":"agent"}"#, Ask::Agent {});
        check(r#"{"open":"console"}"#, Ask::Console { name: None, replay: 0 });
        check(
            r#"{"open":"log","name":"serial0","follow":true}"#,
            Ask::Log { name: Some("serial0".into()), follow: true },
        );
        check(r#"{"open":"stop","grace_ms":5000,"of a later version":1}"#, Ask::Stop { grace_ms: 5000 });
        assert!(
            serde_json::from_str::<Ask>(r#"{"open":"sesame"}"#).unwrap_err().to_string().contains("facts")
        );
    }

    #[test]
    fn an_exit_comes_through_as_it_was() {
        for raw in [0, 3 << 8, 9, 6 | 0x80] {
            let status = ProcessExit::new(ExitStatus::from_raw(raw));
            let sent = WireExit::new(status, Some("guest-shutdown".into()), Duration::from_millis(1500));

            let text = serde_json::to_string(&Ending { exit: sent.clone(), fault: None }).unwrap();
            let ending: Ending = serde_json::from_str(&text).unwrap();

            assert_eq!(ending.exit, sent);
            assert_eq!((ending.exit.clone().read().status, ending.exit.read().success()), (status, raw == 0));
        }
    }
}
