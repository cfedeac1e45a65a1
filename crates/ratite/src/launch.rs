//! From [`MachineConfig`] to [`Running`]: the steps of a launch, and how each is undone.
//!
//! Owns the order; knows every part, and is known only by `machine`.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use ratite_qmp::Agent;
use ratite_qmp::Client;
use ratite_qmp::EventFilter;
use ratite_qmp::Listener;
use ratite_qmp::Options;
use ratite_qmp::PeerCredentials;
use ratite_qmp::Socket;
use ratite_qmp::SocketFile;
use ratite_qmp::within;
use tokio::runtime::Handle;
use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::OnceCell;

use crate::channels::Channels;
use crate::channels::MonitorChannel;
use crate::channels::OpenError;
use crate::command_line;
use crate::command_line::CommandLine;
use crate::config::MachineConfig;
use crate::config::Timeouts;
use crate::config::WorkingFolder;
use crate::console::Console;
use crate::console::PumpGuard;
use crate::error::LaunchError;
use crate::error::LaunchErrorKind;
use crate::estate::Estate;
use crate::exit::Tail;
use crate::fate::Fate;
use crate::frame;
use crate::frame::Frame;
use crate::frame::Restoring;
use crate::guard;
use crate::probe;
use crate::process::Process;
use crate::process::Spawn;
use crate::process::Starting;
use crate::procfs;
use crate::program;
use crate::qtest::Qtest;
use crate::reach_folder::Reach;
use crate::reach_folder::ReachFolder;
use crate::running::MonitorSession;
use crate::running::Running;
use crate::runtime::background;
use crate::work_folder::WorkFolder;
use crate::workdir::Log;

/// How much of the log an error carries: QEMU's last words, not its diary.
const LAST_WORDS: usize = 8 << 10;

/// How long a process whose monitor has closed is waited for: it is about to exit, and its status says more.
const EXIT_AFTER_CLOSE: Duration = Duration::from_millis(50);

/// Starts QEMU and returns once its monitor answers.
///
/// # Errors
/// [`LaunchError`] with the command line, the exit status if there is one, and the last words of the log. Nothing is
/// left behind: the process is reaped and the folder removed.
pub(crate) async fn launch(
    config: &MachineConfig,
    folder: Option<WorkFolder>,
    restoring: Option<&Restoring<'_>>,
) -> Result<Running, LaunchError> {
    config.check().map_err(|error| LaunchError::new(LaunchErrorKind::Config(error)))?;
    let Prepared { program, spawn, channels, consoles, reach, log, work_folder, command_line, frame } =
        prepare(config, folder, restoring).await?;
    tracing::debug!(%command_line, "launching a machine");
    let started = SystemTime::now();
    let on_pair = matches!(channels.monitor, MonitorChannel::Pair(_));
    let starting = start(config, &command_line, program.kind, spawn)?;

    // From here a process may exist: every failure has to end it.
    let (process, lines) = match on_pair {
        // What it says, or that there is nobody to say it, comes by the pair: its start is not waited for before.
        true => {
            let over = starting.over();
            // A wrapper says nothing of the QEMU in it.
            let binary = config.wrapper.is_empty().then_some(&program);
            let lines = connect_all(config, Peer::Paired(binary), over, channels).await;
            let mut process = started_within(config, &command_line, starting).await?;
            // Where a socket of ours is, the process's end can be watched, too.
            process.watch_in(apart(config).ok().flatten().as_ref());
            (process, lines)
        }
        false => {
            let process = started_within(config, &command_line, starting).await?;
            let over = process.wait();
            let lines = connect_all(config, Peer::Process(process.pid()), over, channels).await;
            (process, lines)
        }
    };
    match last_look(&process, lines).await {
        Ok(Lines { monitor, agent, qtest }) => {
            let launch_time = monitor.as_ref().map_or(Duration::ZERO, |_| process.started().elapsed());
            let (monitor, panics) = monitor.unzip();
            let fate = Arc::new(Fate::new(process.life().clone(), panics));
            consoles.iter().for_each(|(_, console)| console.belong_to(&fate));
            Ok(Running {
                process,
                monitor,
                consoles,
                agent,
                qtest,
                reach,
                log,
                work_folder,
                command_line,
                frame,
                freezing: AsyncMutex::default(),
                timeouts: config.timeouts,
                started,
                launch_time,
                asked: Mutex::new(None),
                exit: OnceCell::new(),
            })
        }
        Err(fault) => Err(abandon(process, &log, command_line, config.timeouts, fault).await),
    }
}

