//! How a machine ended, and why: plain data, no handles.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use std::time::SystemTime;

use crate::command_line::CommandLine;

/// How a machine ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Exit {
    /// The process that ran: QEMU, or the wrapper if there was one.
    pub pid: u32,
    /// How the process ended.
    pub status: ProcessExit,
    /// Who wanted it.
    pub asked: Asked,
    /// The `reason` of QEMU's last `SHUTDOWN` event, if it sent one: `guest-shutdown`, `host-qmp-quit`, ….
    pub shutdown_reason: Option<String>,
    /// What was run.
    pub command_line: CommandLine,
    /// What the process wrote to stdout and stderr.
    pub log: Tail,
    /// When the process was started, by the wall clock.
    pub started: SystemTime,
    /// From the start of the process to its monitor being ready; zero without a monitor.
    pub launch_time: Duration,
    /// From the start of the process to its end, by the monotonic clock.
    pub run_time: Duration,
}

impl Exit {
    /// Whether the process exited with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.code() == Some(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QEMU {}", self.status)?;
        match &self.shutdown_reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// Who wanted a machine to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The program, by [`crate::Machine::shutdown`] or a `quit` of its own. A `quit` that somebody else sends on another
    /// monitor looks the same.
    Us,
    /// The program, by [`crate::Machine::kill`].
    UsByForce,
    /// The program gave it its time, which was over before it ended; then it was killed.
    TimeOver,
    /// The guest: it powered itself off, reset with `-no-reboot`, or panicked.
    Guest,
    /// A signal that somebody else sent.
    Signal,
    /// Nobody that is known: the process ended by itself.
    Nobody,
}

/// The status of a process that has ended. Displays as "exited with status 1" or "was killed by signal 6 (SIGABRT)".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessExit(Option<ExitStatus>);

impl ProcessExit {
    pub(crate) fn new(status: ExitStatus) -> Self {
        Self(Some(status))
    }

    /// The end of a process whose status nobody kept: where SIGCHLD is ignored, the kernel reaps every child at once
    /// (wait(2), "Notes").
    pub(crate) fn unknown() -> Self {
        Self(None)
    }

    /// Whether the status is not to be had, because the program ignores SIGCHLD.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        self.0.is_none()
    }

    /// The exit status; `None` for a process that a signal ended.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        self.0?.code()
    }

    /// The number of the signal that ended the process.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        self.0?.signal()
    }

    /// The name of the signal that ended the process, such as `SIGKILL`.
    #[must_use]
    pub fn signal_name(self) -> Option<&'static str> {
        self.signal().map(signal_name)
    }

    /// Whether the kernel wrote a core dump.
    #[must_use]
    pub fn core_dumped(self) -> bool {
        self.0.is_some_and(|status| status.core_dumped())
    }

    /// As std has it; `None` if it is unknown.
    #[must_use]
    pub fn status(self) -> Option<ExitStatus> {
        self.0
    }
}

impl fmt::Display for ProcessExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code(), self.signal()) {
            (Some(code), _) => write!(f, "exited with status {code}"),
            (None, Some(signal)) => {
                let dumped = if self.core_dumped() { ", core dumped" } else { "" };
                write!(f, "was killed by signal {signal} ({}{dumped})", signal_name(signal))
            }
            (None, None) => f.write_str("ended (its status is unknown: this program ignores SIGCHLD)"),
        }
    }
}

/// The names of signal(7), by the numbers that most Linux architectures share.
fn signal_name(number: i32) -> &'static str {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
    NAMES.get(index).copied().unwrap_or("a real-time signal")
}

/// The last bytes of something longer.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tail {
    /// The last bytes.
    pub bytes: Vec<u8>,
    /// How many came before them.
    pub omitted: u64,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("text", &self.text()).field("omitted", &self.omitted).finish()
    }
}

impl Tail {
    /// The last bytes as text; what is no UTF-8 is replaced (U+FFFD).
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// At most the last `bytes` of these, beginning at a line if one begins there.
    #[must_use]
    pub fn shortened(&self, bytes: usize) -> Self {
        let cut = self.bytes.len().saturating_sub(bytes);
        let line = match cut {
            0 => 0,
            _ => memchr::memchr(b'\n', &self.bytes[cut..])
                .map_or(cut, |end| (cut + end + 1).min(self.bytes.len())),
        };
        // A single long line has no better place to be cut.
        let start = if line == self.bytes.len() { cut } else { line };
        Self { bytes: self.bytes[start..].to_vec(), omitted: self.omitted + start as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: i32, expected: &str) {
        assert_eq!(ProcessExit::new(ExitStatus::from_raw(raw)).to_string(), expected);
    }

    #[test]
    fn an_end_is_told_by_status_or_signal_name() {
        check(0x0100, "exited with status 1");
        check(9, "was killed by signal 9 (SIGKILL)");
        check(6 | 0x80, "was killed by signal 6 (SIGABRT, core dumped)");
        check(34, "was killed by signal 34 (a real-time signal)");
    }

    #[test]
    fn a_tail_begins_at_a_line_if_it_can() {
        let tail = Tail { bytes: b"first\nsecond\nthird".to_vec(), omitted: 7 };

        assert_eq!(tail.shortened(10), Tail { bytes: b"third".to_vec(), omitted: 20 });
        assert_eq!(tail.shortened(100), tail);
        assert_eq!(tail.shortened(3).text(), "ird");
    }
}
