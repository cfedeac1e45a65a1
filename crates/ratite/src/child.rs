//! A child: signalled and reaped by whoever comes first, but never signalled once it is reaped.
//!
//! Its number, and its group's, are its own until then. So both go on under one lock, and whoever waits for its end may do what is
//! to be done at its end, in the place of the supervisor, whose turn would be one wake-up later.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use ratite_qmp::within;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::WaitOptions;
use tokio::sync::watch;

use crate::exit::ProcessExit;
use crate::life::Exited;
use crate::life::State;
use crate::runtime::aside;
use crate::strays;

/// Who is told of a process's group: that it is there, and that it is not any more.
pub(crate) type Announce = fn(u32, bool);

/// A child, until it is reaped and after it.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    /// Whose child it is: a process that was forked off has a copy of this, and is to leave the child alone.
    parent: u32,
    own_group: bool,
    mark: Option<String>,
    started: Instant,
    /// Readable once it has ended; `None` of one that was reaped by the program before that could be had.
    pidfd: Option<Arc<OwnedFd>>,
    rest: Mutex<Rest>,
    /// How many wait for its end on a runtime that sees it.
    attending: AtomicUsize,
    publish: watch::Sender<State>,
}

/// What is still to be done.
#[derive(Debug)]
struct Rest {
    reaped: bool,
    /// `None` where it has no group of its own, or its end was told.
    announce: Option<Announce>,
}

/// How often a process is looked for that has ended and cannot be reaped yet.
const REAPING: Duration = Duration::from_millis(10);

/// How long is waited for strays that are to be reaped.
const STRAYS: Duration = Duration::from_secs(1);

impl Child {
    /// A child that runs; its end goes to `publish`. `mark` is by what a process of it is found that has left its group, where one
    /// may have. Its group, where it has one, is announced.
    pub(crate) fn new(
        pid: Pid,
        pidfd: Option<OwnedFd>,
        mark: Option<String>,
        announce: Option<Announce>,
        started: Instant,
        publish: watch::Sender<State>,
    ) -> Self {
        let own_group = announce.is_some();
        let child = Self {
            pid,
            parent: std::process::id(),
            own_group,
            mark,
            started,
            pidfd: pidfd.map(Arc::new),
            rest: Mutex::new(Rest { reaped: false, announce }),
            attending: AtomicUsize::new(0),
            publish,
        };
        if let Some(announce) = announce {
            announce(child.number(), true);
        }
        child
    }

    pub(crate) fn number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn pidfd(&self) -> Option<Arc<OwnedFd>> {
        self.pidfd.clone()
    }

    /// Says that somebody who sees its end waits for it, as long as what is returned lives.
    pub(crate) fn attend(self: Arc<Self>) -> Attending {
        self.attending.fetch_add(1, Ordering::Relaxed);
        Attending(self)
    }

    pub(crate) fn is_attended(&self) -> bool {
        self.attending.load(Ordering::Relaxed) > 0
    }

    fn is_reaped(&self) -> bool {
        self.rest().reaped
    }

    /// Sends a signal to it and its group. An error means that it is gone, or not ours to signal.
    pub(crate) fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        if self.parent != std::process::id() {
            return Err(Errno::CHILD);
        }
        let rest = self.rest();
        if rest.reaped { Err(Errno::SRCH) } else { self.send(signal) }
    }

    /// The same where it is known not to be reaped.
    fn send(&self, signal: Signal) -> rustix::io::Result<()> {
        match self.own_group {
            true => rustix::process::kill_process_group(self.pid, signal),
            false => rustix::process::kill_process(self.pid, signal),
        }
    }

    /// Does what is to be done at its end, where that is no more than to kill its group and to reap it; it has ended. Whether it
    /// is reaped.
    fn end_at_once(&self) -> bool {
        if self.parent != std::process::id() || self.mark.is_some() || strays::come_to_us() {
            return self.is_reaped();
        }
        self.kill_and_reap(self.started.elapsed())
    }

    /// Kills it with all its group and what has left the group, reaps it, and says how it ended.
    ///
    /// Can be begun again where a subscriber of the program's has panicked.
    pub(crate) async fn end(&self) {
        if self.is_reaped() {
            return;
        }
        let after = self.started.elapsed();
        // Before reaping: a zombie leader keeps its group's number from being given to somebody else.
        let _gone = self.signal(Signal::KILL);
        let strays = match self.mark.clone() {
            Some(mark) => aside(move || strays::kill_marked(mark.as_bytes())).await,
            None => Ok(Vec::new()),
        };
        if strays::come_to_us() {
            self.reap_strays(strays.as_ref().unwrap_or_else(|left| left)).await;
        }
        // While somebody traces it (ptrace(2)), even a killed process cannot be reaped, and nothing tells when that is over.
        let mut ticks = None;
        while !self.kill_and_reap(after) {
            ticks.get_or_insert_with(|| tokio::time::interval(REAPING)).tick().await;
        }
        if strays.is_err() {
            tracing::warn!("processes of a machine are still there after they were killed");
        }
    }

    /// Whether it is reaped now, by whomever.
    fn kill_and_reap(&self, after: Duration) -> bool {
        let mut rest = self.rest();
        if rest.reaped {
            return true;
        }
        let _gone = self.send(Signal::KILL);
        if let Some(announce) = rest.announce.take() {
            announce(self.number(), false);
        }
        let outcome = rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG);
        let status = match outcome {
            Ok(None) | Err(Errno::INTR) => return false,
            Ok(Some((_, status))) => ProcessExit::new(ExitStatus::from_raw(status.as_raw())),
            Err(_) => ProcessExit::unknown(),
        };
        rest.reaped = true;
        drop(rest);
        self.publish.send_replace(State::Exited(Exited { status, after }));
        if let Err(error) = outcome {
            tracing::warn!(%error, "could not reap a child");
        }
        true
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

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for a child's end, and sees to it.
#[derive(Debug)]
pub(crate) struct Attending(Arc<Child>);

impl Attending {
    /// See [`Child::end_at_once`].
    pub(crate) fn end_at_once(&self) -> bool {
        self.0.end_at_once()
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        self.0.attending.fetch_sub(1, Ordering::Relaxed);
    }
}
