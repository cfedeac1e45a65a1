//! The supervisor that owns the child: spawn, signal, reap, state.
//!
//! One thread for each program, `ratite-supervisor`, forks all children, because PR_SET_PDEATHSIG fires when the thread
//! that forked ends. It runs a small runtime of its own, so children are reaped and killed even while the caller's
//! runtime is blocked or gone. Only the supervisor sends signals: only it knows that a pid is not reaped yet.
//!
//! ```text
//! spawn ─► Running ── exit ─► group killed, reaped ─► Exited ── released, or the handle dropped ─► estate dropped
//!             └── the handle dropped ─► SIGKILL ──┘
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use command_fds::CommandFdExt;
use ratite_qmp::within;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use rustix::process::WaitOptions;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::estate::Estate;
use crate::estate::Shelf;
use crate::exit::ProcessExit;
use crate::inherit;
use crate::inherit::Inheritance;
use crate::life::Exited;
use crate::life::Life;
use crate::life::State;
use crate::procfs::named;
use crate::runtime::aside;
use crate::starter;
use crate::starter::NotStarted;
use crate::starter::Start;
use crate::strays;

/// What to start, ready for the kernel.
#[derive(Debug)]
pub(crate) struct Spawn {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, Option<OsString>)>,
    pub(crate) working_folder: Option<PathBuf>,
    pub(crate) output: File,
    pub(crate) fds: Vec<(RawFd, OwnedFd)>,
    pub(crate) own_group: bool,
    /// The `NAME=VALUE` in its environment by which a process that has left the group is found at the end; `None` where
    /// nothing can have left it.
    pub(crate) mark: Option<String>,
    /// Called with the number of the process's own group when there is one, and again (`false`) when it is over.
    pub(crate) announce: fn(u32, bool),
    /// Dropped once the process is gone and nobody needs it any more.
    pub(crate) estate: Box<dyn Estate>,
}

/// A started process. Dropping it kills the process, its group with it, and drops its estate after that; it never waits.
#[derive(Debug)]
pub(crate) struct Process {
    life: Life,
    /// A signal for the process. Its end, with the handle, is the process's.
    orders: mpsc::UnboundedSender<Signal>,
    shelf: Arc<Shelf>,
}

impl Process {
    /// Starts a process.
    ///
    /// If the caller goes away meanwhile, the process is killed as if its handle had been dropped.
    pub(crate) async fn spawn(spawn: Spawn) -> io::Result<Self> {
        let (answer, outcome) = oneshot::channel();
        supervisor()?.send(Request::Machine(Box::new(spawn), answer)).map_err(|_| supervisor_is_gone())?;
        outcome.await.map_err(|_| supervisor_is_gone())?
    }

    /// What is known of it, for those who only watch.
    pub(crate) fn life(&self) -> &Life {
        &self.life
    }

    pub(crate) fn pid(&self) -> u32 {
        self.life.pid()
    }

    /// When it was started.
    pub(crate) fn started(&self) -> Instant {
        self.life.started()
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&self) -> Option<Exited> {
        self.life.exited()
    }

    /// Waits until it has ended and is reaped.
    pub(crate) fn wait(&self) -> impl Future<Output = Exited> + Send + use<> {
        self.life.clone().wait()
    }

    /// Waits a while for a process that seems to be on its way out; see [`Life::ends_soon`].
    pub(crate) async fn ends_soon(&self, patience: Duration) -> Option<Exited> {
        self.life.ends_soon(patience).await
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it, and its group, by force.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // Nobody there to take it means that the process is gone already.
        let _gone = self.orders.send(signal);
    }

