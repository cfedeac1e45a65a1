//! How a command ends: what went wrong, how it is told on stderr, and the exit code.
//!
//! ```text
//! error: what could not be done
//!   caused by: why, once for each cause
//!     | QEMU's last words
//!   command: what was run, for a shell
//! hint: what can be done about it
//! ```

use std::error::Error;
use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use ratite::AcceleratorError;
use ratite::Asked;
use ratite::CacheError;
use ratite::CommandLine;
use ratite::Exit;
use ratite::LaunchError;
use ratite::ShutdownError;
use ratite::SpawnError;
use ratite::Tail;
use ratite::qmp;
use ratite::qmp::AgentError;
use ratite::qmp::CommandError;
use ratite::qmp::ExecuteError;
use ratite::qmp::GuestExit;
use ratite::reach::ReachError;

use crate::hints;
use crate::output::Paint;
use crate::progress;
use crate::signals::Signal;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong, or asks for help.
    #[error("the command line is wrong")]
    Arguments(#[source] clap::Error),
    /// The command line is wrong in a way that clap cannot see.
    #[error("{problem}")]
    Usage { problem: String, hint: String },
    /// A QEMU does not tell its accelerators.
    #[error(transparent)]
    Accelerators(AcceleratorError),
    /// No accelerator is of use; why not was told on stdout.
    #[error("no accelerator of `{binary}` is known to be usable")]
    NoneUsable { binary: String },
    /// `ratite doctor` has found something without which nothing runs; what, was told on stdout.
    #[error("machines cannot be run here: {why}")]
    CannotRun { why: &'static str },
    /// The machine did not start.
    #[error(transparent)]
    Launch(LaunchError),
    /// The machine ended otherwise than it should.
    #[error("{what}")]
    Ended { what: String, exit: Box<Exit>, console: Option<Tail> },
    /// What means a failure happened while it ran.
    #[error("{what}")]
    Failed { what: String, exit: Option<Box<Exit>>, console: Option<Tail> },
    /// All went well, but the picture that was wanted of it is not there.
    #[error("there is no screenshot: {why}")]
    NoScreenshot { why: String },
    /// A file that the user names is not to be had.
    #[error("could not {doing} `{}`", path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    /// The machine could not be ended well.
    #[error(transparent)]
    Shutdown(ShutdownError),
    /// Something went wrong with a machine that ran; how it ended says more.
    #[error("could not {doing}")]
    Conversation { doing: String, source: Box<dyn Error + Send + Sync>, exit: Option<Box<Exit>> },
    /// A machine of another program is not to be had, or does not do what it should.
    #[error("{error}")]
    Reach {
        error: Box<ReachError>,
        /// What may help.
        hint: Option<String>,
    },
    /// No machine came of a template.
    #[error("could not make a machine of the template {name:?}")]
    NotSpawned { name: String, error: Box<SpawnError>, hint: Option<String> },
    /// A template is not to be had, or could not be made or removed.
    #[error("{error}")]
    Template { error: Box<CacheError>, hint: Option<String> },
    /// A machine of another program ended otherwise than it should.
    #[error("the machine did not end well: {how}")]
    EndedBadly { how: String },
    /// stdin cannot be read.
    #[error("could not read stdin")]
    Input(#[source] io::Error),
    /// What was asked for is not in the machine.
    #[error("{problem}")]
    NotThere { problem: String, source: Option<CommandError>, hint: String },
    /// A program in the guest ended otherwise than well.
    #[error("`{path}` {exit} in the guest")]
    Program { path: String, exit: GuestExit },
    /// A program in the guest ended otherwise than well, and that is told by the exit code alone.
    #[error("the guest's program ended with {code}")]
    Guests { code: u8 },
    /// The user's own limit is over.
    #[error("{what} within {limit:?}")]
    TimedOut {
        what: String,
        limit: Duration,
        /// If that was before it ran.
        source: Option<LaunchError>,
        exit: Option<Box<Exit>>,
        console: Option<Tail>,
    },
    /// stdout takes no more.
    #[error("could not write to stdout")]
    Output(#[source] io::Error),
    /// The console is not written completely to where it should.
    #[error("the console is not complete: {0}")]
    Incomplete(String),
    /// The system lacks what the program itself needs.
    #[error("could not begin")]
    System(#[source] io::Error),
    /// Of the lines that a pipe brought, some could not be done; which ones was told.
    #[error("{failed} {} could not be done", if *.failed == 1 { "line" } else { "lines" })]
    Lines { failed: u64 },
    /// A signal ended the run.
    #[error("ended by {signal}")]
    Signal {
        signal: Signal,
        /// What was not well about the machine's end.
        source: Option<ShutdownError>,
    },
    /// The program itself is wrong.
    #[error("a bug in ratite: {0}")]
    Bug(String),
}

/// The program's exit code. The one table; the help text and the guide show it.
pub(crate) fn exit_code<T>(outcome: &Result<T, Failure>) -> u8 {
    match outcome {
        Ok(_) => 0,
        Err(Failure::Arguments(error)) if !error.use_stderr() => 0,
        Err(Failure::Reach { error, .. })
            if matches!(**error, ReachError::TimedOut(_)) || is_time_over(&**error) =>
        {
            4
        }
        Err(Failure::Template { error, .. }) if matches!(**error, CacheError::Busy(_)) => 4,
        Err(
            Failure::Ended { .. }
            | Failure::Failed { .. }
            | Failure::NoScreenshot { .. }
            | Failure::CannotRun { .. }
            | Failure::Shutdown(_)
            | Failure::Program { .. }
            | Failure::NotThere { .. }
            | Failure::Input(_)
            | Failure::Output(_)
            | Failure::Incomplete(_)
            | Failure::System(_)
            | Failure::Accelerators(_)
            | Failure::NoneUsable { .. }
            | Failure::Lines { .. }
            | Failure::Reach { .. }
            | Failure::Template { .. }
            | Failure::EndedBadly { .. },
        ) => 1,
        Err(Failure::Conversation { source, .. }) => {
            if is_time_over(&**source) {
                4
            } else {
                1
            }
        }
        Err(Failure::Guests { code }) => *code,
        Err(Failure::Arguments(_) | Failure::Usage { .. }) => 2,
        Err(Failure::Launch(_) | Failure::File { .. } | Failure::NotSpawned { .. }) => 3,
        Err(Failure::TimedOut { .. }) => 4,
        Err(Failure::Bug(_)) => 70,
        Err(Failure::Signal { signal, .. }) => 128 + signal.number(),
    }
}

/// Whether a peer did not answer in time.
fn is_time_over(error: &(dyn Error + 'static)) -> bool {
    match (error.downcast_ref(), error.downcast_ref(), error.downcast_ref()) {
        (Some(agent), _, _) => AgentError::is_timed_out(agent),
        (_, Some(command), _) => matches!(command, ExecuteError::TimedOut(_)),
        (_, _, Some(session)) => matches!(session, qmp::Error::TimedOut(_)),
        _ => error.source().is_some_and(is_time_over),
    }
}

impl Failure {
    /// stdout took no more; a reader that went away ends the program as SIGPIPE would.
    pub(crate) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Signal { signal: Signal::Pipe, source: None },
            _ => Self::Output(error),
        }
    }

    /// How the process ended, if there was one and it has.
    pub(crate) fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Ended { exit, .. } => Some(exit),
            Self::Conversation { exit, .. } | Self::TimedOut { exit, .. } | Self::Failed { exit, .. } => {
                exit.as_deref()
            }
            Self::Shutdown(error) => error.exit(),
            Self::Signal { source, .. } => source.as_ref()?.exit(),
            _ => None,
        }
    }

    /// What QEMU said.
    pub(crate) fn words(&self) -> Option<&Tail> {
        match self {
            Self::Launch(error) => Some(error.log()),
            Self::Accelerators(AcceleratorError::NoList { said, .. }) => Some(said),
            Self::NotSpawned { error, .. } => match &**error {
                SpawnError::Restore { log, .. } => Some(log),
                _ => None,
            },
            Self::TimedOut { source: Some(error), .. } => Some(error.log()),
            other => other.exit().map(|exit| &exit.log),
        }
    }

    /// What was run.
    pub(crate) fn command_line(&self) -> Option<&CommandLine> {
        match self {
            Self::Launch(error) => error.command_line(),
            Self::TimedOut { source: Some(error), .. } => error.command_line(),
            other => other.exit().map(|exit| &exit.command_line),
        }
    }

    fn console(&self) -> Option<&Tail> {
        match self {
            Self::Ended { console, .. } | Self::TimedOut { console, .. } | Self::Failed { console, .. } => {
                console.as_ref()
            }
            _ => None,
        }
    }

    /// The causes, nearest first; none repeats what was said before it.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut said = self.to_string();
        let mut causes = Vec::new();
        let mut source = match self {
            Self::Reach { error, .. } => error.source(),
            Self::Template { error, .. } => error.source(),
            Self::NotSpawned { error, .. } => match &**error {
                SpawnError::Template(error) => Some(error as &dyn Error),
                other => Some(other as &dyn Error),
            },
            other => other.source(),
        };
        while let Some(cause) = source {
            let text = cause.to_string();
            if !said.contains(&text) {
                said.push_str(&text);
                causes.push(text);
            }
            source = cause.source();
        }
        // An end that ratite brought about is no cause.
        let ended = self.exit().filter(|exit| exit.asked != Asked::Us).map(Exit::to_string);
        causes.extend(ended.filter(|ended| !said.contains(ended)));
        causes
    }
}

