//! The supervisor that owns the child: spawn, reap, state.
//!
//! One thread for each program, `ratite-supervisor`, forks all children, because PR_SET_PDEATHSIG fires when the thread
//! that forked ends. It runs a small runtime of its own, so children are reaped and killed even while the caller's
//! runtime is blocked or gone. Who waits for an end on a runtime of his own does not wait for the supervisor's turn: the first
//! who sees it reaps the child.
//!
//! ```text
//! spawn ─► Running ── exit ─► group killed, reaped ─► Exited ── released, or the handle dropped ─► estate dropped
//!             └── the handle dropped ─► SIGKILL ──┘
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use command_fds::CommandFdExt;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::child::Announce;
use crate::child::Child;
use crate::estate::Estate;
use crate::estate::Shelf;
use crate::inherit;
use crate::inherit::Inheritance;
use crate::life::Exited;
use crate::life::Life;
use crate::life::State;
use crate::procfs::named;
use crate::runtime::aside;
use crate::runtime::pass;
use crate::starter;
use crate::starter::NotStarted;
use crate::starter::Start;

/// What to start, ready for the kernel.
#[derive(Debug)]
pub(crate) struct Spawn {
    /// What was said of it before, see [`Process::herald`].
    pub(crate) launch: Option<u64>,
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
    pub(crate) announce: Announce,
    /// Dropped once the process is gone and nobody needs it any more.
    pub(crate) estate: Box<dyn Estate>,
}

/// A process that is being started. Dropping it ends the process, as dropping its handle does.
#[derive(Debug)]
pub(crate) struct Starting {
    answer: oneshot::Receiver<io::Result<Process>>,
    state: watch::Receiver<State>,
}

impl Starting {
    /// Waits until the process has ended, or could not be started. That it is started wakes nobody here.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut state = self.state.clone();
        async move {
            // An error is the supervisor's way to say that there is no process.
            let _over = state.wait_for(|state| *state != State::Running).await;
        }
    }

    /// Waits until it runs the program that it is to run.
    pub(crate) async fn started(self) -> io::Result<Process> {
        self.answer.await.map_err(|_| supervisor_is_gone())?
    }
}

/// A started process. Dropping it kills the process, its group with it, and drops its estate after that; it never waits.
#[derive(Debug)]
pub(crate) struct Process {
    life: Life,
    child: Arc<Child>,
    shelf: Arc<Shelf>,
    /// Watches its end in the runtime in which its monitor is.
    here: Option<Arc<AsyncFd<Arc<OwnedFd>>>>,
}

impl Process {
    /// Says that a process will be started soon, so that the supervisor awakes, and gets ready for it, meanwhile. `launch` is that of
    /// the [`Spawn`] to come.
    pub(crate) fn herald(launch: u64) {
        if COMING.load(Ordering::Relaxed) == 0
            && let Ok(supervisor) = supervisor()
        {
            let _gone = supervisor.send(Request::Soon(launch));
        }
    }

    /// Begins to start a process; our copies of what it is given close with that.
    ///
    /// If the caller goes away meanwhile, the process is killed as if its handle had been dropped.
    pub(crate) fn begin(spawn: Spawn) -> io::Result<Starting> {
        let (answer, outcome) = oneshot::channel();
        let (publish, state) = watch::channel(State::Running);
        let request = Request::Machine(Box::new(Birth { spawn, publish, state: state.clone() }), answer);
        COMING.fetch_add(1, Ordering::Relaxed);
        supervisor()?.send(request).map_err(|_| supervisor_is_gone())?;
        Ok(Starting { answer: outcome, state })
    }

    /// Starts a process.
    pub(crate) async fn spawn(spawn: Spawn) -> io::Result<Self> {
        Self::begin(spawn)?.started().await
    }