    /// Drops the estate, since the process has ended, and waits for that.
    pub(crate) async fn release(&self) {
        self.shelf.clear().await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Left by one that has ended already; otherwise the supervisor finds it there.
        let Some(estate) = self.shelf.forsake() else { return };
        let supervisor = SUPERVISOR.lock().unwrap_or_else(PoisonError::into_inner);
        match &*supervisor {
            // Without a supervisor it is dropped here.
            Some((owner, requests)) if *owner == std::process::id() => {
                let _gone = requests.send(Request::Estate(estate));
            }
            // A process that was forked off has a copy of all this, and none of it is its own.
            _ => std::mem::forget(estate),
        }
    }
}

enum Request {
    Machine(Box<Spawn>, oneshot::Sender<io::Result<Process>>),
    Tied(Command, std::sync::mpsc::SyncSender<io::Result<Tied>>),
    Estate(Box<dyn Estate>),
}

/// A child, and the thread of ours with which it ends.
pub(crate) type Tied = (Child, u32);

static SUPERVISOR: Mutex<Option<(u32, mpsc::UnboundedSender<Request>)>> = Mutex::new(None);

/// Starts a process that is killed when this program ends. Waits for the fork, not for what it starts.
pub(crate) fn start_tied(command: Command) -> io::Result<Tied> {
    let (answer, outcome) = std::sync::mpsc::sync_channel(1);
    supervisor()?.send(Request::Tied(command, answer)).map_err(|_| supervisor_is_gone())?;
    outcome.recv().map_err(|_| supervisor_is_gone())?
}

fn supervisor_is_gone() -> io::Error {
    io::Error::other("the thread that starts processes is gone")
}

/// The way to the supervisor of this process; a process that was forked off starts its own.
fn supervisor() -> io::Result<mpsc::UnboundedSender<Request>> {
    let mut supervisor = SUPERVISOR.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = std::process::id();
    if let Some((owner, requests)) = &*supervisor
        && *owner == pid
        && !requests.is_closed()
    {
        return Ok(requests.clone());
    }
    let (requests, inbox) = mpsc::unbounded_channel();
    let (ready, outcome) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name("ratite-supervisor".into()).spawn(move || live(inbox, &ready))?;
    outcome.recv().map_err(|_| supervisor_is_gone())??;
    *supervisor = Some((pid, requests.clone()));
    Ok(requests)
}

/// The supervisor's thread. It makes its runtime itself: one that came from a caller would, where no thread can be had, be
/// dropped in the caller's runtime, which panics.
fn live(inbox: mpsc::UnboundedReceiver<Request>, ready: &std::sync::mpsc::SyncSender<io::Result<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (runtime, outcome) = match runtime {
        Ok(runtime) => (Some(runtime), Ok(())),
        Err(error) => (None, Err(error)),
    };
    let _caller_waits = ready.send(outcome);
    if let Some(runtime) = runtime {
        runtime.block_on(serve(inbox));
    }
}

async fn serve(mut inbox: mpsc::UnboundedReceiver<Request>) {
    while let Some(request) = inbox.recv().await {
        match request {
            // A handle that nobody takes is dropped here, which kills what it stands for. A task of its own, because the
            // end of this one would be the end of every machine.
            Request::Machine(spawn, answer) => {
                drop(tokio::spawn(async move { drop(answer.send(start(*spawn))) }));
            }
            Request::Tied(command, answer) => {
                let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
                let child = ur_taking_me_with_you::spawn_dying_with_parent(command);
                let _gone = answer.send(child.map(|child| (child, thread)));
            }
            Request::Estate(estate) => drop(tokio::spawn(aside(|| drop(estate)))),
        }
    }
}

fn start(spawn: Spawn) -> io::Result<Process> {
    let (own_group, announce) = (spawn.own_group, spawn.announce);
    let started = Instant::now();
    let (pid, mark, estate) = fork(spawn)?;
    let (publish, state) = watch::channel(State::Running);
    let (orders, inbox) = mpsc::unbounded_channel();
    let announce = own_group.then_some(announce);
    let shelf = Arc::new(Shelf::new(estate));
    let owned =
        Owned { pid, reaped: false, own_group, mark, announce, started, publish, shelf: shelf.clone() };
    // Whatever goes wrong from here on, dropping what is owned ends the child.
    let number = owned.number();
    if let Some(announce) = announce {
        announce(number, true);
    }
    let pidfd = watch_end(pid)?;
    tokio::spawn(supervise(owned, pidfd, inbox));
    Ok(Process { life: Life::new(number, started, state), orders, shelf })
}