impl Failure {
    /// What went wrong and why, in one line.
    pub(crate) fn in_a_line(&self) -> String {
        [vec![self.to_string()], self.causes()].concat().join(": ")
    }
}

/// Tells how it ended on stderr, if there is something to tell.
pub(crate) fn show(outcome: &Result<(), Failure>) {
    progress::clear();
    let stderr = io::stderr();
    let paint = Paint::of(&stderr);
    let told = match outcome {
        Ok(()) | Err(Failure::Guests { .. }) => return,
        Err(Failure::Arguments(error)) => error.print(),
        // Whoever closed stdout knows, and a terminal that is gone cannot be told.
        Err(Failure::Signal { signal: Signal::Pipe, source: None }) => return,
        Err(failure) => stderr.lock().write_all(text(failure, paint).as_bytes()),
    };
    // There is nobody left to tell; the exit code remains.
    let _unheard = told;
}

/// A line of talk on stderr, beside the data on stdout.
pub(crate) fn remark(text: &str) {
    progress::clear();
    let stderr = io::stderr();
    let label = Paint::of(&stderr).cyan("note:");
    // Talk that nobody hears changes nothing.
    let _unheard = writeln!(stderr.lock(), "{label} {text}");
}

/// What QEMU itself has said, after a run that went well.
pub(crate) fn pass_on(words: &Tail) {
    progress::clear();
    // Talk that nobody hears changes nothing.
    let _unheard = io::stderr().lock().write_all(&words.bytes);
}

