//! A driver for the shell of a guest: logs in, runs commands, and tells their output from all else on the console.
//!
//! Owns a reader of the console's record and its place in it. Needs nothing in the guest but a POSIX shell on a terminal: what
//! it types has the shell print marks around each command's output, which can be told from any echo, prompt or message.
//!
//! ```text
//!           attach, login                 run: types the command between two marks
//!  (new) ───────────────────► ready ─────────────────────────────────────► busy
//!                               ▲  ◄── the mark behind the output ──────────┤
//!                               │                                           │ the call ended before: cancelled, out of time
//!                               └── Ctrl-C, and a new mark is answered ─────┤
//!                                                                           ▼
//!                                            gone ◄── another shell answers, or the guest asks who logs in
//! ```

mod entry;
mod error;
mod login;
mod marks;
mod quoting;
mod seen;

use std::time::Duration;

use ratite_qmp::within;

use crate::console::Console;
use crate::console::ConsoleError;
use crate::pattern::Pattern;
use crate::text::plain_text;
use error::excerpt;
use login::Prompts;
use marks::Kind;
use marks::Mark;
use marks::Marks;
use quoting::Typed;
use seen::Seen;

pub use error::ShellError;
pub use error::ShellOutput;
pub use login::Login;

/// A shell in a guest, at whose prompt commands are run one after the other.
///
/// It reads the console at a place of its own, so everybody else reads all of it too; but what others type meanwhile disturbs
/// it. The shell keeps its state from one command to the next: folder, variables, functions.
///
/// - The commands are typed, so they are echoed and in the shell's history. What they print may have colours, no last line
///   end, or megabytes. A command that reads the terminal finds nothing there: give it `</dev/null` or a here-document.
/// - All that a command prints is kept in memory until it ends; for what has no bound, give it a file in the guest.
/// - What the kernel or a job in the background prints while a command runs is part of its output. A message of the kernel
///   cannot hide the end of a command from the driver.
/// - A call that is cancelled or runs out of time leaves its command running. The next call interrupts it with Ctrl-C first.
#[derive(Debug)]
pub struct Shell {
    console: Console,
    marks: Marks,
    /// Of the command that was typed last.
    number: u64,
    state: State,
    prompts: Prompts,
    /// What the shell's prompt looked like when it was last seen.
    prompt: String,
    /// What came behind the last mark.
    rest: Vec<u8>,
    /// Matches any byte.
    anything: Pattern,
}

#[derive(Debug)]
enum State {
    Ready,
    /// A command may be running.
    Busy,
    Gone {
        command: String,
        output: String,
    },
}

/// How long a guest says nothing before it is taken to wait for something.
const SETTLED: Duration = Duration::from_secs(1);

/// The same when what stands there is the very prompt that was there before.
const MOMENT: Duration = Duration::from_millis(200);

/// How long a terminal and a shell may take to show that they were interrupted, and how often they may show something.
const REACTION: Duration = Duration::from_millis(100);
const REACTIONS: usize = 20;

/// How often a shell is asked for the end of a command that it seems to have ended without saying so.
const QUESTIONS: usize = 3;

/// The most characters of a command in an error's message.
const NAME: usize = 60;

impl Shell {
    fn new(console: Console, prompts: Prompts) -> Self {
        let marks = Marks::new();
        Self {
            console,
            marks,
            number: 0,
            state: State::Ready,
            prompts,
            prompt: String::new(),
            rest: Vec::new(),
            anything: Pattern::regex("(?s).").expect("it is an expression"),
        }
    }

    /// Runs `command` and waits for its end, at most for `limit`.
    ///
    /// The command may be of any length and have quotes, several lines, here-documents, comments, or be put in the background; it
    /// is run by `eval` in the shell itself. Cancelling leaves it running, as a limit that is over does.
    ///
    /// # Errors
    /// [`ShellError::TimedOut`] with what it has printed; [`ShellError::Gone`] when the shell has ended, by `exit` or otherwise;
    /// [`ShellError::Ended`] when the console has, or the guest panicked; [`ShellError::Untypable`] for a NUL. A status other than 0 is no error here.
    pub async fn run(&mut self, command: &str, limit: Duration) -> Result<ShellOutput, ShellError> {
        if command.contains('\0') {
            return Err(ShellError::Untypable { what: "the command".into(), character: "NUL" });
        }
        let mut seen = Seen::default();
        let what = format!("end of `{}`", excerpt(command, NAME));
        match within(limit, what, self.exchange(command, &mut seen)).await {
            Ok(outcome) => outcome.map_err(|error| self.explained(error, command, &seen)),
            Err(wait) => {
                let output = if seen.has_begun() { seen.text() } else { String::new() };
                Err(ShellError::TimedOut { wait, output })
            }
        }
    }

