//! The pump: reads a console from its first byte on, whether or not anybody looks.
//!
//! QEMU blocks when its console's socket is full, and a blocked QEMU cannot even quit; so one task reads always, into a
//! bounded history and, if wanted, a log file. Readers look at the history at their own pace. When they are too slow,
//! the oldest bytes go and are counted; the guest never waits.
//!
//! The pump runs on the background runtime and ends with the stream.

mod error;
mod expect;
mod log;
mod pump;
mod stamps;
mod standing;

use std::fmt::Display;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;

use ratite_qmp::TimedOut;
use ratite_qmp::within;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::ConsoleConfig;
use crate::exit::Tail;
use crate::fate::Fate;
use crate::history::History;
use crate::history::Place;
use crate::runtime::background;
pub use error::ConsoleError;
pub use expect::Found;
use log::LogFile;
use pump::Recorder;
use pump::Takeover;
use pump::WriteRequest;
use pump::pump;
use standing::Standing;

/// The console of a machine. Cheap to clone; clones share one place in the stream, and [`Console::reader`] makes one that
/// has a place of its own.
///
/// It goes on being readable after the machine has ended: what was recorded stays.
#[derive(Debug, Clone)]
pub struct Console {
    shared: Arc<Shared>,
    /// Locked after the shared state, and only with it.
    place: Arc<Mutex<Place>>,
    writes: mpsc::Sender<WriteRequest>,
    takeovers: mpsc::Sender<Takeover>,
    write_limit: Duration,
    /// Of a console that belongs to no machine.
    guard: Option<Arc<PumpGuard>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    /// Of a console that belongs to a machine, once that runs.
    fate: OnceLock<Arc<Fate>>,
    /// How many bytes stood there before the guest said anything.
    before: u64,
}

#[derive(Debug)]
struct State {
    history: History,
    standing: Standing,
    ended: bool,
    log_fault: Option<String>,
}

/// How much of the console an error carries.
const LAST_WORDS: usize = 2 << 10;

/// The longest line that is taken for a prompt, with all that is in it for the terminal alone.
const LONGEST_PROMPT: usize = 512;

/// How many writes may wait behind one another.
const WRITES: usize = 16;

/// Ends a pump whose stream does not end by itself, because somebody else holds the other end.
///
/// To be dropped when the machine's process is gone; what it had written is still read then.
#[derive(Debug)]
pub(crate) struct PumpGuard {
    pump: Option<JoinHandle<()>>,
    runtime: Handle,
}

/// How long a stream may stay open once its process is gone. Only a process that has left the machine's group can hold
/// it.
const STREAM_END: Duration = Duration::from_secs(1);

impl Drop for PumpGuard {
    fn drop(&mut self) {
        let Some(mut pump) = self.pump.take().filter(|pump| !pump.is_finished()) else { return };
        self.runtime.spawn(async move {
            if within(STREAM_END, "end of the console", &mut pump).await.is_err() {
                pump.abort();
            }
        });
    }
}

impl Console {
    /// Starts to pump `stream` on `runtime`, keeping of it what `config` says.
    pub(crate) fn pump(
        stream: StdUnixStream,
        config: &ConsoleConfig,
        write_limit: Duration,
        runtime: &Handle,
    ) -> io::Result<(Self, PumpGuard)> {
        let log = config.log.as_deref().map(|path| LogFile::create(path, config.timestamps)).transpose()?;
        stream.set_nonblocking(true)?;
        let stream = {
            let _within = runtime.enter();
            UnixStream::from_std(stream)?
        };
        let mut history = History::new(config.history);
        history.take_in(&mut config.standing.clone());
        // Whoever had frozen the guest had read this.
        let place = Arc::new(Mutex::new(history.now()));
        let before = history.end();
        let state = State { history, standing: Standing::default(), ended: false, log_fault: None };
        let shared =
            Shared { state: Mutex::new(state), changed: Notify::new(), fate: OnceLock::new(), before };
        let shared = Arc::new(shared);
        let (writes, write_inbox) = mpsc::channel(WRITES);
        let (takeovers, takeover_inbox) = mpsc::channel(1);
        let recorder = Recorder { shared: shared.clone(), log };
        let pump = runtime.spawn(pump(stream, recorder, write_inbox, takeover_inbox));
        let guard = PumpGuard { pump: Some(pump), runtime: runtime.clone() };
        Ok((Self { shared, place, writes, takeovers, write_limit, guard: None }, guard))
    }

