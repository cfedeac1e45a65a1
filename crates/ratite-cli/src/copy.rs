//! Copies a console to stdout as it comes, without losing a byte, and looks for patterns on the way.
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

use ratite::Console;
use ratite::ConsoleError;
use ratite::Machine;
use ratite::Patterns;
use ratite::Search;
use ratite::SearchError;
use tokio::sync::Mutex;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::output::Bytes;
use crate::questions::Questions;
use crate::records::ConsoleText;
use crate::records::Records;

/// How much may wait for a slow reader before the machine is paused.
const MUCH: usize = 16 << 20;

/// How much the console is to keep for us: what a serial port writes in many seconds, should we not come to read it.
pub(crate) const HISTORY: usize = 64 << 20;

/// How long it may take to find again what was found, with its groups, in all that is kept.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// What happened meanwhile that matters at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// What was looked for has appeared: which of it. Or it cannot be looked for any more.
    SearchOver(Option<usize>),
    /// Nothing more can be written.
    Unwritable,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Which of the patterns has appeared, by its place among them.
    pub(crate) found: Result<Option<usize>, SearchError>,
    /// Why not everything is written, if it is not.
    pub(crate) written: io::Result<()>,
    /// How many bytes the console's history dropped before they could be read.
    pub(crate) lost: u64,
}

impl Default for Copied {
    /// What is known of a copy that was given up on.
    fn default() -> Self {
        Self { found: Ok(None), written: Ok(()), lost: 0 }
    }
}

/// What becomes of a console on stdout.
#[derive(Debug)]
pub(crate) enum Form {
    /// Its bytes, as they are.
    Bytes,
    /// On a terminal, but for what it would answer.
    Shown(Questions),
    /// Nothing.
    Nothing,
    /// Records, each a line.
    Records { records: Records, text: ConsoleText },
}

/// A console on its way to stdout.
#[derive(Debug)]
pub(crate) struct Copy {
    machine: Arc<Machine>,
    patterns: Option<Patterns>,
    search: Option<Search>,
    news: Option<oneshot::Sender<News>>,
    form: Form,
    backlog: Vec<u8>,
    copied: Copied,
    reins: Reins,
    /// The console as it was at first, for a second look.
    again: Option<Console>,
}

/// Whoever holds this may pause the machine, and has it go on again before giving it up.
pub(crate) type Reins = Arc<Mutex<()>>;

impl Copy {
    /// A copy of the console of `machine`, in which patterns are looked for, behind what is in `backlog`.
    pub(crate) fn of(
        machine: Arc<Machine>,
        patterns: Option<(Patterns, Search)>,
        form: Form,
        backlog: Vec<u8>,
    ) -> (Self, oneshot::Receiver<News>) {
        let (news, receiver) = oneshot::channel();
        let (patterns, search) = patterns.unzip();
        let (news, copied) = (Some(news), Copied::default());
        // Not from the beginning: a restored console begins with the line at which it was frozen.
        let again = machine.console().map(Console::reader_from_here);
        let reins = Reins::default();
        (Self { machine, patterns, search, news, form, backlog, copied, reins, again }, receiver)
    }

    /// What keeps the machine from being paused for a slow reader, while somebody else holds it.
    pub(crate) fn reins(&self) -> Reins {
        self.reins.clone()
    }

    /// Copies until the console has ended, or nothing can be written any more.
    pub(crate) async fn run(self, output: Bytes) -> Copied {
        let (machine, reins) = (self.machine.clone(), self.reins());
        let (crowd, waiting) = watch::channel(0);
        tokio::select! {
            copied = self.copy(output, crowd) => copied,
            never = valve(&machine, waiting, &reins) => match never {},
        }
    }

    async fn copy(mut self, output: Bytes, crowd: watch::Sender<usize>) -> Copied {
        let machine = self.machine.clone();
        let console = machine.console();
        let mut has_ended = console.is_none();
        let is_closed = loop {
            if has_ended && self.backlog.is_empty() {
                break false;
            }
            tokio::select! {
                read = read(console), if !has_ended => has_ended = self.take(read).await,
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
    async fn take(&mut self, read: Result<Vec<u8>, ConsoleError>) -> bool {
        match read {
            Ok(bytes) if bytes.is_empty() => {
                if let Form::Records { records, text } = &mut self.form {
                    self.backlog.extend(records.console_ended(text));
                }
                return true;
            }
            Ok(bytes) => {
                let found = self.look_at(&bytes);
                match &mut self.form {
                    Form::Bytes => self.backlog.extend(bytes),
                    Form::Shown(questions) => self.backlog.extend(questions.without(&bytes)),
                    Form::Nothing => {}
                    Form::Records { records, text } => self.backlog.extend(records.console(text, &bytes)),
                }
                if let Some(index) = found {
                    self.record_match(index).await;
                }
            }
            Err(ConsoleError::Lagged { dropped }) => self.copied.lost += dropped,
            // Without a limit it can only lag or end.
            Err(_) => return true,
        }
        false
    }

    /// Looks for what is looked for; which it is, if it is there.
    fn look_at(&mut self, bytes: &[u8]) -> Option<usize> {
        let search = self.search.as_mut()?;
        self.copied.found = match search.feed(bytes) {
            Ok(None) => return None,
            Ok(Some(_)) => Ok(search.found()),
            Err(error) => Err(error),
        };
        self.search = None;
        let found = self.copied.found.clone().ok().flatten();
        self.tell(News::SearchOver(found));
        found
    }

    async fn record_match(&mut self, index: usize) {
        let (Form::Records { records, .. }, Some(patterns)) = (&self.form, &self.patterns) else { return };
        let Some(console) = &self.again else { return };
        // What was found is recorded, and the first match in the record is this one.
        let found = match console.expect(patterns, SECOND_LOOK).await {
            Ok(found) => Some(found),
            Err(ConsoleError::Failure { found, .. }) => Some(*found),
            Err(_) => None,
        };
        self.backlog.extend(records.matched(patterns, index, found.as_ref()));
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

/// What the console has to say, if there is one.
async fn read(console: Option<&Console>) -> Result<Vec<u8>, ConsoleError> {
    match console {
        Some(console) => console.read(Duration::MAX).await,
        None => Ok(Vec::new()),
    }
}

/// Pauses the machine while more than [`MUCH`] is waiting to be written. Beside the copying, which meanwhile goes on.
async fn valve(machine: &Machine, mut waiting: watch::Receiver<usize>, reins: &Reins) -> Infallible {
    loop {
        passes(&mut waiting, |waiting| *waiting > MUCH).await;
        let _held = reins.lock().await;
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
