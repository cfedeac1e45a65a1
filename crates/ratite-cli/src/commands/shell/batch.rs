//! Lines from a pipe: one reply a line on stdout, and an end at the first that fails.

use std::error::Error;
use std::io;
use std::time::Duration;

use ratite::qmp::Event;
use ratite::qmp::ExecuteError;
use ratite::qmp::ListenError;
use ratite::qmp::Listener;
use ratite::qmp::within;
use tokio::sync::mpsc;

use crate::commands::dialogue;
use crate::commands::shell::FAREWELL;
use crate::commands::shell::interpreter::Step;
use crate::commands::shell::say;
use crate::commands::shell::session::Session;
use crate::language::Mistake;
use crate::language::Request;
use crate::report;
use crate::report::Failure;
use crate::signals::Signals;

/// How lines from a pipe are worked through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) shows_events: bool,
    pub(super) keeps_going: bool,
}

/// Why a line failed.
enum Fault {
    Mistake(Mistake),
    Refused(Box<dyn Error + Send + Sync>),
    /// Nothing more can be done.
    Over(Failure),
}

impl Batch {
    /// Does what each line asks for, until there are no more.
    pub(super) async fn run(
        self,
        session: &mut Session,
        listener: &Listener,
        early: Vec<Event>,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        for event in early {
            self.hear(session, &event)?;
        }
        let mut lines = read_stdin().map_err(Failure::System)?;
        let mut failed = 0;
        for number in 1.. {
            let Some(line) = self.next_line(session, listener, signals, &mut lines).await? else { break };
            let line = line.map_err(|source| conversation("read stdin".into(), Box::new(source)))?;
            let doing = format!("do line {number}, `{}`", line.trim());
            let fault = match self.work(session, listener, signals, &line).await {
                Ok(true) => continue,
                Ok(false) => return finished(failed),
                Err(Fault::Over(failure)) => return Err(named(failure, number)),
                Err(Fault::Mistake(mistake)) => conversation(doing, Box::new(mistake)),
                Err(Fault::Refused(error)) => conversation(doing, error),
            };
            if !self.keeps_going {
                return Err(fault);
            }
            failed += 1;
            report::remark(&fault.in_a_line());
        }
        match session.is_in_transaction() {
            true => Err(conversation("end".into(), Box::new(Mistake::new("the transaction has no `)`")))),
            false => finished(failed),
        }
    }

    /// The next line; `None` when there are no more, or the machine has ended as it should.
    async fn next_line(
        self,
        session: &mut Session,
        listener: &Listener,
        signals: &mut Signals,
        lines: &mut mpsc::Receiver<io::Result<String>>,
    ) -> Result<Option<io::Result<String>>, Failure> {
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => return Err(Failure::Signal { signal, source: None }),
                line = lines.recv() => return Ok(line),
                event = listener.next(Duration::MAX) => match event {
                    Ok(event) => self.hear(session, &event)?,
                    Err(ListenError::Disconnected(_)) if session.expects_end() => {
                        // A script that has more lines has them ready; somebody who just keeps the pipe open is not
                        // waited for.
                        return Ok(within(FAREWELL, "line", lines.recv()).await.ok().flatten());
                    }
                    Err(ListenError::Disconnected(why)) => return Err(dialogue::gone("wait for more lines", why)),
                    Err(lagged) => self.lagged(&lagged),
                },
            }
        }
    }

    /// Does what a line asks for; whether there may be more.
    async fn work(
        self,
        session: &mut Session,
        listener: &Listener,
        signals: &mut Signals,
        line: &str,
    ) -> Result<bool, Fault> {
        let (request, cpu) = match session.read(line).map_err(Fault::Mistake)? {
            Step::Nothing => return Ok(true),
            Step::Leave => return Ok(false),
            Step::Say(text) => {
                say(&text).map_err(Fault::Over)?;
                return Ok(true);
            }
            Step::Send(request) => (request, None),
            Step::Choose(request, cpu) => (request, Some(cpu)),
        };
        if let Some(echo) = session.echo(&request) {
            report::remark(&echo);
        }
        let executed = tokio::select! {
            biased;
            signal = signals.next() => return Err(Fault::Over(Failure::Signal { signal, source: None })),
            executed = session.execute(&request) => executed,
        };
        // What came before the reply is told before it.
        self.hear_all(session, listener).map_err(Fault::Over)?;
        self.conclude(session, &request, cpu, executed)
    }

    fn conclude(
        self,
        session: &mut Session,
        request: &Request,
        cpu: Option<u64>,
        executed: Result<ratite::qmp::Reply, ExecuteError>,
    ) -> Result<bool, Fault> {
        let reply = match executed {
            Ok(reply) => reply,
            Err(ExecuteError::Disconnected { .. }) if session.quits(request) => return Ok(true),
            Err(error @ (ExecuteError::Disconnected { .. } | ExecuteError::TimedOut(_))) => {
                return Err(Fault::Over(dialogue::failure(error)));
            }
            Err(error) => return Err(Fault::Refused(Box::new(error))),
        };
        match (cpu, reply.error()) {
            (_, Some(error)) => {
                say(&session.answer(&reply)).map_err(Fault::Over)?;
                let error = ExecuteError::Refused { command: request.name.clone(), source: error.clone() };
                Err(Fault::Refused(Box::new(error)))
            }
            (Some(cpu), None) => {
                session.choose(cpu);
                Ok(true)
            }
            (None, None) => say(&session.answer(&reply)).map(|()| true).map_err(Fault::Over),
        }
    }

    fn hear_all(self, session: &mut Session, listener: &Listener) -> Result<(), Failure> {
        loop {
            match listener.try_next() {
                Ok(Some(event)) => self.hear(session, &event)?,
                Err(lagged @ ListenError::Lagged { .. }) => self.lagged(&lagged),
                _ => return Ok(()),
            }
        }
    }

    fn hear(self, session: &mut Session, event: &Event) -> Result<(), Failure> {
        let shown = session.hear(event);
        if self.shows_events { say(&shown) } else { Ok(()) }
    }

    fn lagged(self, lagged: &ListenError) {
        if self.shows_events {
            report::remark(&lagged.to_string());
        }
    }
}

fn conversation(doing: String, source: Box<dyn Error + Send + Sync>) -> Failure {
    Failure::Conversation { doing, source, exit: None }
}

fn finished(failed: u64) -> Result<(), Failure> {
    match failed {
        0 => Ok(()),
        failed => Err(Failure::Lines { failed }),
    }
}

/// Says which line it was.
fn named(failure: Failure, number: u64) -> Failure {
    match failure {
        Failure::TimedOut { what, limit, source, exit, console } => {
            Failure::TimedOut { what: format!("line {number}: {what}"), limit, source, exit, console }
        }
        Failure::Conversation { doing, source, exit } => {
            Failure::Conversation { doing: format!("do line {number}: could not {doing}"), source, exit }
        }
        failure => failure,
    }
}

/// The lines of stdin, by a thread that waits for them.
fn read_stdin() -> io::Result<mpsc::Receiver<io::Result<String>>> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::Builder::new().name("ratite-stdin".into()).spawn(move || {
        for line in io::stdin().lines() {
            // Nobody receives them any more when the shell is left.
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(lines)
}