/// Everything that a machine needs before its process exists. Dropping it undoes it.
struct Prepared {
    program: program::Looked,
    spawn: Spawn,
    channels: Box<Channels>,
    consoles: Vec<(String, Console)>,
    reach: Option<Reach>,
    log: Log,
    work_folder: PathBuf,
    command_line: CommandLine,
    frame: Frame,
}

async fn prepare(
    config: &MachineConfig,
    folder: Option<WorkFolder>,
    restoring: Option<&Restoring<'_>>,
) -> Result<Prepared, LaunchError> {
    let number = next_machine();
    Process::herald(number);
    let made_here = || WorkFolder::make(&config.base_folder, config.keep_folder);
    let alone = folder.is_none();
    let folder = folder.map_or_else(made_here, Ok)?;
    let log = make_log(config, number, folder.path(), alone)?;
    let (config, frame) = frame::make(config, restoring, folder.path(), number)?;
    let config = config.as_ref();
    let reach = open_reach(config).await?;
    let mut channels = open_channels(config).await?;
    // What we start ends with us (PR_SET_PDEATHSIG); what a wrapper starts does if QEMU sees to it.
    channels.ends.exit_with_parent = config.asks_exit_with_parent() && probe::exits_with_parent(config).await;
    let command_line = command_line::render(config, &channels.ends);
    let fault = |kind| LaunchError::new(kind).with_command_line(command_line.clone());
    let output = log.writer().map_err(|error| fault(LaunchErrorKind::Channel(error)))?;
    let streams = std::mem::take(&mut channels.consoles);
    let (consoles, pumps) = pump(config, streams).map_err(|error| fault(LaunchErrorKind::Console(error)))?;
    let work_folder = folder.path().to_owned();
    let mark = guard::machine_mark(folder.owner(), number);
    let mut environment = config.environment.clone();
    environment.push((guard::MARK_VARIABLE.into(), Some(mark.clone().into())));
    // QEMU itself stays where it is put; what a wrapper or a script does is its own affair.
    let program = program::look_at(command_line.program().as_ref(), config.search_path().as_deref());
    let may_stray = !config.wrapper.is_empty() || program.kind == program::Kind::Script;
    let spawn = Spawn {
        launch: Some(number),
        program: command_line.program().to_owned(),
        arguments: command_line.arguments().to_vec(),
        environment,
        working_folder: config.working_folder.beside(&work_folder),
        output,
        // What the child is to have moves into the spawn: our copies close with it.
        fds: std::mem::take(&mut channels.theirs),
        own_group: config.own_process_group,
        mark: may_stray.then(|| format!("{}={mark}", guard::MARK_VARIABLE)),
        announce: guard::announce,
        estate: Box::new(Left {
            folder: Some(folder),
            files: std::mem::take(&mut channels.files),
            pumps,
            reach: reach.as_ref().map(|reach| reach.folder.clone()),
        }),
    };
    Ok(Prepared { program, spawn, channels, consoles, reach, log, work_folder, command_line, frame })
}

/// What a machine's process leaves.
#[derive(Debug)]
struct Left {
    folder: Option<WorkFolder>,
    /// The files of the sockets that it served.
    files: Vec<SocketFile>,
    pumps: Vec<PumpGuard>,
    reach: Option<Arc<ReachFolder>>,
}

impl Estate for Left {
    fn settle(&mut self) -> bool {
        self.files.clear();
        self.pumps.clear();
        self.reach = None;
        self.folder = self.folder.take().and_then(WorkFolder::settle);
        self.folder.is_none()
    }
}

