//! Somebody at a terminal: prompts, replies, and events as they come.

use std::env;
use std::fs::DirBuilder;
use std::io;
use std::io::IsTerminal;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use ratite::qmp::Disconnect;
use ratite::qmp::Event;
use ratite::qmp::ExecuteError;
use ratite::qmp::ListenError;
use ratite::qmp::Listener;
use ratite::qmp::Reply;

use crate::commands::dialogue;
use crate::commands::shell::edit::Editing;
use crate::commands::shell::edit::Typed;
use crate::commands::shell::interpreter::Step;
use crate::commands::shell::say;
use crate::commands::shell::session::Session;
use crate::language::Request;
use crate::report;
use crate::report::Failure;
use crate::signals::Signal;
use crate::signals::Signals;

/// How a conversation ended.
enum End {
    /// The user has left.
    Left,
    /// The machine is gone.
    Gone(Disconnect),
}

/// Converses until the user leaves, or the machine is gone.
pub(super) async fn converse(
    session: &mut Session,
    listener: &Listener,
    early: Vec<Event>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        say(&session.banner())?;
    }
    for event in early {
        say(&session.hear(&event))?;
    }
    let mut editing = Editing::start(session.vocabulary.clone(), history()).map_err(terminal)?;
    let ended = Conversation { session, listener, editing: &mut editing }.run(signals).await;
    let unprinted = editing.leave().await;
    let ended = ended?;
    say(&unprinted.unwrap_or_default())?;
    while let Ok(Some(event)) = listener.try_next() {
        say(&session.hear(&event))?;
    }
    match ended {
        End::Left => Ok(()),
        End::Gone(Disconnect::ByPeer) if session.expects_end() => {
            report::remark("the machine has ended");
            Ok(())
        }
        End::Gone(why) => Err(dialogue::gone("speak with the machine any longer", why)),
    }
}

struct Conversation<'a> {
    session: &'a mut Session,
    listener: &'a Listener,
    editing: &'a mut Editing,
}

impl Conversation<'_> {
    async fn run(&mut self, signals: &mut Signals) -> Result<End, Failure> {
        loop {
            if let Some(why) = self.session.client.ended() {
                self.waiting_events()?;
                return Ok(End::Gone(why));
            }
            self.editing.prompt(self.session.prompt(), self.session.is_in_transaction());
            let line = match self.typed(signals).await? {
                Ok(Typed::Line(line)) => line,
                Ok(Typed::Interrupted) => {
                    if self.session.abandon() {
                        report::remark("the transaction is given up");
                    }
                    continue;
                }
                Ok(Typed::End) => return Ok(End::Left),
                Ok(Typed::Failed(error)) => return Err(terminal(error)),
                Err(why) => return Ok(End::Gone(why)),
            };
            match self.session.read(&line) {
                Ok(Step::Nothing) => self.waiting_events()?,
                Ok(Step::Leave) => return Ok(End::Left),
                Ok(Step::Say(text)) => say(&text)?,
                Ok(Step::Send(request)) => self.send(&request, None, signals).await?,
                Ok(Step::Choose(request, cpu)) => self.send(&request, Some(cpu), signals).await?,
                Err(mistake) => complain(&mistake.to_string()),
            }
        }
    }

    /// Waits for a line, and prints events above it meanwhile; or why there are no more.
    async fn typed(&mut self, signals: &mut Signals) -> Result<Result<Typed, Disconnect>, Failure> {
        let mut is_given_up = false;
        loop {
            let is_printing = self.editing.is_printing();
            let can_print = self.editing.can_print();
            tokio::select! {
                biased;
                signal = signals.next() => match signal {
                    // While a line is written, the editor has it. So it came just before, for a wait that is over, or
                    // just behind Enter.
                    Signal::Interrupt => is_given_up = self.editing.has_begun(),
                    signal => return Err(Failure::Signal { signal, source: None }),
                },
                news = self.editing.news() => match news {
                    Some(Typed::Line(_)) if is_given_up => return Ok(Ok(Typed::Interrupted)),
                    Some(typed) => return Ok(Ok(typed)),
                    None => {}
                },
                event = self.listener.next(Duration::MAX), if can_print && !is_printing => {
                    match self.told(event) {
                        Ok(text) => self.editing.print(text),
                        Err(why) => return Ok(Err(why)),
                    }
                }
                // What the machine said last is shown when the line has been left.
                why = self.session.client.closed(), if !can_print || is_printing => return Ok(Err(why)),
            }
        }
    }

    /// Sends a request and shows its reply; events that come before it are shown before it.
    async fn send(
        &mut self,
        request: &Request,
        cpu: Option<u64>,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        if let Some(echo) = self.session.echo(request) {
            say(&echo)?;
        }
        let executed = tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::Interrupt => None,
                signal => return Err(Failure::Signal { signal, source: None }),
            },
            executed = self.session.execute(request) => Some(executed),
        };
        self.waiting_events()?;
        match executed {
            None => {
                complain(&format!(
                    "the wait for the reply to `{}` is given up; QEMU may do it all the same",
                    request.name
                ));
                Ok(())
            }
            // The next wait for a line tells it.
            Some(Err(ExecuteError::Disconnected { .. })) => Ok(()),
            Some(Err(error)) => {
                complain(&dialogue::failure(error).in_a_line());
                Ok(())
            }
            Some(Ok(reply)) => self.answer(&reply, cpu),
        }
    }

    fn answer(&mut self, reply: &Reply, cpu: Option<u64>) -> Result<(), Failure> {
        match (cpu, reply.error()) {
            (Some(cpu), None) => {
                self.session.choose(cpu);
                Ok(())
            }
            _ => say(&self.session.answer(reply)),
        }
    }

    /// Shows the events that are there, while no line is being written.
    fn waiting_events(&mut self) -> Result<(), Failure> {
        loop {
            let next = match self.listener.try_next() {
                Ok(Some(event)) => Ok(event),
                Ok(None) | Err(ListenError::Disconnected(_)) => return Ok(()),
                Err(lagged) => Err(lagged),
            };
            if let Ok(text) = self.told(next) {
                say(&text)?;
            }
        }
    }

    /// An event as it is shown; or why there are no more.
    fn told(&mut self, event: Result<Event, ListenError>) -> Result<String, Disconnect> {
        match event {
            Ok(event) => Ok(self.session.hear(&event) + "\n"),
            Err(ListenError::Disconnected(why)) => Err(why),
            Err(lagged) => Ok(format!("note: {lagged}\n")),
        }
    }
}

fn complain(what: &str) {
    report::remark(what);
}

fn terminal(error: io::Error) -> Failure {
    Failure::Conversation { doing: "read from the terminal".into(), source: Box::new(error), exit: None }
}

/// The file that remembers lines, in a folder that is made if there is none.
fn history() -> Option<PathBuf> {
    let named = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = named("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let folder = state.or_else(|| named("HOME").map(|home| home.join(".local/state")))?.join("ratite");
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
    Some(folder.join("shell-history"))
}
