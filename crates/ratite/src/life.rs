//! What is known of a process: that it runs, or how it ended. To be watched by anybody; the process itself belongs to its
//! supervisor.

use std::future::Future;
use std::time::Duration;
use std::time::Instant;

use ratite_qmp::within;
use tokio::sync::watch;

use crate::exit::ProcessExit;
use crate::procfs::is_ending;

/// A process as seen by those who only watch. Cheap to clone, and keeps nothing alive.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pid: u32,
    started: Instant,
    state: watch::Receiver<State>,
}

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Exited(Exited),
}

/// A process that has ended and was reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exited {
    pub(crate) status: ProcessExit,
    /// From its start to its end.
    pub(crate) after: Duration,
}

/// How long a process that the kernel is already ending may take for it.
const ENDING: Duration = Duration::from_secs(10);

impl Life {
    /// A life that is told of by `state`.
    pub(crate) fn new(pid: u32, started: Instant, state: watch::Receiver<State>) -> Self {
        Self { pid, started, state }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&self) -> Option<Exited> {
        match *self.state.borrow() {
            State::Running => None,
            State::Exited(exited) => Some(exited),
        }
    }

    /// Waits until it has ended and is reaped.
    pub(crate) async fn wait(mut self) -> Exited {
        loop {
            if let State::Exited(exited) = *self.state.borrow_and_update() {
                return exited;
            }
            if self.state.changed().await.is_err() {
                // The supervisor publishes before it goes, unless it panicked in the middle of that.
                return Exited { status: ProcessExit::unknown(), after: self.started.elapsed() };
            }
        }
    }

    /// Waits a while for a process that seems to be on its way out, because it has closed a connection.
    ///
    /// The kernel closes a process's descriptors while it ends, and on a busy machine the rest takes its time: one that is
    /// known to be ending is waited for longer than `patience`.
    pub(crate) async fn ends_soon(&self, patience: Duration) -> Option<Exited> {
        self.ends_soon_by(patience, || self.clone().wait()).await
    }

    /// The same, by another way to wait for its end.
    pub(crate) async fn ends_soon_by<F: Future<Output = Exited>>(
        &self,
        patience: Duration,
        end: impl Fn() -> F,
    ) -> Option<Exited> {
        if let Ok(exited) = within(patience, "exit", end()).await {
            return Some(exited);
        }
        match is_ending(self.pid) {
            true => within(ENDING, "exit", end()).await.ok(),
            // It may have been reaped between the two looks.
            false => self.exited(),
        }
    }
}