fn text(failure: &Failure, paint: Paint) -> String {
    let mut text = format!("{} {failure}\n", paint.red("error:"));
    for cause in failure.causes() {
        text += &format!("  caused by: {cause}\n");
    }
    if let Some(words) = failure.words() {
        text += &last_lines(words, WORDS_SHOWN);
    }
    if let Some(console) = failure.console() {
        match last_lines(console, CONSOLE_SHOWN) {
            lines if lines.is_empty() => text += "  the console: not a byte\n",
            lines => text += &format!("  the console:\n{lines}"),
        }
    }
    if let Some(command_line) = failure.command_line() {
        text += &format!("  command: {}\n", shortened(&command_line.to_string()));
    }
    for hint in hints::of(failure) {
        text += &format!("{} {hint}\n", paint.cyan("hint:"));
    }
    text
}

/// A command line in which no single word fills the screen.
fn shortened(command_line: &str) -> String {
    let words = command_line.split(' ').map(|word| match word.char_indices().nth(LONGEST_WORD) {
        Some(_) => word.chars().take(SHOWN_OF_LONGER).chain(['…']).collect(),
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// How many characters a word may have that is shown whole, and what is shown of a longer one.
const LONGEST_WORD: usize = 1000;
const SHOWN_OF_LONGER: usize = 60;

/// How many lines of QEMU's last words are shown: with the rest of a report they fit on a screen.
const WORDS_SHOWN: usize = 20;

/// How many lines of the console are shown; all of it is on stdout.
const CONSOLE_SHOWN: usize = 5;

/// At most the last `limit` lines, each behind a bar.
fn last_lines(tail: &Tail, limit: usize) -> String {
    let text = tail.text();
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let before = lines.len().saturating_sub(limit);
    let mut shown = match (before, tail.omitted) {
        (0, 0) => String::new(),
        _ => "    | …\n".to_owned(),
    };
    for line in &lines[before..] {
        // What a terminal would obey is no text.
        let line = line.replace(|character: char| character.is_control() && character != '\t', "·");
        shown += format!("    | {line}").trim_end();
        shown.push('\n');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratite::qmp::TimedOut;

    fn tail(text: &str) -> Tail {
        let mut tail = Tail::default();
        tail.bytes = text.into();
        tail
    }

    #[test]
    fn of_many_lines_the_last_are_shown() {
        assert_eq!(
            last_lines(&tail("one\ntwo\r\n\nthree\n\n"), 9),
            "    | one\n    | two\n    |\n    | three\n"
        );
        assert_eq!(last_lines(&tail("one\ntwo\nthree\n"), 2), "    | …\n    | two\n    | three\n");
        assert_eq!(last_lines(&tail("a\u{1b}[31mb"), 2), "    | a·[31mb\n");
        assert_eq!(last_lines(&tail("\n"), 2), "");
    }

    #[test]
    fn a_word_that_fills_the_screen_is_shortened() {
        let word = "ü".repeat(LONGEST_WORD);
        let start = "ü".repeat(SHOWN_OF_LONGER);

        assert_eq!(shortened(&format!("qemu {word}x y")), format!("qemu {start}… y"));
        assert_eq!(shortened(&word), word);
    }

    #[test]
    fn a_machine_with_a_name_that_does_not_answer_in_time_is_a_time_over() {
        let over = TimedOut { what: "QMP session".into(), limit: Duration::from_secs(1) };
        let source = qmp::Error::TimedOut(over);

        let error = Box::new(ReachError::Qmp { name: "web".into(), source });

        assert_eq!(exit_code::<()>(&Err(Failure::Reach { error, hint: None })), 4);
    }

    #[test]
    fn a_cause_is_said_once() {
        let failure = Failure::Conversation {
            doing: "speak".into(),
            source: Box::new(io::Error::other(io::Error::other("no air"))),
            exit: None,
        };

        assert_eq!(failure.causes(), ["no air"]);
        assert_eq!(text(&failure, Paint::NONE), "error: could not speak\n  caused by: no air\n");
    }
}