    /// Has `runtime`, or else this one, see to its end, beside the supervisor. It has to be one that watches descriptors.
    pub(crate) fn watch_in(&mut self, runtime: Option<&Handle>) {
        let _entered = runtime.map(Handle::enter);
        // Without that, the supervisor's word is waited for.
        self.here = self.child.pidfd().and_then(|pidfd| watched(pidfd).ok()).map(Arc::new);
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

    /// Waits until it has ended and is reaped, which is done here if this is where its end is seen first.
    pub(crate) fn wait(&self) -> impl Future<Output = Exited> + Send + use<> {
        let (life, child, here) = (self.life.clone(), Arc::clone(&self.child), self.here.clone());
        async move {
            if let Some(here) = here {
                let attending = child.attend();
                tokio::select! {
                    biased;
                    exited = life.clone().wait() => return exited,
                    // An error means that the runtime is gone.
                    Ok(_ended) = here.readable() => drop(attending.end_at_once()),
                    else => {}
                }
            }
            life.wait().await
        }
    }

    /// Waits a while for a process that seems to be on its way out; see [`Life::ends_soon`].
    pub(crate) async fn ends_soon(&self, patience: Duration) -> Option<Exited> {
        self.life.ends_soon_by(patience, || self.wait()).await
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
        if let Err(error) = self.child.signal(signal) {
            tracing::debug!(pid = self.pid(), ?signal, %error, "could not send a signal");
        }
    }

    /// Drops the estate, since the process has ended, and waits for that.
    pub(crate) async fn release(&self) {
        self.shelf.clear().await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _gone = self.child.signal(Signal::KILL);
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

/// What is to be started, and where its end is published.
struct Birth {
    spawn: Spawn,
    publish: watch::Sender<State>,
    state: watch::Receiver<State>,
}

/// How many processes wait to be started.
static COMING: AtomicUsize = AtomicUsize::new(0);

enum Request {
    /// To get ready for the start of this launch's process.
    Soon(u64),
    Machine(Box<Birth>, oneshot::Sender<io::Result<Process>>),
    Tied(Command, std::sync::mpsc::SyncSender<io::Result<Tied>>),
    Estate(Box<dyn Estate>),
}

/// A child, and the thread of ours with which it ends.
pub(crate) type Tied = (std::process::Child, u32);

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
            Request::Soon(launch) => starter::get_ready(launch),
            // A handle that nobody takes is dropped here, which kills what it stands for. A task of its own, because the
            // end of this one would be the end of every machine.
            Request::Machine(birth, answer) => {
                drop(tokio::spawn(async move { drop(answer.send(start(*birth))) }));
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

fn start(birth: Birth) -> io::Result<Process> {
    let Birth { spawn, publish, state } = birth;
    COMING.fetch_sub(1, Ordering::Relaxed);
    let announce = spawn.own_group.then_some(spawn.announce);
    let started = Instant::now();
    let (pid, mark, estate) = fork(spawn)?;
    let (pidfd, lack) = match pidfd_of(pid) {
        Ok(pidfd) => (pidfd, None),
        Err(error) => (None, Some(error)),
    };
    let child = Arc::new(Child::new(pid, pidfd, mark, announce, started, publish));
    let shelf = Arc::new(Shelf::new(estate));
    // Whatever goes wrong from here on, dropping what is owned ends the child.
    let owned = Owned::new(&child, &shelf);
    if let Some(error) = lack {
        return Err(error);
    }
    let pidfd = child.pidfd().map(watched).transpose()?;
    tokio::spawn(supervise(owned, pidfd));
    Ok(Process { life: Life::new(child.number(), started, state), child, shelf, here: None })
}

/// Starts what is to be started. Our copies of the child's ends close with that: its death is an end of file for us.
fn fork(spawn: Spawn) -> io::Result<(Pid, Option<String>, Box<dyn Estate>)> {
    let start = Start {
        launch: spawn.launch,
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
fn pidfd_of(pid: Pid) -> io::Result<Option<OwnedFd>> {
    match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(named("pidfd_open", error.into())),
    }
}

/// The same descriptor, watched by this runtime.
#[expect(
    deprecated,
    reason = "sound for an OwnedFd, which keeps its descriptor; the replacement is `unsafe`"
)]
fn watched(pidfd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// A child that is this thread's to end, and what it leaves when it has.
struct Owned {
    child: Arc<Child>,
    shelf: Arc<Shelf>,
    bequeathed: bool,
}

impl Owned {
    fn new(child: &Arc<Child>, shelf: &Arc<Shelf>) -> Self {
        Self { child: Arc::clone(child), shelf: Arc::clone(shelf), bequeathed: false }
    }

    /// Leaves the estate to whoever holds the handle, or drops it where nobody does any more.
    async fn bequeath(mut self) {
        self.bequeathed = true;
        if let Some(estate) = self.shelf.ended() {
            // Removing a folder may take long, and other machines must not wait for it.
            aside(|| drop(estate)).await;
        }
    }
}

impl Drop for Owned {
    /// Comes before the end only where something went wrong: the process could not be watched over, or a subscriber of the
    /// program's panicked. The end goes on in a task of its own.
    fn drop(&mut self) {
        if self.bequeathed {
            return;
        }
        let _gone = self.child.signal(Signal::KILL);
        let Ok(supervisor) = Handle::try_current() else { return };
        drop(supervisor.spawn(supervise(Self::new(&self.child, &self.shelf), None)));
    }
}

/// How long those who wait for an end on a runtime of their own have for it before the supervisor does it. Both at once would stand
/// in each other's way.
const MOMENT: Duration = Duration::from_millis(1);

async fn supervise(owned: Owned, pidfd: Option<AsyncFd<Arc<OwnedFd>>>) {
    if let Some(pidfd) = pidfd {
        let _ended = pidfd.readable().await;
        if owned.child.is_attended() {
            Box::pin(pass(MOMENT)).await;
        }
    }
    // Boxed: it is not to take room all the time that the process runs.
    Box::pin(async {
        // What is left of the group goes with its leader.
        owned.child.end().await;
        owned.bequeath().await;
    })
    .await;
}