    /// A console over any connected stream, such as one that some QEMU serves on a socket; pumped until the stream ends
    /// or the last clone is dropped.
    ///
    /// Of `config`, history and log count.
    ///
    /// # Errors
    /// When the log file cannot be made, or the system has no more threads.
    #[doc(alias = "ConsoleSocket")]
    pub fn over(stream: StdUnixStream, config: &ConsoleConfig, write_limit: Duration) -> io::Result<Self> {
        let (mut console, guard) = Self::pump(stream, config, write_limit, &background()?)?;
        console.guard = Some(Arc::new(guard));
        Ok(console)
    }

    /// Lets waits end with what happens to the machine.
    pub(crate) fn belong_to(&self, fate: &Arc<Fate>) {
        // It belongs to one machine for good.
        let _first = self.shared.fate.set(fate.clone());
    }

    /// The same console, read from a place of its own: it begins with the oldest byte that is still recorded, and what it
    /// takes is there for all others.
    #[must_use]
    pub fn reader(&self) -> Self {
        let place = self.shared.lock().history.beginning();
        self.reader_at(place)
    }

    /// The same, but from now on: what has arrived already is passed over.
    #[must_use]
    pub fn reader_from_now(&self) -> Self {
        let place = self.shared.lock().history.now();
        self.reader_at(place)
    }

    fn reader_at(&self, place: Place) -> Self {
        Self { place: Arc::new(Mutex::new(place)), ..self.clone() }
    }

    /// Stops the pump and hands over the stream itself, in blocking mode, with what had arrived and was not read yet.
    ///
    /// A write that is under way is broken off. Dropping the future once the pump has stopped closes the stream.
    ///
    /// For this and every other clone the console has ended then. From here on the stream is yours to read: a QEMU whose
    /// console nobody reads stops.
    ///
    /// # Errors
    /// [`ConsoleError::Ended`] when the stream has ended, or was handed over before.
    #[doc(alias = "console_socket")]
    pub async fn take_stream(&self) -> Result<(StdUnixStream, Vec<u8>), ConsoleError> {
        let ended = || self.has_ended_while("its stream");
        let (takeover, stream) = oneshot::channel();
        self.takeovers.send(takeover).await.map_err(|_| ended())?;
        let stream = stream.await.map_err(|_| ended())?.map_err(ConsoleError::Write)?;
        Ok((stream, self.with_place(|state, place| state.history.take_all(place))))
    }

    /// Takes what has arrived and was not read yet, waiting for the first byte at most `limit`. Empty at the end of the
    /// stream.
    ///
    /// # Errors
    /// [`ConsoleError::TimedOut`]; [`ConsoleError::Lagged`] once after bytes were dropped.
    pub async fn read(&self, limit: Duration) -> Result<Vec<u8>, ConsoleError> {
        self.read_at_most(usize::MAX, limit).await
    }

    /// The same, but takes at most `bytes` bytes; what follows stays for the next reader.
    ///
    /// # Errors
    /// As [`Console::read`].
    pub async fn read_at_most(&self, bytes: usize, limit: Duration) -> Result<Vec<u8>, ConsoleError> {
        let output = self.look(|state, place| match state.take_at_most(place, bytes)? {
            nothing if nothing.is_empty() && !state.ended && bytes > 0 => Ok(Look::Later),
            taken => Ok(Look::Found(taken)),
        });
        self.within(limit, "output on the console", output).await
    }

    /// Waits until a read would yield something or the stream has ended, at most for `limit`, and takes nothing.
    ///
    /// # Errors
    /// [`ConsoleError::TimedOut`].
    pub async fn ready(&self, limit: Duration) -> Result<(), ConsoleError> {
        let there = |state: &State, place: Place| state.ended || state.history.has_unread(place);
        let output =
            self.look(|state, place| Ok(if there(state, *place) { Look::Found(()) } else { Look::Later }));
        self.within(limit, "output on the console", output).await
    }

    /// Takes what has arrived and was not read yet; empty if there is nothing.
    ///
    /// # Errors
    /// [`ConsoleError::Lagged`] once after bytes were dropped.
    pub fn take(&self) -> Result<Vec<u8>, ConsoleError> {
        self.with_place(|state, place| state.take_at_most(place, usize::MAX))
    }