/// Starts what is to be started. Our copies of the child's ends close with that: its death is an end of file for us.
fn fork(spawn: Spawn) -> io::Result<(Pid, Option<String>, Box<dyn Estate>)> {
    let start = Start {
        program: &spawn.program,
        arguments: &spawn.arguments,
        environment: &spawn.environment,
        working_folder: spawn.working_folder.as_deref(),
        output: spawn.output.as_fd(),
        fds: &spawn.fds,
        own_group: spawn.own_group,
    };
    match starter::start(&start) {
        Ok(pid) => Ok((pid, spawn.mark, spawn.estate)),
        Err(NotStarted::Failed(error)) => Err(error),
        Err(NotStarted::NotThisWay) => fork_by_copy(spawn),
    }
}

/// The same by fork(2), which works everywhere, and takes longer.
fn fork_by_copy(spawn: Spawn) -> io::Result<(Pid, Option<String>, Box<dyn Estate>)> {
    let Spawn { program, arguments, environment, working_folder, output, fds, .. } = spawn;
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, value) in environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(folder) = working_folder {
        command.current_dir(folder);
    }
    command.stdin(std::process::Stdio::null()).stdout(output.try_clone()?).stderr(output);
    if spawn.own_group {
        command.process_group(0);
    }
    let Inheritance { mappings, placeholders } = inherit::exactly(fds)?;
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    inherit::no_blocked_signals(&mut command)?;
    let child = ur_taking_me_with_you::spawn_dying_with_parent(command)?;
    drop(placeholders);
    Ok((Pid::from_child(&child), spawn.mark, spawn.estate))
}

/// A descriptor that becomes readable when the child ends (pidfd_open(2), Linux 5.3). None of one that has ended already, and
/// was reaped by the program, which waits for every child.
#[expect(
    deprecated,
    reason = "sound for an OwnedFd, which keeps its descriptor; the replacement is `unsafe`"
)]
fn watch_end(pid: Pid) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => AsyncFd::new(pidfd).map(Some),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(named("pidfd_open", error.into())),
    }
}

/// A child that is not reaped yet, so that its pid, and its group's, are its own; and what it leaves when it is.
struct Owned {
    pid: Pid,
    /// Or somebody else sees to that.
    reaped: bool,
    own_group: bool,
    mark: Option<String>,
    /// Who is told of its group; `None` where it has none of its own, or its end was told.
    announce: Option<fn(u32, bool)>,
    started: Instant,
    publish: watch::Sender<State>,
    shelf: Arc<Shelf>,
}

