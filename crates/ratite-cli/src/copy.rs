//! Copies a console to stdout as it comes, without losing a byte, and looks for a pattern on the way.
//!
//! A reader of stdout that is slower than the guest holds the guest up, as it would without ratite: when too much waits
//! to be written, the machine is paused, and goes on once that is on its way.
//!
//! Runs as a task of its own until the console's stream has ended and all of it is written, so that it goes on
//! while the machine is ended.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ratite::ConsoleError;
use ratite::Machine;
use ratite::Search;
use ratite::SearchError;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::output::Bytes;

/// How much may wait for a slow reader before the machine is paused.
const MUCH: usize = 16 << 20;

/// How much the console is to keep for us: what a serial port writes in many seconds, should we not come to read it.
pub(crate) const HISTORY: usize = 64 << 20;

/// What happened meanwhile that matters at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// What was looked for has appeared, or cannot be looked for any more.
    SearchOver,
    /// Nothing more can be written.
    Unwritable,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Whether what was looked for has appeared.
    pub(crate) found: Result<bool, SearchError>,
    /// Why not everything is written, if it is not.
    pub(crate) written: io::Result<()>,
    /// How many bytes the console's history dropped before they could be read.
    pub(crate) lost: u64,
}

impl Default for Copied {
    /// What is known of a copy that was given up on.
    fn default() -> Self {
        Self { found: Ok(false), written: Ok(()), lost: 0 }
    }
}

/// A console on its way to stdout.
#[derive(Debug)]
pub(crate) struct Copy {
    machine: Arc<Machine>,
    search: Option<Search>,
    news: Option<oneshot::Sender<News>>,
    backlog: Vec<u8>,
    copied: Copied,
}

impl Copy {
    /// A copy of the console of `machine`, which looks for a pattern if there is a `search`.
    pub(crate) fn of(machine: Arc<Machine>, search: Option<Search>) -> (Self, oneshot::Receiver<News>) {
        let (news, receiver) = oneshot::channel();
        let copy = Self { machine, search, news: Some(news), backlog: Vec::new(), copied: Copied::default() };
        (copy, receiver)
    }

    /// Copies until the console has ended, or nothing can be written any more.
    pub(crate) async fn run(self, output: Bytes) -> Copied {
        let machine = self.machine.clone();
        let (crowd, waiting) = watch::channel(0);
        tokio::select! {
            copied = self.copy(output, crowd) => copied,
            never = valve(&machine, waiting) => match never {},
        }
    }

    async fn copy(mut self, output: Bytes, crowd: watch::Sender<usize>) -> Copied {
        let machine = self.machine.clone();
        let Some(console) = machine.console() else {
            return self.done(output.finish().await);
        };
        let mut has_ended = false;
        let is_closed = loop {
            if has_ended && self.backlog.is_empty() {
                break false;
            }
            tokio::select! {
                read = console.read(Duration::MAX), if !has_ended => has_ended = self.take(read),
                Some(room) = output.room(), if !self.backlog.is_empty() => {
                    room.send(std::mem::take(&mut self.backlog));
                }
                () = output.closed() => break true,
            }
            crowd.send_replace(self.backlog.len());
        };
        let written = match is_closed {
            true => Err(output.failure().await),
            false => output.finish().await,
        };
        if written.is_err() {
            self.tell(News::Unwritable);
        }
        self.done(written)
    }

    /// Takes what was read; whether it was the last.
    fn take(&mut self, read: Result<Vec<u8>, ConsoleError>) -> bool {
        match read {
            Ok(bytes) if bytes.is_empty() => return true,
            Ok(bytes) => {
                self.look_at(&bytes);
                self.backlog.extend(bytes);
            }
            Err(ConsoleError::Lagged { dropped }) => self.copied.lost += dropped,
            // Without a limit it can only lag or end.
            Err(_) => return true,
        }
        false
    }

    fn look_at(&mut self, bytes: &[u8]) {
        let Some(search) = &mut self.search else { return };
        self.copied.found = search.feed(bytes).map(|end| end.is_some());
        if self.copied.found != Ok(false) {
            self.search = None;
            self.tell(News::SearchOver);
        }
    }

    fn tell(&mut self, news: News) {
        if let Some(channel) = self.news.take() {
            // Nobody listens once the machine is being ended.
            let _late = channel.send(news);
        }
    }

    fn done(self, written: io::Result<()>) -> Copied {
        Copied { written, ..self.copied }
    }
}

/// Pauses the machine while more than [`MUCH`] is waiting to be written. Beside the copying, which meanwhile goes on.
async fn valve(machine: &Machine, mut waiting: watch::Receiver<usize>) -> Infallible {
    loop {
        passes(&mut waiting, |waiting| *waiting > MUCH).await;
        // A machine that somebody else has paused is not ours to continue.
        let paused = is_running(machine).await && obeys(machine, "stop").await;
        passes(&mut waiting, |waiting| *waiting <= MUCH).await;
        if paused {
            obeys(machine, "cont").await;
        }
    }
}

async fn passes(waiting: &mut watch::Receiver<usize>, mark: impl FnMut(&usize) -> bool) {
    if waiting.wait_for(mark).await.is_err() {
        // The copying is over, and this with it.
        std::future::pending::<()>().await;
    }
}

async fn is_running(machine: &Machine) -> bool {
    let status = machine.cmd("query-status", ()).await;
    status.is_ok_and(|status| status["running"] == true)
}

/// Whether QEMU did it. One that is about to end need not.
async fn obeys(machine: &Machine, command: &str) -> bool {
    machine.cmd(command, ()).await.is_ok()
}