/// The name taken and the sockets open, if others are to reach the machine.
async fn open_reach(config: &MachineConfig) -> Result<Option<Reach>, LaunchError> {
    let Some(name) = config.reachable_name() else { return Ok(None) };
    let reach = Reach::open(name.to_owned()).await;
    reach.map(Some).map_err(|error| LaunchError::new(LaunchErrorKind::Reach(error)))
}

async fn open_channels(config: &MachineConfig) -> Result<Box<Channels>, LaunchError> {
    let limit = config.timeouts.connect;
    // A monitor's host has to be looked up, which may take its time.
    let outcome = within(limit, "channels", Channels::open(config)).await;
    let timed_out = |_| LaunchError::new(LaunchErrorKind::TimedOut { limit });
    outcome.map_err(timed_out)?.map_err(|error| {
        LaunchError::new(match error {
            OpenError::Monitor(error) => LaunchErrorKind::MonitorAddress(error),
            OpenError::System(error) => LaunchErrorKind::Channel(error),
        })
    })
}

fn start(
    config: &MachineConfig,
    command_line: &CommandLine,
    kind: program::Kind,
    spawn: Spawn,
) -> Result<Starting, LaunchError> {
    kind.check()
        .and_then(|()| Process::begin(spawn))
        .map_err(|source| not_started(config, command_line, source))
}

async fn started_within(
    config: &MachineConfig,
    command_line: &CommandLine,
    starting: Starting,
) -> Result<Process, LaunchError> {
    let limit = config.timeouts.connect;
    match within(limit, "process", starting.started()).await {
        Ok(outcome) => outcome.map_err(|source| not_started(config, command_line, source)),
        Err(_) => {
            Err(LaunchError::new(LaunchErrorKind::TimedOut { limit }).with_command_line(command_line.clone()))
        }
    }
}

fn not_started(config: &MachineConfig, command_line: &CommandLine, source: io::Error) -> LaunchError {
    LaunchError::new(spawn_failure(config, command_line, source)).with_command_line(command_line.clone())
}

/// Numbers for this program's machines: for marks and default names.
fn next_machine() -> u64 {
    static LAUNCHED: AtomicU64 = AtomicU64::new(0);
    LAUNCHED.fetch_add(1, Ordering::Relaxed)
}

/// The log, in the work folder if nothing else is said; that may be this machine's alone.
fn make_log(
    config: &MachineConfig,
    number: u64,
    work_folder: &Path,
    alone: bool,
) -> Result<Log, LaunchError> {
    let folder = config.log_folder.as_deref().unwrap_or(work_folder);
    let fault = |source| LaunchError::new(LaunchErrorKind::Log { folder: folder.to_owned(), source });
    // Absolute: the current folder may be another one when the path is asked for.
    let folder = std::path::absolute(folder).map_err(fault)?;
    if config.log_folder.is_some() {
        std::fs::create_dir_all(&folder).map_err(fault)?;
    }
    let name = config.name.clone().unwrap_or_else(|| default_name(number, work_folder));
    match alone && config.log_folder.is_none() {
        true => Log::create_alone(&folder, &name).map_err(fault),
        false => Log::create(&folder, &name).map_err(fault),
    }
}

/// A name that no other machine has: the work folder's random letters are in it.
fn default_name(number: u64, work_folder: &Path) -> OsString {
    let folder = work_folder.file_name().unwrap_or_default().to_string_lossy();
    let random = folder.rsplit('-').next().unwrap_or_default();
    format!("machine-{}-{number}-{random}", std::process::id()).into()
}

/// The consoles with their names, and what ends their pumps.
type Pumped = (Vec<(String, Console)>, Vec<PumpGuard>);

fn pump(config: &MachineConfig, streams: Vec<UnixStream>) -> io::Result<Pumped> {
    let mut pumped = Pumped::default();
    for (console, stream) in config.consoles.iter().zip(streams) {
        let (pump, guard) = Console::pump(stream, console, config.timeouts.console, &background()?)?;
        pumped.0.push((console.name.clone(), pump));
        pumped.1.push(guard);
    }
    Ok(pumped)
}

