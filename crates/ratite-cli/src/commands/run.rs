//! `ratite run`: the user's own command line, its console on stdout, and an end in every case.

use std::panic;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::Exit;
use ratite::ExtraMonitor;
use ratite::LaunchErrorKind;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::Pattern;
use ratite::ShutdownError;
use ratite::Timeouts;
use ratite::qmp::within;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::args::Run;
use crate::args::Words;
use crate::copy::Copied;
use crate::copy::Copy;
use crate::copy::HISTORY;
use crate::copy::News;
use crate::output::Bytes;
use crate::qemu_args::FirstSerial;
use crate::qemu_args::first_serial;
use crate::report;
use crate::report::Failure;
use crate::signals::Signals;
use crate::verdict::Cause;
use crate::verdict::Ended;

/// How long stdout has to take the rest, once a signal or the user's limit has ended the run.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// When the user is told that an end takes its time.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much of the console an error carries.
const CONSOLE_TAIL: usize = 2 << 10;

/// Runs the user's command line to its end.
pub(crate) async fn run(run: Run, signals: &mut Signals) -> Result<(), Failure> {
    let config = configure(&run)?;
    let clock = Clock::start(run.timeout);
    let wanted = run.expect.or(run.expect_regex);
    let output = Bytes::to_stdout().map_err(Failure::System)?;
    let machine = Arc::new(launch(&config, clock, signals).await?);

    let (copy, news) = Copy::of(machine.clone(), wanted.as_ref().map(Pattern::search));
    let mut copying = tokio::spawn(copy.run(output));
    let cause = cause(&machine, news, clock, signals).await;
    let end = end(&machine, &cause, run.grace, signals).await;
    let (cause, copied) = rest(&mut copying, cause, clock, signals).await;

    let console = machine.console();
    let ended = Ended {
        cause,
        end,
        copied,
        console: console.map(|console| console.tail(CONSOLE_TAIL)),
        log_fault: console.and_then(Console::log_fault),
    };
    ended.verdict(wanted.as_ref(), clock.limit)
}

/// The user's command line with ratite's console, if it has room for one.
fn configure(run: &Run) -> Result<MachineConfig, Failure> {
    let mut words = run.command.iter().cloned();
    let binary = words.next().unwrap_or_default();
    let mut args: Vec<_> = words.collect();
    let serial = first_serial(&args);
    if let FirstSerial::Terminal(at) = serial {
        args.drain(at..at + 2);
    }
    let connect = Timeouts::default().connect;
    let config = surroundings(run, MachineConfig::new(binary).args(args)).timeouts(Timeouts {
        connect: run.timeout.map_or(connect, |limit| limit.min(connect)),
        ..Timeouts::default()
    });
    let FirstSerial::Taken(taken) = serial else {
        let console = ConsoleConfig::serial().history(HISTORY);
        return Ok(config.console(match &run.log {
            Some(path) => console.log(path),
            None => console,
        }));
    };
    if run.expect.is_some() || run.expect_regex.is_some() || run.log.is_some() {
        return Err(Failure::Usage {
            problem: format!("`-serial {taken}` has the first serial port, so there is no console to read"),
            hint: "without `-serial`, `ratite run` has the console; `--expect` and `--log` need it".into(),
        });
    }
    report::remark(&format!("`-serial {taken}` has the first serial port, so no console is shown"));
    Ok(config)
}

/// What the user wants around the machine.
fn surroundings(run: &Run, mut config: MachineConfig) -> MachineConfig {
    for path in &run.qmp {
        config = config.extra_monitor(ExtraMonitor::Qmp(path.clone()));
    }
    if let Some(Words(words)) = &run.wrapper {
        config = config.wrapper(words);
    }
    if let Some(folder) = &run.log_folder {
        config = config.log_folder(folder);
    }
    if let Some(name) = &run.name {
        config = config.name(name).reachable();
    }
    if let Some(folder) = &run.base_folder {
        config = config.base_folder(folder);
    }
    config
}

async fn launch(config: &MachineConfig, clock: Clock, signals: &mut Signals) -> Result<Machine, Failure> {
    let launched = tokio::select! {
        biased;
        signal = signals.next() => return Err(Failure::Signal { signal, source: None }),
        launched = config.launch() => launched,
    };
    launched.map_err(|error| match error.kind() {
        LaunchErrorKind::TimedOut { .. } if clock.left().is_zero() => Failure::TimedOut {
            what: "the machine was not launched".into(),
            limit: clock.limit,
            source: Some(error),
            exit: None,
            console: None,
        },
        _ => Failure::Launch(error),
    })
}

async fn cause(
    machine: &Machine,
    news: oneshot::Receiver<News>,
    clock: Clock,
    signals: &mut Signals,
) -> Cause {
    let happening = async {
        tokio::select! {
            biased;
            signal = signals.next() => Cause::Signal(signal),
            Ok(news) = news => match news {
                News::SearchOver => Cause::SearchOver,
                News::Unwritable => Cause::Unwritable,
            },
            _status = machine.exited() => Cause::Itself,
        }
    };
    within(clock.left(), "end", happening).await.unwrap_or(Cause::TimeOver)
}

/// Ends the machine as gently as it lets us; at once when the user asks again.
async fn end(
    machine: &Machine,
    cause: &Cause,
    grace: Duration,
    signals: &mut Signals,
) -> Result<Exit, ShutdownError> {
    if matches!(cause, Cause::Itself) {
        return machine.wait(Duration::MAX).await;
    }
    let mut shutdown = pin!(machine.shutdown(grace));
    let patient = async {
        match within(PATIENCE, "end", &mut shutdown).await {
            Ok(end) => end,
            Err(_) => {
                report::remark(&format!("the machine has {grace:?} to end; Ctrl-C kills it at once"));
                shutdown.await
            }
        }
    };
    tokio::select! {
        biased;
        _again = signals.next() => machine.kill().await,
        end = patient => end,
    }
}

/// Waits until the rest of the console is written. If that has to be given up, the reason is the cause.
async fn rest(
    copying: &mut JoinHandle<Copied>,
    cause: Cause,
    clock: Clock,
    signals: &mut Signals,
) -> (Cause, Copied) {
    let limit = match cause {
        Cause::Signal(_) | Cause::TimeOver => LAST_WRITES,
        _ => clock.left(),
    };
    tokio::select! {
        biased;
        joined = within(limit, "rest of the console", copying) => match joined {
            Ok(Ok(copied)) => (cause, copied),
            // Nobody cancels it, so it has panicked.
            Ok(Err(error)) => panic::resume_unwind(error.into_panic()),
            Err(_) => match cause {
                Cause::Signal(_) | Cause::TimeOver => (cause, Copied::default()),
                _ => (Cause::Unread, Copied::default()),
            }
        },
        signal = signals.next() => (Cause::Signal(signal), Copied::default()),
    }
}

/// The user's limit on the whole run.
#[derive(Debug, Clone, Copy)]
struct Clock {
    started: Instant,
    limit: Duration,
}

impl Clock {
    fn start(limit: Option<Duration>) -> Self {
        Self { started: Instant::now(), limit: limit.unwrap_or(Duration::MAX) }
    }

    fn left(self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }
}