    /// The same, but a status other than 0 is an error.
    ///
    /// # Errors
    /// [`ShellError::Failed`] with all that the command has brought; and as [`Shell::run`].
    pub async fn check(&mut self, command: &str, limit: Duration) -> Result<ShellOutput, ShellError> {
        let output = self.run(command, limit).await?;
        if output.success() {
            return Ok(output);
        }
        Err(ShellError::Failed { command: excerpt(command, NAME), output })
    }

    /// Ends what runs, with Ctrl-C, and waits at most `limit` until the shell answers again.
    ///
    /// Every call does this by itself when the one before was cancelled or ran out of time. A program that ignores Ctrl-C gets
    /// Ctrl-\ after some seconds.
    ///
    /// # Errors
    /// [`ShellError::TimedOut`]; [`ShellError::Gone`]; [`ShellError::Ended`].
    pub async fn interrupt(&mut self, limit: Duration) -> Result<(), ShellError> {
        let mut seen = Seen::default();
        let interrupted = within(limit, "answer of the shell to Ctrl-C", self.resync(&mut seen)).await;
        match interrupted {
            Ok(outcome) => outcome.map_err(|error| self.explained(error, "Ctrl-C", &seen)),
            Err(wait) => Err(ShellError::TimedOut { wait, output: seen.text() }),
        }
    }