/// What is spoken over the caller's runtime.
struct Lines {
    monitor: Option<Heard>,
    agent: Option<Agent>,
    qtest: Option<Qtest>,
}

/// Why a launch failed after its process had been started.
enum Fault {
    Exited,
    TimedOut,
    Qmp(ratite_qmp::Error),
    Channel(io::Error),
}

/// The monitor, and who hears of the guest's panic.
type Heard = (MonitorSession, Listener);

/// Who is at the other end of the monitor.
#[derive(Debug, Clone, Copy)]
enum Peer<'a> {
    /// Whoever has the other end of our pair; the program, if it is QEMU itself.
    Paired(Option<&'a program::Looked>),
    /// This process, or a descendant of it: others could connect before it.
    Process(u32),
}

/// Every fallible step after the process is told to start, raced with its end and the limit.
async fn connect_all(
    config: &MachineConfig,
    peer: Peer<'_>,
    over: impl Future,
    channels: Box<Channels>,
) -> Result<Lines, Fault> {
    let limit = config.timeouts.connect;
    let ready = async {
        let Channels { monitor, agent, qtest, .. } = *channels;
        let socket = |stream: Option<_>| stream.map(Socket::try_from).transpose().map_err(Fault::Channel);
        let limit = config.timeouts.command;
        let qtest = socket(qtest)?.map(|socket| Qtest::over(socket, limit));
        let agent = connect_agent(config, agent).map_err(Fault::Channel)?;
        let monitor = connect_monitor(config, peer, monitor).await?;
        Ok(Lines { monitor, agent, qtest })
    };
    tokio::select! {
        // What has been said counts before how it ended: a monitor that was ready was ready.
        biased;
        outcome = within(limit, "monitor", ready) => outcome.unwrap_or(Err(Fault::TimedOut)),
        _ended = over => Err(Fault::Exited),
    }
}

/// A monitor that closes mostly belongs to a process that is about to end, and that says more.
async fn last_look(process: &Process, outcome: Result<Lines, Fault>) -> Result<Lines, Fault> {
    match outcome {
        Err(Fault::Qmp(error)) if is_closed(&error) => match process.ends_soon(EXIT_AFTER_CLOSE).await {
            Some(_) => Err(Fault::Exited),
            None => Err(Fault::Qmp(error)),
        },
        other => other,
    }
}

fn is_closed(error: &ratite_qmp::Error) -> bool {
    matches!(error, ratite_qmp::Error::Disconnected(_) | ratite_qmp::Error::Connect { .. })
}

/// Where a machine is spoken with that others are served by also while the caller's runtime stands still: not in that one.
fn apart(config: &MachineConfig) -> io::Result<Option<Handle>> {
    if config.reachable || config.in_background { background().map(Some) } else { Ok(None) }
}

fn connect_agent(config: &MachineConfig, stream: Option<UnixStream>) -> io::Result<Option<Agent>> {
    let Some(stream) = stream else { return Ok(None) };
    let background = apart(config)?;
    let _entered = background.as_ref().map(Handle::enter);
    Ok(Some(Agent::over(Socket::try_from(stream)?).with_limit(config.timeouts.command)))
}

