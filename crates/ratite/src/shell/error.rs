//! What goes wrong between a driver and a shell, and what a command has brought.

use std::fmt;

use ratite_qmp::TimedOut;

use crate::console::ConsoleError;
use crate::error::write_report;
use crate::exit::Tail;

/// What a command has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShellOutput {
    /// What it printed, as plain text: see [`crate::plain_text`].
    pub output: String,
    /// What it printed, as the terminal brought it: lines end with `\r\n`.
    pub bytes: Vec<u8>,
    /// Its exit status, as in `$?`: 127 if there is no such command, 128 and more if a signal ended it.
    pub status: i32,
    /// How many bytes of the console were dropped meanwhile, since the program did not come to read them, or since there were
    /// more than 64 MiB: the output is not complete then.
    pub dropped: u64,
}

impl ShellOutput {
    /// Whether the status is 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == 0
    }
}

/// Why a shell did not do what it was told.
///
/// Its `Debug` is a report for people, with the causes and what had been printed, because that is what `unwrap` shows.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ShellError {
    /// It took too long. The shell can be used again: the next call interrupts what runs.
    #[error("{wait}{}", last_line(.output))]
    TimedOut {
        /// What was waited for.
        wait: TimedOut,
        /// What had come so far, as plain text.
        output: String,
    },
    /// The guest did not let this user in.
    #[error("the guest refused to log `{user}` in: {said}")]
    Refused {
        /// Who.
        user: String,
        /// What the guest said.
        said: String,
    },
    /// There is no shell, since the guest wants to know who logs in.
    #[error("there is no shell yet: the console says `{prompt}`")]
    LoginWanted {
        /// What stands on the console.
        prompt: String,
    },
    /// The shell is gone, or has been replaced by another, which can be taken with [`crate::Shell::attach`].
    #[error("the shell is gone since `{command}`{}", last_line(.output))]
    Gone {
        /// What it ran last.
        command: String,
        /// What that had printed, as plain text.
        output: String,
    },
    /// The console ended, or the guest panicked.
    #[error("{why}{}", last_line(.output))]
    Ended {
        /// [`ConsoleError::Ended`] or [`ConsoleError::GuestPanicked`].
        why: Box<ConsoleError>,
        /// What had come so far, as plain text.
        output: String,
    },
    /// A command has failed; told by [`crate::Shell::check`] only.
    #[error("`{command}` exited with status {}{}", .output.status, last_line(&.output.output))]
    Failed {
        /// The command, or its beginning.
        command: String,
        /// What it has brought.
        output: ShellOutput,
    },
    /// A command or a name has a character that cannot be typed.
    #[error("could not type {what}: it has a {character}")]
    Untypable {
        /// What.
        what: String,
        /// The name of the character.
        character: &'static str,
    },
    /// The console could not be read or written.
    #[error(transparent)]
    Console(#[from] ConsoleError),
}

impl ShellError {
    /// What had come so far, or what the command that failed has printed, as plain text, if the error has it.
    #[must_use]
    pub fn output(&self) -> Option<&str> {
        match self {
            Self::TimedOut { output, .. } | Self::Gone { output, .. } | Self::Ended { output, .. } => {
                Some(output)
            }
            Self::Failed { output, .. } => Some(&output.output),
            Self::Refused { .. } | Self::LoginWanted { .. } | Self::Untypable { .. } | Self::Console(_) => {
                None
            }
        }
    }

    /// Without a password that the guest has echoed.
    pub(super) fn without(mut self, password: &str) -> Self {
        match &mut self {
            Self::TimedOut { output, .. } => *output = output.replace(password, HIDDEN),
            Self::Refused { said, .. } => *said = said.replace(password, HIDDEN),
            Self::Ended { why, output } => {
                *output = output.replace(password, HIDDEN);
                why.hide(password, HIDDEN);
            }
            Self::Console(error) => error.hide(password, HIDDEN),
            _ => {}
        }
        self
    }

    /// If the console has ended: what was waited for, and what had come.
    pub(super) fn at_the_end(self, what: &str, output: String) -> Self {
        let what = what.to_owned();
        let why = match self {
            Self::Console(ConsoleError::Ended { exit, tail, .. }) => ConsoleError::Ended { what, exit, tail },
            Self::Console(ConsoleError::GuestPanicked { event, tail, .. }) => {
                ConsoleError::GuestPanicked { what, event, tail }
            }
            other => return other,
        };
        Self::Ended { why: Box::new(why), output }
    }
}

impl fmt::Debug for ShellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printed = match self {
            Self::Console(error) => error.tail().cloned(),
            _ => self.output().map(|output| Tail { bytes: output.trim_end().into(), omitted: 0 }),
        };
        write_report(f, self, &printed.unwrap_or_default().shortened(LAST_WORDS))
    }
}

/// How much of the output a report shows.
const LAST_WORDS: usize = 2 << 10;

/// What stands for a password.
const HIDDEN: &str = "(password)";

/// The last line that says something, as the end of a message.
fn last_line(output: &str) -> String {
    match output.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!("; last line: {}", excerpt(line, 200)),
        None => String::new(),
    }
}

/// The beginning of a text, on one line.
pub(super) fn excerpt(text: &str, length: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.len() < text.trim_end().len() => format!("{line}…"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_its_last_words() {
        let output = ShellOutput { output: "a\nbad thing\n\n".into(), bytes: vec![], status: 2, dropped: 0 };
        let error = ShellError::Failed { command: excerpt("make\ntest", 60), output };

        assert_eq!(error.to_string(), "`make…` exited with status 2; last line: bad thing");
        let report = "`make…` exited with status 2; last line: bad thing\n    | a\n    | bad thing";
        assert_eq!(format!("{error:?}"), report);
    }

    #[test]
    fn a_password_is_in_no_part_of_an_error() {
        let tail = Tail { bytes: b"\xffPassword: s3cret\r\n".to_vec(), omitted: 0 };
        let ended = ConsoleError::Ended { what: "a shell".into(), exit: None, tail };
        let error = ShellError::from(ended).at_the_end("a shell", "Password: s3cret\n".into());

        let error = error.without("s3cret");

        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        let ShellError::Ended { why, output } = error else { panic!("{error:?}") };
        assert_eq!(output, "Password: (password)\n");
        assert_eq!(why.tail().unwrap().bytes, b"\xffPassword: (password)\r\n");
    }
}
