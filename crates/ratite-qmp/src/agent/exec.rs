//! Programs that the agent runs in the guest.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use crate::agent::Agent;
use crate::agent::AgentError;
use crate::agent::Clock;
use crate::agent::command;
use crate::agent::files::Base64;

/// A program to be run in the guest: its path, its arguments, and what surrounds it.
///
/// ```
/// use ratite_qmp::GuestProgram;
///
/// let sort = GuestProgram::new("/usr/bin/sort").arg("-n").input("3\n1\n2\n");
/// # drop(sort);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GuestProgram {
    path: String,
    #[serde(rename = "arg")]
    args: Vec<String>,
    /// Absent, the program has the agent's own.
    #[serde(rename = "env", skip_serializing_if = "Option::is_none")]
    environment: Option<Vec<String>>,
    #[serde(rename = "input-data", skip_serializing_if = "Option::is_none")]
    input: Option<Base64>,
    #[serde(rename = "capture-output")]
    capture: bool,
}

/// How a program in the guest ended, and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestOutput {
    /// How it ended.
    pub exit: GuestExit,
    /// What it wrote to stdout; an agent keeps the first 16 MiB.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr; an agent keeps the first 16 MiB.
    pub stderr: Vec<u8>,
    /// Whether it wrote more to stdout.
    pub stdout_truncated: bool,
    /// Whether it wrote more to stderr.
    pub stderr_truncated: bool,
}

/// How a program in the guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestExit {
    /// It exited with this code.
    Code(i64),
    /// This signal ended it; in a Windows guest, the number of an exception.
    Signal(i64),
}

/// After how long the program is asked after for the first time; then after twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// What the last question may take, which comes when the limit is over.
const LAST_QUESTION: Duration = Duration::from_secs(1);

/// The longest pause: what a program may take longer than it needs.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl GuestProgram {
    /// The program at `path`, or of that name in the agent's PATH. Its output is captured.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), capture: true, ..Self::default() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: Into<String>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable. With the first one, the program's environment is no longer the agent's: it has these alone.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.get_or_insert_default().push(format!("{name}={value}"));
        self
    }

    /// What it reads from stdin; nothing by default.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(Base64(input.into()));
        self
    }

    /// Lets its output go: [`GuestOutput::stdout`] and [`GuestOutput::stderr`] stay empty.
    #[must_use]
    pub fn without_output(mut self) -> Self {
        self.capture = false;
        self
    }
}

impl GuestOutput {
    /// What it wrote to stdout, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Whether it exited with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit == GuestExit::Code(0)
    }
}

impl fmt::Display for GuestExit {
    /// "exited with code 3", "was ended by signal 9".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

impl Agent {
    /// Runs a program in the guest and waits at most `limit` for its end.
    ///
    /// The agent tells of an end only when it is asked. It is asked after 10 ms, then after twice as long each time,
    /// at most every 500 ms, and once more when the limit is over, for at most 1 s. Each question has the handle's own
    /// limit, too. A program that is given up, because the limit is over or the future was dropped, runs on.
    ///
    /// # Errors
    /// [`AgentError::StillRuns`] when the limit is over; [`AgentError::Refused`] for a program that cannot be started.
    pub async fn exec(&self, program: &GuestProgram, limit: Duration) -> Result<GuestOutput, AgentError> {
        let clock = Clock::start(limit);
        let start = command("guest-exec", program)?;
        let Started { pid } = self.ask(start, self.limit.min(limit)).await?;
        let still_runs = || AgentError::StillRuns { path: program.path.clone(), pid, limit };
        let mut pause = FIRST_PAUSE;
        loop {
            #[expect(
                clippy::disallowed_methods,
                reason = "a backoff: an agent tells of an end only when it is asked"
            )]
            tokio::time::sleep(pause.min(clock.left())).await;
            let is_last = clock.left().is_zero();
            let question = command("guest-exec-status", json!({ "pid": pid }))?;
            let status = self.ask(question, self.limit.min(clock.left().max(LAST_QUESTION))).await;
            match status {
                Err(error) if is_last && error.is_timed_out() => return Err(still_runs()),
                Err(error) => return Err(error),
                Ok(Status { exited: false, .. }) if is_last => return Err(still_runs()),
                Ok(Status { exited: false, .. }) => pause = (pause * 2).min(LONGEST_PAUSE),
                Ok(status) => return Ok(status.into()),
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct Started {
    pid: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Status {
    exited: bool,
    exitcode: Option<i64>,
    signal: Option<i64>,
    out_data: Base64,
    err_data: Base64,
    out_truncated: bool,
    err_truncated: bool,
}

impl From<Status> for GuestOutput {
    fn from(status: Status) -> Self {
        let exit = match (status.exitcode, status.signal) {
            (None, Some(signal)) => GuestExit::Signal(signal),
            (code, _) => GuestExit::Code(code.unwrap_or_default()),
        };
        Self {
            exit,
            stdout: status.out_data.0,
            stderr: status.err_data.0,
            stdout_truncated: status.out_truncated,
            stderr_truncated: status.err_truncated,
        }
    }
}