async fn connect_monitor(
    config: &MachineConfig,
    peer: Peer<'_>,
    channel: MonitorChannel,
) -> Result<Option<Heard>, Fault> {
    let (events, every) = Listener::new(EventFilter::any());
    let (panics, panic) = Fate::panics();
    let (shutdowns, shutdown) = Listener::with_capacity(EventFilter::named("SHUTDOWN"), 4);
    let mut options = Options::default()
        // The whole is bounded by the caller.
        .connect_limit(Duration::MAX)
        .command_limit(config.timeouts.command)
        .subscribe(every)
        .subscribe(shutdown)
        .subscribe(panic);
    if let Some(transcript) = &config.transcript {
        options = options.transcript(transcript.clone());
    }
    let binary = if let Peer::Paired(binary) = peer { binary } else { None };
    if let Some(offers) = binary.and_then(program::Looked::offers) {
        options = options.foreseen(offers);
    }
    let client = match channel {
        MonitorChannel::Off => return Ok(None),
        MonitorChannel::Pair(stream) => {
            let over = async move {
                let socket = Socket::unshared(stream).map_err(Fault::Channel)?;
                Client::over(socket, options).await.map_err(Fault::Qmp)
            };
            match apart(config).map_err(Fault::Channel)? {
                Some(background) => background.spawn(over).await.map_err(gone)?,
                None => over.await,
            }
        }
        MonitorChannel::Server(server) => {
            let is_ours = |credentials| match peer {
                Peer::Paired(_) => true,
                Peer::Process(pid) => is_ours(credentials, pid),
            };
            let welcome = |peer: Option<PeerCredentials>| peer.is_none_or(is_ours);
            Client::accept(&server, welcome, options).await.map_err(Fault::Qmp)
        }
    }?;
    if let (Some(binary), Some(greeting)) = (binary, client.greeting()) {
        binary.remember(&greeting.capabilities);
    }
    Ok(Some((MonitorSession { client, events, shutdowns }, panics)))
}

/// A task of the background runtime ended without its outcome, which only a panic in a transcript can bring about.
fn gone(error: tokio::task::JoinError) -> Fault {
    Fault::Channel(io::Error::other(error))
}

/// Whether a peer is the process that we started, or a descendant of it (a wrapper's QEMU).
fn is_ours(peer: PeerCredentials, pid: u32) -> bool {
    match peer.pid.and_then(|peer| u32::try_from(peer).ok()) {
        Some(peer) if peer == pid || procfs::is_ours() => procfs::descends(peer, pid),
        // The system does not tell; then at least the user must be ours.
        _ => peer.uid == rustix::process::geteuid().as_raw(),
    }
}

/// Ends a process whose launch has failed, and tells why it did.
async fn abandon(
    process: Process,
    log: &Log,
    command_line: CommandLine,
    timeouts: Timeouts,
    fault: Fault,
) -> LaunchError {
    process.kill();
    // If even SIGKILL does not end it, the launch error is still what the caller has to hear.
    let exited = within(timeouts.kill, "end of the process", process.wait()).await.ok();
    let words = log.tail(LAST_WORDS).unwrap_or_else(|error| Tail {
        bytes: format!("(could not read the log: {error})").into_bytes(),
        omitted: 0,
    });
    if exited.is_some() {
        // A folder that takes longer to remove goes on being removed in the background.
        let _removed = within(timeouts.kill, "removal of the work folder", process.release()).await;
    }
    let status = exited.map(|exited| exited.status);
    let kind = match (fault, status) {
        (Fault::Exited, Some(status)) => LaunchErrorKind::Exited(status),
        (Fault::Exited, None) | (Fault::TimedOut, _) => LaunchErrorKind::TimedOut { limit: timeouts.connect },
        (Fault::Qmp(error), _) => LaunchErrorKind::Qmp(error),
        (Fault::Channel(error), _) => LaunchErrorKind::Channel(error),
    };
    LaunchError::new(kind).with_command_line(command_line).with_end(status, words)
}

/// What is wrong with a program that could not be started, as far as looking at it tells.
fn spawn_failure(config: &MachineConfig, command_line: &CommandLine, source: io::Error) -> LaunchErrorKind {
    let program = command_line.program();
    let role = if config.wrapper.is_empty() { "binary" } else { "wrapper" };
    let reason = match &config.working_folder {
        WorkingFolder::At(folder) if !folder.is_dir() => {
            format!("the working folder `{}` is no folder", folder.display())
        }
        _ => program::what_is_wrong(program.as_ref(), config.search_path().as_deref(), &source),
    };
    LaunchErrorKind::Spawn { role, program: program.to_string_lossy().into_owned(), reason, source }
}
