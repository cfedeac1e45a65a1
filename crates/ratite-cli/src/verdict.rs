//! Whether a run was what the user asked for: from all that is known of its end to success or a [`Failure`].

use std::io;
use std::time::Duration;

use ratite::Exit;
use ratite::Patterns;
use ratite::SearchError;
use ratite::ShutdownError;
use ratite::Tail;

use crate::copy::Copied;
use crate::report;
use crate::report::Failure;
use crate::signals::Signal;

/// Why a machine was ended, or ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cause {
    /// It ended by itself.
    Itself,
    /// What was looked for appeared, or could not be looked for any more.
    SearchOver,
    /// It was ready to be frozen, and it was.
    Ready,
    /// The guest panicked, and QEMU keeps it as it is.
    Panicked,
    /// The guest is off, and QEMU keeps it for a last picture.
    Off,
    /// The user's limit was over.
    TimeOver,
    /// stdout took no more.
    Unwritable,
    /// The user's limit was over when the machine had ended, but not all of its console was written.
    Unread,
    Signal(Signal),
}

/// What is known of a machine that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) cause: Cause,
    pub(crate) end: Result<Exit, ShutdownError>,
    pub(crate) copied: Copied,
    /// The end of the console, if there was one.
    pub(crate) console: Option<Tail>,
    /// Why the console's log file is not complete.
    pub(crate) log_fault: Option<String>,
}

impl Ended {
    /// Whether that is what the user asked for, who may have looked for `patterns` on the console; how QEMU ended, if that
    /// is known.
    pub(crate) fn verdict(
        self,
        patterns: Option<&Patterns>,
        limit: Duration,
    ) -> Result<Option<Exit>, Failure> {
        let wanted = patterns.filter(|patterns| patterns.wanted() > 0);
        let found = match (self.cause, self.copied.found.clone()) {
            (Cause::Signal(signal), _) => return Err(self.ended_by(signal)),
            (Cause::TimeOver, _) => return Err(self.too_late(wanted, limit)),
            (Cause::Unread, _) => return Err(self.unread(limit)),
            (_, Err(error)) => return Err(self.unsearchable(error)),
            (_, Ok(found)) => found.and_then(|index| patterns.map(|patterns| (patterns, index))),
        };
        match &self.copied.written {
            Ok(()) => {}
            // A reader that goes when it has seen what it wanted, as `grep -q` does, has seen it.
            Err(error)
                if error.kind() == io::ErrorKind::BrokenPipe
                    && (found.is_some() || matches!(self.cause, Cause::Ready)) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Err(self.ended_by(Signal::Pipe));
            }
            Err(_) => return self.copied.written.map(|()| None).map_err(Failure::Output),
        }
        self.check_nothing_lost()?;
        match found {
            Some((patterns, index)) if patterns.is_failure(index) => {
                let pattern = patterns.get(index).map(ToString::to_string).unwrap_or_default();
                Err(self.failed(format!("{pattern} appeared on the console")))
            }
            _ if matches!(self.cause, Cause::Ready) => Ok(exit(self.end).map(|exit| *exit)),
            Some(_) => Ok(self.remark_on_the_end()),
            None if matches!(self.cause, Cause::Panicked) => Err(self.failed("the guest panicked".into())),
            None => self.check_the_end(wanted).map(Some),
        }
    }

    fn failed(self, what: String) -> Failure {
        Failure::Failed { what, exit: exit(self.end), console: self.console }
    }

    fn ended_by(self, signal: Signal) -> Failure {
        Failure::Signal { signal, source: self.end.err() }
    }

    fn too_late(self, wanted: Option<&Patterns>, limit: Duration) -> Failure {
        let what = match wanted {
            Some(wanted) => format!("{wanted} did not appear on the console"),
            None => "the machine did not end".to_owned(),
        };
        let console = self.console.filter(|_| wanted.is_some());
        Failure::TimedOut { what, limit, source: None, exit: exit(self.end), console }
    }

    fn unread(self, limit: Duration) -> Failure {
        let what = "stdout did not take all of the console".to_owned();
        Failure::TimedOut { what, limit, source: None, exit: exit(self.end), console: None }
    }

    fn unsearchable(self, error: SearchError) -> Failure {
        Failure::Conversation {
            doing: "search the console".into(),
            source: Box::new(error),
            exit: exit(self.end),
        }
    }

    fn check_nothing_lost(&self) -> Result<(), Failure> {
        if self.copied.lost > 0 {
            let lost = format!("{} bytes came faster than they could be read", self.copied.lost);
            return Err(Failure::Incomplete(lost));
        }
        self.log_fault.clone().map_or(Ok(()), |fault| Err(Failure::Incomplete(fault)))
    }

    /// What was wanted is there. That QEMU, interrupted at its work, did not end well is no more than worth a word.
    fn remark_on_the_end(self) -> Option<Exit> {
        match &self.end {
            Ok(exit) if exit.success() => report::pass_on(&exit.log),
            Ok(exit) => report::remark(&exit.to_string()),
            Err(error) => report::remark(&error.to_string()),
        }
        exit(self.end).map(|exit| *exit)
    }

    fn check_the_end(self, wanted: Option<&Patterns>) -> Result<Exit, Failure> {
        let exit = self.end.map_err(Failure::Shutdown)?;
        let what = match (wanted, exit.shutdown_reason.as_deref()) {
            (Some(wanted), _) => format!("the machine ended before {wanted} appeared on its console"),
            (None, Some("guest-panic")) => "the guest panicked".to_owned(),
            (None, _) if !exit.success() => exit.to_string(),
            (None, _) => {
                report::pass_on(&exit.log);
                return Ok(exit);
            }
        };
        let console = self.console.filter(|_| wanted.is_some());
        Err(Failure::Ended { what, exit: Box::new(exit), console })
    }
}

/// How the process ended, well or not.
pub(crate) fn exit(end: Result<Exit, ShutdownError>) -> Option<Box<Exit>> {
    let exit = end.map_or_else(|error| error.exit().cloned(), Some);
    exit.map(Box::new)
}
