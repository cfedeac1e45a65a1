//! What can go wrong with a machine. Fields carry the evidence; a message is one lowercase line without its source.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ratite_qmp::ExecuteError;
use ratite_qmp::ListenError;
use ratite_qmp::TimedOut;

use crate::check::ConfigError;
use crate::command_line::CommandLine;
use crate::disks::NotFreezable;
use crate::exit::Exit;
use crate::exit::ProcessExit;
use crate::exit::Tail;
use crate::reach_words::ReachError;

/// Why a machine did not start. Nothing is left behind.
///
/// Its `Debug` is a report for people, with the causes, QEMU's last words and the command line, because that is what
/// `unwrap` and a `main` that returns a `Result` show.
pub struct LaunchError(Box<LaunchFailure>);

#[derive(Debug)]
struct LaunchFailure {
    kind: LaunchErrorKind,
    command_line: Option<CommandLine>,
    exit: Option<ProcessExit>,
    log: Tail,
}

/// What stood in the way of a launch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchErrorKind {
    /// The configuration cannot work.
    #[error("the configuration cannot work")]
    Config(#[source] ConfigError),
    /// The work folder could not be made.
    #[error("could not make a work folder in `{}`", base.display())]
    WorkFolder {
        /// The base folder.
        base: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log file could not be made.
    #[error("could not make the log file in `{}`", folder.display())]
    Log {
        /// The log folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The monitor's address is not to be had.
    #[error("could not prepare the monitor")]
    MonitorAddress(#[source] ratite_qmp::Error),
    /// The machine is to be one that can be frozen, and cannot.
    #[error("the machine cannot be launched as one that can be frozen")]
    NotFreezable(#[source] NotFreezable),
    /// The files for the machine's RAM and disks could not be made.
    #[error("could not make the files for the machine's RAM and disks in `{}`", folder.display())]
    Files {
        /// The work folder.
        folder: PathBuf,
        /// What the system said: most often, that the disk is full.
        source: io::Error,
    },
    /// The machine's name is taken, or its folder not to be had.
    #[error("could not make the machine reachable by its name")]
    Reach(#[source] ReachError),
    /// A socket or descriptor could not be made.
    #[error("could not open a channel to QEMU")]
    Channel(#[source] io::Error),
    /// The process could not be started.
    #[error("could not start the {role} `{program}`: {reason}")]
    Spawn {
        /// "binary", or "wrapper" if there is one.
        role: &'static str,
        /// The first word of the command line.
        program: String,
        /// What is wrong with it, as far as can be told.
        reason: String,
        /// What the system said.
        source: io::Error,
    },
    /// The process ended before its monitor was ready.
    #[error("QEMU {0} before its monitor was ready")]
    Exited(ProcessExit),
    /// The monitor did not become ready in time.
    #[error("QEMU's monitor was not ready within {limit:?}")]
    TimedOut {
        /// The limit, [`crate::Timeouts::connect`].
        limit: Duration,
    },
    /// The monitor connected but would not talk as QMP does.
    #[error("QEMU runs, but its monitor does not talk as it should")]
    Qmp(#[source] ratite_qmp::Error),
    /// The console could not be set up.
    #[error("could not set up the console")]
    Console(#[source] io::Error),
}

impl LaunchError {
    pub(crate) fn new(kind: LaunchErrorKind) -> Self {
        Self(Box::new(LaunchFailure { kind, command_line: None, exit: None, log: Tail::default() }))
    }

    pub(crate) fn with_command_line(mut self, command_line: CommandLine) -> Self {
        self.0.command_line = Some(command_line);
        self
    }

    pub(crate) fn with_end(mut self, exit: Option<ProcessExit>, log: Tail) -> Self {
        self.0.exit = exit;
        self.0.log = log;
        self
    }

    /// What stood in the way.
    #[must_use]
    pub fn kind(&self) -> &LaunchErrorKind {
        &self.0.kind
    }

    /// What was run, if it came to that.
    #[must_use]
    pub fn command_line(&self) -> Option<&CommandLine> {
        self.0.command_line.as_ref()
    }

    /// How the process ended, if there was one; by ratite's own SIGKILL if it had to be ended.
    #[must_use]
    pub fn exit(&self) -> Option<ProcessExit> {
        self.0.exit
    }

    /// The end of what the process wrote to stdout and stderr: QEMU's last words.
    #[must_use]
    pub fn log(&self) -> &Tail {
        &self.0.log
    }
}

impl fmt::Debug for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_report(f, self, &self.0.log.shortened(LAST_WORDS))?;
        match &self.0.command_line {
            Some(command_line) => write!(f, "\n  command: {command_line}"),
            None => Ok(()),
        }
    }
}

/// An error for people: what it says, each cause on a line of its own, and the last words of whoever failed.
pub(crate) fn write_report(
    f: &mut fmt::Formatter<'_>,
    error: &dyn std::error::Error,
    words: &Tail,
) -> fmt::Result {
    write!(f, "{error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(f, "\n  caused by: {error}")?;
        cause = error.source();
    }
    words.text().lines().try_for_each(|line| write!(f, "\n    | {}", line.trim_end_matches('\r')))
}

/// How much of QEMU's log a report shows.
const LAST_WORDS: usize = 2 << 10;

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("could not launch the machine")
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0.kind)
    }
}

/// A machine that did not end as it should. It is down in every case but [`ShutdownErrorKind::Unkillable`].
#[derive(Debug)]
pub struct ShutdownError {
    kind: ShutdownErrorKind,
    exit: Option<Box<Exit>>,
}

/// How an end was not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownErrorKind {
    /// It did not end within its grace and was killed.
    #[error("the machine did not end within {grace:?} and was killed")]
    TimedOut {
        /// The grace.
        grace: Duration,
    },
    /// It ended with a status other than 0, or by a signal that ratite did not send for it.
    #[error("QEMU {0} instead of ending cleanly")]
    Unclean(ProcessExit),
    /// It was not gone long after SIGKILL: the kernel holds it in an uninterruptible wait.
    #[error("process {pid} is still there {limit:?} after SIGKILL")]
    Unkillable {
        /// The process.
        pid: u32,
        /// The limit, [`crate::Timeouts::kill`].
        limit: Duration,
    },
}

impl ShutdownError {
    pub(crate) fn new(kind: ShutdownErrorKind, exit: Option<Exit>) -> Self {
        Self { kind, exit: exit.map(Box::new) }
    }

    /// What was not as it should be.
    #[must_use]
    pub fn kind(&self) -> ShutdownErrorKind {
        self.kind
    }

    /// How the machine ended, with its log; `None` only if it could not be ended.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        self.exit.as_deref()
    }
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for ShutdownError {}

/// What can go wrong with a machine that was launched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// It did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// It did not end well.
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
    /// QEMU ended while something was under way.
    #[error("QEMU {exit} {doing}")]
    Exited {
        /// How it ended.
        exit: ProcessExit,
        /// What was under way: "while `device_add` waited for its reply".
        doing: String,
        /// The end of QEMU's log.
        log: Tail,
    },
    /// A command has no value.
    #[error(transparent)]
    Command(#[from] ExecuteError),
    /// No event came.
    #[error(transparent)]
    Event(#[from] ListenError),
    /// Something took too long.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The machine was launched without a monitor.
    #[error("could not {doing}: the machine was launched without a monitor")]
    NoMonitor {
        /// What was asked: "send `query-status`".
        doing: String,
    },
}

impl MachineError {
    /// QEMU's own words, if it refused a command.
    #[must_use]
    pub fn refusal(&self) -> Option<&ratite_qmp::CommandError> {
        match self {
            Self::Command(error) => error.refusal(),
            _ => None,
        }
    }
}