    /// The console that the shell is on, read where the shell reads it.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    async fn exchange(&mut self, command: &str, seen: &mut Seen) -> Result<ShellOutput, ShellError> {
        match &self.state {
            State::Ready => {}
            State::Busy => self.resync(&mut Seen::default()).await?,
            State::Gone { command, output } => {
                return Err(ShellError::Gone { command: command.clone(), output: output.clone() });
            }
        }
        self.learn_prompt()?;
        // From the first byte that is typed on.
        self.state = State::Busy;
        self.number += 1;
        let typed = Typed::new(command);
        if typed.pieces.len() > 1 {
            self.type_pieces(&typed.pieces).await?;
        }
        self.console.write(self.marks.type_command(self.number, &typed.word())).await?;
        self.output(command, seen).await
    }

    /// Has the shell gather a long command, piece by piece, since a terminal takes only so much at once.
    async fn type_pieces(&self, pieces: &[String]) -> Result<(), ShellError> {
        let mut seen = Seen::default();
        for (index, piece) in pieces.iter().enumerate() {
            self.console.write(self.marks.type_piece(self.number, index, piece)).await?;
            while seen.next(&self.marks, self.number).is_none_or(|mark| mark.kind != Kind::Piece(index)) {
                self.read_more(&mut seen, Duration::MAX).await?;
            }
        }
        Ok(())
    }

    /// Reads until the command has ended.
    async fn output(&mut self, command: &str, seen: &mut Seen) -> Result<ShellOutput, ShellError> {
        // Where the output ended when the shell was asked for the first time.
        let mut asked = None;
        let mut questions = 0;
        loop {
            while let Some(mark) = seen.next(&self.marks, self.number) {
                let end = asked.map_or(mark.start, |place| seen.at_place(place));
                match mark.kind {
                    Kind::End(status) => return Ok(self.ended(seen, &mark, mark.start, status)),
                    Kind::Idle { status, same: true } => return Ok(self.ended(seen, &mark, end, status)),
                    Kind::Idle { same: false, .. } => {
                        return Err(self.gone(command, plain_text(seen.output(end))));
                    }
                    Kind::Probe | Kind::Piece(_) | Kind::Begin => {}
                }
            }
            let line = seen.last_line();
            let prompted = seen.has_begun() && !line.is_empty() && line == self.prompt;
            if self.read_more(seen, if prompted && questions == 0 { MOMENT } else { SETTLED }).await?
                || !seen.has_begun()
            {
                continue;
            }
            if self.prompts.asks_who(&line) {
                return Err(self.gone(command, seen.text()));
            }
            // A mistake in the command may have ended the whole line, and a new shell may have come.
            if (prompted || self.prompts.is_shell(&line)) && questions < QUESTIONS {
                questions += 1;
                asked.get_or_insert(seen.place_of(seen.last_line_start()));
                self.console.write(self.marks.type_question(self.number)).await?;
            }
        }
    }

    fn ended(&mut self, seen: &Seen, mark: &Mark, end: usize, status: i32) -> ShellOutput {
        self.state = State::Ready;
        self.rest = seen.behind(mark);
        // The terminal has echoed a question that was asked in vain: the command had only printed what looks like a prompt.
        let bytes = without_echo(seen.output(end), &self.marks.type_question(self.number));
        ShellOutput { output: plain_text(&bytes), bytes, status, dropped: seen.dropped }
    }

    fn gone(&mut self, command: &str, output: String) -> ShellError {
        let command = excerpt(command, NAME);
        self.state = State::Gone { command: command.clone(), output: output.clone() };
        ShellError::Gone { command, output }
    }

    /// Looks at what the shell has printed since the last command: the end of that is its prompt.
    fn learn_prompt(&mut self) -> Result<(), ShellError> {
        let mut rest = std::mem::take(&mut self.rest);
        match self.console.take() {
            Ok(bytes) => rest.extend(bytes),
            // Nobody has wanted it.
            Err(ConsoleError::Lagged { .. }) => rest = self.console.take().unwrap_or_default(),
            Err(error) => return Err(error.into()),
        }
        let text = plain_text(rest);
        let line = text.rsplit('\n').next().unwrap_or_default();
        if is_another(&self.prompt, line) {
            self.prompt = line.to_owned();
        }
        Ok(())
    }

    /// Ends what runs, until the shell answers.
    async fn resync(&mut self, seen: &mut Seen) -> Result<(), ShellError> {
        if let State::Gone { command, output } = &self.state {
            return Err(ShellError::Gone { command: command.clone(), output: output.clone() });
        }
        self.state = State::Busy;
        for attempt in 0_usize.. {
            // Ctrl-C, and for those who ignore it also Ctrl-\.
            let keys: &[u8] = if attempt < 2 { b"\x03" } else { b"\x03\x1c" };
            self.console.write(keys).await?;
            // A shell throws away what it reads while it is being interrupted.
            for _ in 0..REACTIONS {
                if !self.read_more(seen, REACTION).await? {
                    break;
                }
            }
            if self.probe(seen).await? {
                break;
            }
            if self.prompts.asks_who(&seen.last_line()) {
                return Err(self.gone("Ctrl-C", seen.text()));
            }
        }
        self.state = State::Ready;
        Ok(())
    }

    /// Has the shell answer; false if it says nothing more for a while.
    async fn probe(&mut self, seen: &mut Seen) -> Result<bool, ShellError> {
        self.number += 1;
        self.console.write(self.marks.type_probe(self.number)).await?;
        loop {
            if let Some(mark) = seen.next(&self.marks, self.number) {
                self.rest = seen.behind(&mark);
                return Ok(true);
            }
            if !self.read_more(seen, 2 * SETTLED).await? {
                return Ok(false);
            }
        }
    }

    /// Waits for more, at most for `quiet`; whether something has come.
    async fn read_more(&self, seen: &mut Seen, quiet: Duration) -> Result<bool, ShellError> {
        // Other than a read, this also ends with the machine, and tells how.
        match self.console.find(&self.anything, quiet).await {
            Ok(_found) => {}
            Err(ConsoleError::TimedOut { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        match self.console.take() {
            Ok(bytes) => seen.add(&bytes),
            Err(ConsoleError::Lagged { dropped }) => seen.dropped += dropped,
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// With what had come until then.
    fn explained(&self, error: ShellError, command: &str, seen: &Seen) -> ShellError {
        let output = if seen.has_begun() { seen.text() } else { plain_text(self.console.tail(1024).bytes) };
        error.at_the_end(&format!("the end of `{}`", excerpt(command, NAME)), output)
    }
}

/// Whether a line is another prompt than the one that is known, and not the beginning of that, of which the rest is still on
/// its way.
fn is_another(prompt: &str, line: &str) -> bool {
    !prompt.starts_with(line)
}

/// The bytes without what a terminal has echoed of a line that was typed.
fn without_echo(bytes: &[u8], typed: &str) -> Vec<u8> {
    let echo = typed.replace('\n', "\r\n");
    let mut rest = bytes;
    let mut kept = Vec::new();
    while let Some(at) = memchr::memmem::find(rest, echo.as_bytes()) {
        kept.extend_from_slice(&rest[..at]);
        rest = &rest[at + echo.len()..];
    }
    [kept.as_slice(), rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_prompt_is_not_another_one() {
        for line in ["", "gue", "guest# "] {
            assert!(!is_another("guest# ", line), "{line:?}");
        }
        for (prompt, line) in [("", "guest# "), ("guest# ", "guest$ "), ("# ", "/tmp # ")] {
            assert!(is_another(prompt, line), "{line:?}");
        }
    }
}
