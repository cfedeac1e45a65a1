//! `ratite shell`: QMP line by line, for people at a terminal and for scripts behind a pipe.
//!
//! ```text
//! line ─► interpreter (pure: words, transactions, HMP) ─► Step ─► session ─► reply ─► shown
//!   ▲                                                                          │
//!   └── human: a thread that edits lines, events above the line ◄──────────────┤
//!   └── batch: a thread that reads lines; stops at the first that fails ◄──────┘
//! ```

mod batch;
mod edit;
mod help;
mod hmp;
mod human;
mod interpreter;
mod session;
mod transcript;

use std::env;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::time::Duration;

use ratite::Exit;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::ShutdownError;
use ratite::qmp::Address;
use ratite::qmp::Event;
use ratite::qmp::EventFilter;
use ratite::qmp::Listener;
use ratite::qmp::Options;
use ratite::qmp::Transcript;

use crate::args::Shell;
use crate::commands::dialogue;
use crate::commands::shell::session::Session;
use crate::report;
use crate::report::Failure;
use crate::signals::Signals;
use crate::target::Target;

/// Where `qmp-shell`, too, looks for the address of a machine.
const DEFAULT_TARGET: &str = "QMP_SOCKET";

/// Speaks with a machine until the user leaves, or the machine is gone.
pub(crate) async fn shell(shell: Shell, signals: &mut Signals) -> Result<(), Failure> {
    let transcript = shell.logfile.as_deref().map(transcript::into_file).transpose()?;
    match shell.command.is_empty() {
        true => {
            let target = target(&shell)?;
            let opening = open(&shell, &target, transcript);
            let (mut session, listener) = unless_signalled(signals, opening).await?;
            converse(&shell, &mut session, &listener, Vec::new(), signals).await
        }
        false => with_machine(&shell, transcript, signals).await,
    }
}

fn target(shell: &Shell) -> Result<Target, Failure> {
    if let Some(target) = &shell.target {
        return Ok(target.clone());
    }
    let usage = |problem: String| Failure::Usage {
        problem,
        hint: format!(
            "`ratite shell ./qmp.sock`, or `ratite shell -- qemu-system-x86_64`; or set {DEFAULT_TARGET}"
        ),
    };
    match env::var(DEFAULT_TARGET) {
        Ok(text) if !text.is_empty() => match Target::parse(&text) {
            // There it has always been an address; a bare word is a path.
            Ok(Target::Name(path)) => Ok(Target::Address(Address::unix(path))),
            Ok(target) => Ok(target),
            Err(error) => Err(usage(format!("{DEFAULT_TARGET}: {error}"))),
        },
        _ => Err(usage("no machine is given".into())),
    }
}

async fn open(
    shell: &Shell,
    target: &Target,
    transcript: Option<Transcript>,
) -> Result<(Session, Listener), Failure> {
    if let (true, Target::Name(name)) = (shell.skip_negotiation, target) {
        return Err(Failure::Usage {
            problem: format!("`-N` takes an address, not a name: `{name}`"),
            hint: "`ratite agent` speaks with the agent of a machine by its name".into(),
        });
    }
    let (listener, subscription) = Listener::new(EventFilter::any());
    let mut options = Options::default().command_limit(shell.timeout).subscribe(subscription);
    if shell.skip_negotiation {
        options = options.without_handshake();
    }
    if let Some(transcript) = transcript {
        options = options.transcript(transcript);
    }
    let client = dialogue::connect(target, options).await?;
    Ok((Session::begin(client, shell).await?, listener))
}

/// The same with a QEMU of the shell's own, which ends with it.
async fn with_machine(
    shell: &Shell,
    transcript: Option<Transcript>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let (binary, arguments) = shell.command.split_first().expect("there is a command");
    let mut config = MachineConfig::new(binary).args(arguments);
    if let Some(transcript) = transcript {
        config = config.transcript(transcript);
    }
    let launching = async { config.launch().await.map_err(Failure::Launch) };
    let machine = unless_signalled(signals, launching).await?;
    let outcome = with_launched(shell, &machine, signals).await;
    end(outcome, machine.shutdown(shell.grace).await)
}

async fn with_launched(shell: &Shell, machine: &Machine, signals: &mut Signals) -> Result<(), Failure> {
    let client = machine.client().map_err(|error| Failure::Conversation {
        doing: "speak with the machine".into(),
        source: Box::new(error),
        exit: None,
    })?;
    client.set_command_limit(shell.timeout);
    // Nothing is missed in between, since nothing is waited for: the connection runs in this thread.
    let early = machine.take_events();
    let listener = client.listen(EventFilter::any());
    let mut session = unless_signalled(signals, Session::begin(client.clone(), shell)).await?;
    converse(shell, &mut session, &listener, early, signals).await
}

/// What to tell of a shell and of its machine's end together.
fn end(outcome: Result<(), Failure>, end: Result<Exit, ShutdownError>) -> Result<(), Failure> {
    match (outcome, end) {
        (Ok(()), Ok(exit)) => {
            report::pass_on(&exit.log);
            match exit.success() {
                true => Ok(()),
                false => Err(Failure::Ended { what: exit.to_string(), exit: Box::new(exit), console: None }),
            }
        }
        (Ok(()), Err(error)) => Err(Failure::Shutdown(error)),
        (Err(Failure::Signal { signal, .. }), end) => Err(Failure::Signal { signal, source: end.err() }),
        (Err(Failure::Conversation { doing, source, .. }), end) => {
            let exit = end.map_or_else(|error| error.exit().cloned(), Some).map(Box::new);
            Err(Failure::Conversation { doing, source, exit })
        }
        (failed, _) => failed,
    }
}

async fn converse(
    shell: &Shell,
    session: &mut Session,
    listener: &Listener,
    early: Vec<Event>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    match io::stdin().is_terminal() {
        true => human::converse(session, listener, early, signals).await,
        false => {
            let batch = batch::Batch { shows_events: shell.events, keeps_going: shell.keep_going };
            batch.run(session, listener, early, signals).await
        }
    }
}

async fn unless_signalled<T>(
    signals: &mut Signals,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        signal = signals.next() => Err(Failure::Signal { signal, source: None }),
        outcome = work => outcome,
    }
}

/// Writes a line, or lines, to stdout.
fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let line_end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    write!(stdout, "{text}{line_end}").and_then(|()| stdout.flush()).map_err(Failure::output)
}

/// How long a machine that was told to quit may take until the connection ends, and a pipe until it brings another
/// line, or its end, after that.
const FAREWELL: Duration = Duration::from_secs(5);
