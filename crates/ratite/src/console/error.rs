//! Why a console yields nothing, with what it said last.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::error::write_report;
use crate::exit::ProcessExit;
use crate::exit::Tail;
use crate::history::Match;
use crate::pattern::SearchError;

/// Why a console yields nothing.
///
/// Its `Debug` is a report for people, with the causes and the console's last lines, because that is what `unwrap` shows.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// It did not come in time.
    #[error("no {what} within {limit:?}")]
    TimedOut {
        /// What was waited for, as a noun phrase: "`login:` on the console".
        what: String,
        /// How long it was waited for.
        limit: Duration,
        /// The end of what the console said.
        tail: Tail,
    },
    /// The console's stream ended before it came.
    #[error("the console ended while waiting for {what}{}", because(*exit))]
    Ended {
        /// What was waited for.
        what: String,
        /// How QEMU ended, if that is why.
        exit: Option<ProcessExit>,
        /// The end of what the console said.
        tail: Tail,
    },
    /// Something appeared that means a failure ([`crate::Patterns::failing_on`]). It was taken, as a match is.
    #[error("{pattern} appeared on the console while waiting for {what}")]
    Failure {
        /// The pattern that means a failure.
        pattern: String,
        /// What was waited for.
        what: String,
        /// What was found, with what came before it.
        found: Box<Match>,
        /// The end of what the console said, up to now.
        tail: Tail,
    },
    /// QEMU told that the guest has panicked (its event GUEST_PANICKED), and it does not go on.
    #[error("the guest panicked while waiting for {what}")]
    GuestPanicked {
        /// What was waited for.
        what: String,
        /// What QEMU says of it, the event's `data`.
        event: serde_json::Value,
        /// The end of what the console said.
        tail: Tail,
    },
    /// Readers were too slow: the oldest unread bytes are gone. The next read goes on behind them.
    #[error("{dropped} bytes of the console were dropped because nobody read them")]
    Lagged {
        /// How many bytes.
        dropped: u64,
    },
    /// Writing failed.
    #[error("could not write to the console")]
    Write(#[source] io::Error),
    /// The pattern cannot be searched.
    #[error("could not search the console for {pattern}")]
    Search {
        /// The pattern.
        pattern: String,
        /// Why not.
        source: SearchError,
    },
}

fn because(exit: Option<ProcessExit>) -> String {
    exit.map_or_else(String::new, |exit| format!(": QEMU {exit}"))
}

impl ConsoleError {
    /// The end of what the console had said, if the error has it.
    #[must_use]
    pub fn tail(&self) -> Option<&Tail> {
        match self {
            Self::TimedOut { tail, .. }
            | Self::Ended { tail, .. }
            | Self::Failure { tail, .. }
            | Self::GuestPanicked { tail, .. } => Some(tail),
            Self::Lagged { .. } | Self::Write(_) | Self::Search { .. } => None,
        }
    }

    /// Puts something else in the place of `secret`, wherever it stands in what the console had said.
    pub(crate) fn hide(&mut self, secret: &str, instead: &str) {
        let (Self::TimedOut { tail, .. }
        | Self::Ended { tail, .. }
        | Self::Failure { tail, .. }
        | Self::GuestPanicked { tail, .. }) = self
        else {
            return;
        };
        let mut rest = tail.bytes.as_slice();
        let mut shown = Vec::with_capacity(rest.len());
        while let Some(at) = memchr::memmem::find(rest, secret.as_bytes()) {
            shown.extend_from_slice(&rest[..at]);
            shown.extend_from_slice(instead.as_bytes());
            rest = &rest[at + secret.len()..];
        }
        shown.extend_from_slice(rest);
        tail.bytes = shown;
    }
}

impl fmt::Debug for ConsoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_report(f, self, self.tail().unwrap_or(&Tail::default()))
    }
}
