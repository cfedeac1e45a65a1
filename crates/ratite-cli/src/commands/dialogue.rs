//! What the verbs that speak QMP with a machine have in common: a session, what the machine says of itself, and what
//! becomes of errors.

use std::fmt::Display;
use std::time::Duration;
use std::time::Instant;

use ratite::qmp::Client;
use ratite::qmp::Disconnect;
use ratite::qmp::Error;
use ratite::qmp::ExecuteError;
use ratite::qmp::Options;
use ratite::qmp::Schema;
use ratite::qmp::within;

use crate::language::Mistake;
use crate::report::Failure;
use crate::target::Target;

/// A limit on several waits together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    limit: Duration,
}

impl Clock {
    pub(super) fn start(limit: Duration) -> Self {
        Self { started: Instant::now(), limit }
    }

    /// Waits as long as there is time left; `what` would be missing then.
    pub(super) async fn wait<T>(
        self,
        what: impl Display,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let left = self.limit.saturating_sub(self.started.elapsed());
        within(left, what, work).await.map_err(|over| timed_out(&over.what, self.limit))
    }
}

pub(super) fn timed_out(what: &str, limit: Duration) -> Failure {
    Failure::TimedOut { what: format!("no {what}"), limit, source: None, exit: None, console: None }
}

/// A session with a machine; a wait for it that is over is told as that.
pub(super) async fn connect(target: &Target, options: Options) -> Result<Client, Failure> {
    target.qmp(options).await.map_err(|failure| match failure {
        Failure::Conversation { source, doing, exit } => match source.downcast::<Error>() {
            Ok(error) => match *error {
                Error::TimedOut(over) => timed_out(&over.what, over.limit),
                error => Failure::Conversation { doing, source: Box::new(error), exit },
            },
            Err(source) => Failure::Conversation { doing, source, exit },
        },
        failure => failure,
    })
}

/// What the machine says of its commands; `None` if it does not.
pub(super) async fn schema(client: &Client) -> Result<Option<Schema>, Failure> {
    match client.execute_as("query-qmp-schema", ()).await {
        Ok(schema) => Ok(Some(schema)),
        Err(ExecuteError::Refused { .. } | ExecuteError::Malformed { .. }) => Ok(None),
        Err(error) => Err(failure(error)),
    }
}

/// Why a command has no value.
pub(super) fn failure(error: ExecuteError) -> Failure {
    match error {
        ExecuteError::TimedOut(over) => timed_out(&over.what, over.limit),
        error => {
            let command = match &error {
                ExecuteError::Refused { command, .. }
                | ExecuteError::Disconnected { command, .. }
                | ExecuteError::Malformed { command, .. } => format!(" `{command}`"),
                _ => String::new(),
            };
            Failure::Conversation { doing: format!("execute{command}"), source: Box::new(error), exit: None }
        }
    }
}

/// A mistake on the command line.
pub(super) fn usage(mistake: Mistake) -> Failure {
    Failure::Usage { problem: mistake.what, hint: mistake.hint.unwrap_or_default() }
}

/// A connection that has ended where it should not.
pub(super) fn gone(doing: &str, why: Disconnect) -> Failure {
    Failure::Conversation { doing: doing.into(), source: Box::new(why), exit: None }
}
