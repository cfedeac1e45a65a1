//! `ratite run`: the user's own command line, its console on stdout, and an end in every case.

mod accelerator;
mod configure;
mod freeze;
mod launch;
mod restore;
mod screenshot;

use std::io;
use std::io::IsTerminal;
use std::panic;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use ratite::Console;
use ratite::Exit;
use ratite::Machine;
use ratite::Patterns;
use ratite::SearchError;
use ratite::ShutdownError;
use ratite::qmp::EventFilter;
use ratite::qmp::within;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::args::Run;
use crate::copy::Copied;
use crate::copy::Copy;
use crate::copy::Form;
use crate::copy::News;
use crate::output::Bytes;
use crate::progress;
use crate::progress::Progress;
use crate::questions::Questions;
use crate::records::Records;
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
    let records = run.watching.json.then(Records::begin);
    let mut said = Vec::new();
    let outcome = to_its_end(&run, records, &mut said, signals).await;
    if let Some(records) = records {
        said.extend(records.ended(&outcome));
        write_last(said).await;
    }
    outcome.map(drop)
}

/// The run, but for its last records: what is to be recorded before the very last is put into `said`.
async fn to_its_end(
    run: &Run,
    records: Option<Records>,
    said: &mut Vec<u8>,
    signals: &mut Signals,
) -> Result<Option<Exit>, Failure> {
    let clock = Clock::start(run.ending.limits.timeout);
    let patterns = run.patterns();
    let search = patterns.as_ref().map(Patterns::search).transpose().map_err(too_large)?;
    let progress = Progress::begin(progress::is_wanted(!run.watching.quiet), clock.wanted());
    let mut prepared = launch::prepare(run, records, &progress, clock, signals).await?;
    let output = match records {
        Some(_) => Bytes::text_to_stdout(),
        None => Bytes::to_stdout(),
    };
    let output = output.map_err(Failure::System)?;
    progress.phase("starting QEMU");
    let machine = Arc::new(launch::launch(&prepared, clock, signals).await?);
    progress.phase("running");
    progress.follow(&machine);

    let launched = records.map(|records| records.launched(&machine)).unwrap_or_default();
    let form = form(run, records);
    let begun = [std::mem::take(&mut prepared.said), launched].concat();
    let (copy, news) = Copy::of(machine.clone(), patterns.clone().zip(search), form, begun);
    let reins = copy.reins();
    let mut copying = tokio::spawn(copy.run(output));
    let mut cause = match &run.making {
        Some(making) if making.at_once => Cause::Ready,
        _ => cause(&machine, news, run, patterns.as_ref(), clock, signals).await,
    };
    let mut frozen = None;
    if let (Cause::Ready, Some(making)) = (cause, prepared.making()) {
        progress.phase("freezing");
        let made = freeze::freeze(making, &machine, reins, clock, signals).await;
        cause = freeze::cause(&made);
        frozen = Some(made);
    }
    progress.phase("ending");
    let file = run.ending.screenshot_on_exit.as_deref();
    let picture = match file {
        Some(file) => screenshot::take(&machine, file, cause, signals).await,
        None => Ok(()),
    };
    if let (Some(records), Some(file), Ok(())) = (records, file, &picture) {
        said.extend(records.screenshot(&file.to_string_lossy()));
    }
    let has_ended = matches!(cause, Cause::Itself) || matches!(frozen, Some(Ok(_)));
    let end = end(&machine, has_ended, run.ending.limits.grace, signals).await;
    let (cause, copied) = rest(&mut copying, cause, clock, signals).await;
    if let Some(Err(failure)) = frozen {
        return Err(freeze::with_end(failure, end));
    }

    let console = machine.console();
    let ended = Ended {
        cause,
        end,
        copied,
        console: console.map(|console| console.tail(CONSOLE_TAIL)),
        log_fault: console.and_then(Console::log_fault),
    };
    drop(progress);
    if let (Some(making), Some(Ok(template))) = (&run.making, &frozen) {
        freeze::tell(&making.name, template);
        said.extend(records.map(|records| records.frozen(&making.name, template)).unwrap_or_default());
    }
    let outcome = ended.verdict(patterns.as_ref(), clock.limit);
    match (&outcome, picture) {
        (_, Ok(())) => outcome,
        (Ok(_), Err(why)) => Err(Failure::NoScreenshot { why }),
        (Err(_), Err(why)) => {
            report::remark(&format!("there is no screenshot: {why}"));
            outcome
        }
    }
}

fn too_large(error: SearchError) -> Failure {
    Failure::Usage {
        problem: error.to_string(),
        hint: "what is looked for is searched all at once; fewer or shorter expressions fit".into(),
    }
}

/// Writes the last record, for as long as its reader may take.
async fn write_last(records: Vec<u8>) {
    let Ok(output) = Bytes::text_to_stdout() else { return };
    let written = async {
        if let Some(room) = output.room().await {
            room.send(records);
        }
        output.finish().await
    };
    // Whoever does not read has the exit code.
    let _unread = within(LAST_WRITES, "the last record", written).await;
}

fn form(run: &Run, records: Option<Records>) -> Form {
    match records {
        Some(records) => Form::Records { records, text: Default::default() },
        None if run.watching.quiet => Form::Nothing,
        None if io::stdout().is_terminal() => Form::Shown(Questions::default()),
        None => Form::Bytes,
    }
}

async fn cause(
    machine: &Machine,
    news: oneshot::Receiver<News>,
    run: &Run,
    patterns: Option<&Patterns>,
    clock: Clock,
    signals: &mut Signals,
) -> Cause {
    let stays_when_off = run.ending.screenshot_on_exit.is_some();
    let is_ready = |found: Option<usize>| {
        let wanted = found.zip(patterns).is_some_and(|(index, patterns)| !patterns.is_failure(index));
        wanted && run.making.is_some()
    };
    let happening = async {
        tokio::select! {
            biased;
            signal = signals.next() => Cause::Signal(signal),
            Ok(news) = news => match news {
                News::SearchOver(found) if is_ready(found) => Cause::Ready,
                News::SearchOver(_) => Cause::SearchOver,
                News::Unwritable => Cause::Unwritable,
            },
            _status = machine.exited() => Cause::Itself,
            () = stands_still(machine) => Cause::Panicked,
            () = is_off(machine), if stays_when_off => Cause::Off,
        }
    };
    within(clock.left(), "end", happening).await.unwrap_or(Cause::TimeOver)
}

/// Waits until the guest has panicked and QEMU keeps it as it is. Where a panic ends QEMU, that says more.
async fn stands_still(machine: &Machine) {
    let panic = EventFilter::named("GUEST_PANICKED").data(json!({ "action": "pause" }));
    if machine.event_ready(&panic, Duration::MAX).await.is_err() {
        // The machine's end is seen by others.
        std::future::pending::<()>().await;
    }
}

/// Waits until the guest is off, where QEMU is told to stay then.
async fn is_off(machine: &Machine) {
    if machine.event_ready(&EventFilter::named("SHUTDOWN"), Duration::MAX).await.is_err() {
        // As above.
        std::future::pending::<()>().await;
    }
}

/// Ends the machine as gently as it lets us; at once when the user asks again.
async fn end(
    machine: &Machine,
    has_ended: bool,
    grace: Duration,
    signals: &mut Signals,
) -> Result<Exit, ShutdownError> {
    if has_ended {
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

    /// The limit, if there is one.
    fn wanted(self) -> Option<Duration> {
        (self.limit < Duration::MAX).then_some(self.limit)
    }

    fn left(self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }
}