impl Owned {
    fn number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal to it and its group. An error means that it is gone, or not ours to signal.
    fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        match self.own_group {
            true => rustix::process::kill_process_group(self.pid, signal),
            false => rustix::process::kill_process(self.pid, signal),
        }
    }

    /// Kills it with all its group and what has left the group, reaps it, and says how it ended.
    ///
    /// Can be begun again where a subscriber of the program's has panicked: each step says first that it is done.
    async fn end(&mut self, after: Duration) {
        // Before reaping: a zombie leader keeps its group's number from being given to somebody else.
        let _gone = self.signal(Signal::KILL);
        let strays = match self.mark.take() {
            Some(mark) => aside(move || strays::kill_marked(mark.as_bytes())).await,
            None => Ok(Vec::new()),
        };
        if strays::come_to_us() {
            self.reap_strays(strays.as_ref().unwrap_or_else(|left| left)).await;
        }
        if let Some(announce) = self.announce.take() {
            announce(self.number(), false);
        }
        let status = self.reap().await;
        self.publish.send_replace(State::Exited(Exited { status, after }));
        if strays.is_err() {
            tracing::warn!("processes of a machine are still there after they were killed");
        }
    }

    /// Leaves the estate to whoever holds the handle, or drops it where nobody does any more.
    async fn bequeath(&self) {
        if let Some(estate) = self.shelf.ended() {
            // Removing a folder may take long, and other machines must not wait for it.
            aside(|| drop(estate)).await;
        }
    }

    /// Reaps what came to us with the machine's end, for as long as such processes may take to end.
    async fn reap_strays(&self, killed: &[Pid]) {
        let mut ticks = tokio::time::interval(REAPING);
        let reaping = async {
            while strays::reap(self.pid, self.own_group, killed) {
                ticks.tick().await;
            }
        };
        // What takes longer stays a zombie: the machine's end is not to wait for it.
        let _left = within(STRAYS, "strays", reaping).await;
    }

    /// Reaps it. While somebody traces it (ptrace(2)), even a killed process cannot be reaped, and nothing tells when
    /// that is over: it is looked for again and again.
    async fn reap(&mut self) -> ProcessExit {
        let mut ticks = tokio::time::interval(REAPING);
        while !self.reaped {
            match rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG) {
                Ok(None) | Err(Errno::INTR) => {}
                Ok(Some((_, status))) => {
                    self.reaped = true;
                    return ProcessExit::new(ExitStatus::from_raw(status.as_raw()));
                }
                Err(error) => {
                    self.reaped = true;
                    tracing::warn!(%error, "could not reap a child");
                }
            }
            ticks.tick().await;
        }
        ProcessExit::unknown()
    }
}

impl Drop for Owned {
    /// Comes before the end only where something went wrong: the process could not be watched over, or a subscriber of the
    /// program's panicked. The end goes on in a task of its own.
    fn drop(&mut self) {
        if std::mem::replace(&mut self.reaped, true) {
            return;
        }
        let _gone = self.signal(Signal::KILL);
        let Ok(supervisor) = tokio::runtime::Handle::try_current() else { return };
        let mut rest = Self {
            reaped: false,
            mark: self.mark.take(),
            announce: self.announce.take(),
            publish: self.publish.clone(),
            shelf: self.shelf.clone(),
            ..*self
        };
        let end = async move {
            rest.end(rest.started.elapsed()).await;
            rest.bequeath().await;
        };
        drop(supervisor.spawn(end));
    }
}

/// How often a process is looked for that has ended and cannot be reaped yet.
const REAPING: Duration = Duration::from_millis(10);

/// How long is waited for strays that are to be reaped.
const STRAYS: Duration = Duration::from_secs(1);

async fn supervise(
    mut owned: Owned,
    pidfd: Option<AsyncFd<OwnedFd>>,
    mut orders: mpsc::UnboundedReceiver<Signal>,
) {
    if let Some(pidfd) = pidfd {
        until_exit(&owned, &pidfd, &mut orders).await;
    }
    // What is left of the group goes with its leader.
    owned.end(owned.started.elapsed()).await;
    owned.bequeath().await;
}

/// Carries out orders until the process has ended.
async fn until_exit(owned: &Owned, pidfd: &AsyncFd<OwnedFd>, orders: &mut mpsc::UnboundedReceiver<Signal>) {
    let mut abandoned = false;
    loop {
        tokio::select! {
            _ended = pidfd.readable() => return,
            order = orders.recv(), if !abandoned => match order {
                Some(signal) => {
                    if let Err(error) = owned.signal(signal) {
                        tracing::debug!(pid = owned.number(), ?signal, %error, "could not send a signal");
                    }
                }
                None => {
                    abandoned = true;
                    let _gone = owned.signal(Signal::KILL);
                    tracing::debug!(pid = owned.number(), "killed a machine that was dropped");
                }
            },
        }
    }
}