    /// Writes all of `bytes` to the console, as if they were typed.
    ///
    /// Bounded by [`crate::Timeouts::console`], since a guest need not read. Once begun, a write is finished even if
    /// the caller goes away or the limit is over, so that no later write can come in its middle.
    ///
    /// # Errors
    /// [`ConsoleError::TimedOut`], [`ConsoleError::Ended`], [`ConsoleError::Write`].
    #[doc(alias = "send")]
    pub async fn write(&self, bytes: impl AsRef<[u8]>) -> Result<(), ConsoleError> {
        let ended = || self.has_ended_while("the guest to take what is written");
        let (done, outcome) = oneshot::channel();
        let request = WriteRequest { bytes: bytes.as_ref().to_vec(), done };
        let write = async {
            self.writes.send(request).await.map_err(|_| ended())?;
            outcome.await.map_err(|_| ended())?.map_err(ConsoleError::Write)
        };
        self.within(self.write_limit, "room for a write to the console", write).await
    }

    /// Types a line and the Enter key, which is a carriage return on a serial line. Otherwise as [`Console::write`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_line(&self, line: impl AsRef<str>) -> Result<(), ConsoleError> {
        self.write(format!("{}\r", line.as_ref())).await
    }

    /// At most the last `limit` bytes, read or not; nothing is taken.
    #[must_use]
    pub fn tail(&self, limit: usize) -> Tail {
        self.shared.lock().history.tail(limit)
    }

    /// How many bytes the guest has written in all; a restored one since then.
    #[must_use]
    pub fn bytes_seen(&self) -> u64 {
        self.shared.lock().history.end() - self.shared.before
    }

    /// Whether nothing has come since the guest was restored, so that what stands there has stood since it was frozen.
    pub(crate) fn is_as_frozen(&self) -> bool {
        self.shared.before > 0 && self.bytes_seen() == 0
    }

    /// The line that the guest has begun and not ended, if it is not too long for a prompt.
    pub(crate) fn last_line(&self) -> Vec<u8> {
        let tail = self.tail(LONGEST_PROMPT).bytes;
        let start = memchr::memrchr(b'\n', &tail).map_or(0, |end| end + 1);
        tail[start..].to_vec()
    }

    /// Whether the stream has ended; what was recorded can still be read.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.lock().ended
    }

    /// Why the log file gets no more, if writing to it failed; the console is pumped all the same.
    #[must_use]
    pub fn log_fault(&self) -> Option<String> {
        self.shared.lock().log_fault.clone()
    }

    /// Waits until the stream has ended.
    pub(crate) async fn ended(&self) {
        let end = self.look(|state, _| Ok(if state.ended { Look::Found(()) } else { Look::Later }));
        let _never_fails = end.await;
    }

    async fn within<T>(
        &self,
        limit: Duration,
        what: impl Display,
        work: impl Future<Output = Result<T, ConsoleError>>,
    ) -> Result<T, ConsoleError> {
        match within(limit, what, work).await {
            Ok(outcome) => outcome,
            Err(TimedOut { what, limit }) => {
                Err(ConsoleError::TimedOut { what, limit, tail: self.tail(LAST_WORDS) })
            }
        }
    }

    fn has_ended_while(&self, what: impl Display) -> ConsoleError {
        ConsoleError::Ended { what: what.to_string(), exit: None, tail: self.tail(LAST_WORDS) }
    }

    fn with_place<T>(&self, look: impl FnOnce(&mut State, &mut Place) -> T) -> T {
        let mut state = self.shared.lock();
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut state, &mut place)
    }

    /// Looks with `take`, and again after each change, until it has found something.
    async fn look<T>(
        &self,
        mut take: impl FnMut(&mut State, &mut Place) -> Result<Look<T>, ConsoleError>,
    ) -> Result<T, ConsoleError> {
        loop {
            // Registered before looking, so that nothing can come unnoticed in between.
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let looked = self.with_place(&mut take)?;
            match looked {
                Look::Found(found) => return Ok(found),
                Look::Later => changed.await,
            }
        }
    }
}

/// What a look at the console yields.
enum Look<T> {
    Found(T),
    /// To be looked again when something has changed.
    Later,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes in what is in `block`, which may come back with room for more.
    fn record(&mut self, block: &mut Vec<u8>) {
        self.history.take_in(block);
        // Before anything is forgotten, which may be a part of what has just come.
        self.standing.go_on(&self.history);
        self.history.forget_surplus(block);
    }

    /// What is unread, if nothing before it was lost.
    fn take_at_most(&self, place: &mut Place, bytes: usize) -> Result<Vec<u8>, ConsoleError> {
        match self.history.take_lag(place) {
            0 => Ok(self.history.take_at_most(place, bytes)),
            dropped => Err(ConsoleError::Lagged { dropped }),
        }
    }
}
