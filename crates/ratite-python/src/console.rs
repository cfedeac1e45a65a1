//! A console that is read in the background.

use std::borrow::Cow;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::Pattern;
use ratite::Patterns;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::errors::Raise;
use crate::errors::raise;
use crate::pending::Pending;
use crate::terminal::TerminalView;
use crate::values::Owned;
use crate::values::duplicate;
use crate::values::limit;

/// A console that is read in the background.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Console {
    inner: Owned<ratite::Console>,
}

impl Console {
    pub(crate) fn new(inner: ratite::Console) -> Self {
        Self { inner: Owned::new(inner) }
    }

    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<&ratite::Console> {
        self.inner.get(py)
    }
}

fn bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    Ok(PyBytes::new(py, bytes).into_any().unbind())
}

/// A text, and whether it is a regular expression.
pub(crate) type Wanted = (String, bool);

pub(crate) fn pattern(py: Python<'_>, text: String, regex: bool) -> PyResult<Pattern> {
    match regex {
        true => Pattern::regex(text).map_err(|error| raise(py, "PatternError", error.to_string(), [])),
        false if text.len() > Pattern::LONGEST_LITERAL => {
            let message = format!("a text to look for has at most {} bytes", Pattern::LONGEST_LITERAL);
            Err(raise(py, "PatternError", message, []))
        }
        false => Ok(Pattern::literal(text)),
    }
}

pub(crate) fn patterns(py: Python<'_>, wanted: Vec<Wanted>) -> PyResult<Vec<Pattern>> {
    wanted.into_iter().map(|(text, regex)| pattern(py, text, regex)).collect()
}

/// What a Linux guest prints when it went wrong.
#[pyfunction]
pub(crate) fn linux_failures() -> &'static [&'static str] {
    Pattern::LINUX_FAILURES
}

#[pymethods]
impl Console {
    /// Reads a copy of the connected socket `fd`, keeping the last `history` bytes, and all of them in the file `log`.
    #[staticmethod]
    fn over(py: Python<'_>, fd: RawFd, history: usize, log: Option<PathBuf>, seconds: f64) -> PyResult<Self> {
        let stream = UnixStream::from(duplicate(fd)?);
        let mut config = ConsoleConfig::serial().history(history);
        if let Some(log) = log {
            config = config.log(log);
        }
        let console =
            ratite::Console::over(stream, &config, limit(seconds)?).map_err(|error| error.raise(py))?;
        Ok(Self::new(console))
    }

    /// Takes what has arrived, at most `size` bytes, waiting for the first. Empty at the end of the stream.
    fn read(&self, py: Python<'_>, size: usize, seconds: f64) -> PyResult<Pending> {
        let (console, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        let read = async move { console.read_at_most(size, limit).await };
        Ok(Pending::new(read, |py, read| bytes(py, &read)))
    }

    /// Takes what has arrived, at most `size` bytes.
    #[pyo3(signature = (size=usize::MAX))]
    fn take<'py>(&self, py: Python<'py>, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let console = self.inner.get(py)?;
        let runtime = ratite::background().map_err(|error| error.raise(py))?;
        let _within = runtime.enter();
        let read = pin!(console.read_at_most(size, Duration::MAX));
        match read.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(taken) => Ok(PyBytes::new(py, &taken.map_err(|error| error.raise(py))?)),
            Poll::Pending => Ok(PyBytes::new(py, b"")),
        }
    }

    /// Waits until there is something to take, or the stream has ended.
    fn ready(&self, py: Python<'_>, seconds: f64) -> PyResult<Pending> {
        let (console, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        Ok(Pending::light(async move { console.ready(limit).await }, |py, ()| Ok(py.None())))
    }

    /// The same console, read from a place of its own: from the oldest byte that is there, or from now on.
    fn reader(&self, py: Python<'_>, from_now: bool) -> PyResult<Self> {
        let console = self.inner.get(py)?;
        Ok(Self::new(if from_now { console.reader_from_now() } else { console.reader() }))
    }

    /// Waits for any of `wanted`, or of `failures`, and takes nothing yet: see `Found.take`.
    fn find(
        &self,
        py: Python<'_>,
        wanted: Vec<Wanted>,
        failures: Vec<Wanted>,
        seconds: f64,
    ) -> PyResult<Pending> {
        let (console, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        let patterns = Patterns::any(patterns(py, wanted)?).failing_on(patterns(py, failures)?);
        Ok(Found::waited_for(async move { console.find(patterns, limit).await }))
    }

    /// Waits until the guest has echoed `text`, and takes nothing yet: see `Found.take`.
    fn find_echo(&self, py: Python<'_>, text: &str, seconds: f64) -> PyResult<Pending> {
        let (console, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        let echo =
            Pattern::echo_of(text).map_err(|error| raise(py, "PatternError", error.to_string(), []))?;
        Ok(Found::waited_for(async move { console.find(echo, limit).await }))
    }

    /// The console as it looks on a terminal of so many columns and rows.
    fn terminal(&self, py: Python<'_>, columns: usize, rows: usize) -> PyResult<TerminalView> {
        Ok(TerminalView::new(self.inner.get(py)?.terminal(columns, rows)))
    }

    /// Writes all of `data`.
    fn write(&self, py: Python<'_>, data: Vec<u8>) -> PyResult<Pending> {
        let console = self.inner.get(py)?.clone();
        Ok(Pending::new(async move { console.write(data).await }, |py, ()| Ok(py.None())))
    }

    /// At most the last `size` bytes, read or not.
    fn tail<'py>(&self, py: Python<'py>, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.inner.get(py)?.tail(size).bytes))
    }

    /// How many bytes have come so far.
    #[getter]
    fn bytes_seen(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.inner.get(py)?.bytes_seen())
    }

    /// Whether the stream has ended.
    #[getter]
    fn has_ended(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.inner.get(py)?.has_ended())
    }

    /// Why the log file is not written any more.
    #[getter]
    fn log_fault(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.inner.get(py)?.log_fault())
    }

    /// The number of a new socket, the caller's own, on which all that this console brings can be read and to which can be
    /// written. If nobody reads it, the console is read all the same; what does not fit is dropped.
    fn socket(&self, py: Python<'_>) -> PyResult<RawFd> {
        let console = self.inner.get(py)?.clone();
        let relay = || -> io::Result<RawFd> {
            let (theirs, ours) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let runtime = ratite::background()?;
            let _within = runtime.enter();
            let ours = tokio::net::UnixStream::from_std(ours)?;
            runtime.spawn(relay(console, ours));
            Ok(theirs.into_raw_fd())
        };
        relay().map_err(|error| error.raise(py))
    }
}

/// Carries bytes both ways until either end is over.
async fn relay(console: ratite::Console, socket: tokio::net::UnixStream) {
    let (mut reader, mut writer) = socket.into_split();
    let output = &console;
    let out = async move {
        loop {
            match output.read(Duration::MAX).await {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) if writer.write_all(&bytes).await.is_ok() => {}
                Err(ConsoleError::Lagged { dropped }) => {
                    tracing::warn!(dropped, "a console's socket was read too slowly");
                }
                // Its reader is gone.
                _ => break,
            }
        }
        // Tells the reader that nothing more comes; it may still write.
        drop(writer);
    };
    let input = async {
        let mut block = vec![0; 16 << 10];
        // What is typed after the end, or into a guest that does not read, is lost as it would be on a wire.
        while let Ok(count @ 1..) = reader.read(&mut block).await {
            if let Err(error) = console.write(&block[..count]).await {
                tracing::debug!(%error, "could not type what a console's socket brought");
            }
        }
    };
    // A reader that has shut down its writing half goes on reading.
    tokio::join!(out, input);
}

/// A match that was found and not taken.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Found {
    found: Owned<Mutex<Option<ratite::Found>>>,
}

impl Found {
    fn waited_for(
        found: impl Future<Output = Result<ratite::Found, ConsoleError>> + Send + 'static,
    ) -> Pending {
        Pending::new(found, |py, found| {
            let found = Self { found: Owned::new(Mutex::new(Some(found))) };
            Ok(Py::new(py, found)?.into_any())
        })
    }
}

#[pymethods]
impl Found {
    /// Takes it; `None` if somebody has read the console meanwhile, or it was taken. Raises if it means a failure.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Match>> {
        let found = self.found.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(found) = found else { return Ok(None) };
        found.take().map(|taken| taken.map(Match::from)).map_err(|error| error.raise(py))
    }
}

/// What `expect` found.
#[pyclass(frozen, eq, hash, module = "ratite")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Match {
    index: usize,
    before: Vec<u8>,
    matched: Vec<u8>,
    groups: Vec<Option<Vec<u8>>>,
    dropped: u64,
}

impl From<ratite::Match> for Match {
    fn from(found: ratite::Match) -> Self {
        let ratite::Match { index, before, matched, groups, dropped, .. } = found;
        Self { index, before, matched, groups, dropped }
    }
}

impl Match {
    fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.matched)
    }
}

#[pymethods]
impl Match {
    #[new]
    #[pyo3(signature = (before, matched, groups, dropped, index=0))]
    fn new(
        before: Vec<u8>,
        matched: Vec<u8>,
        groups: Vec<Option<Vec<u8>>>,
        dropped: u64,
        index: usize,
    ) -> Self {
        Self { index, before, matched, groups, dropped }
    }

    /// Which of the patterns matched, by its place among them; 0 for a single one.
    #[getter]
    fn index(&self) -> usize {
        self.index
    }

    /// What came before the match, since the last read.
    #[getter]
    fn before(&self) -> &[u8] {
        &self.before
    }

    /// What matched.
    #[getter]
    fn matched(&self) -> &[u8] {
        &self.matched
    }

    /// What the pattern's groups hold; `None` for one that took no part.
    #[getter]
    fn groups(&self) -> Vec<Option<&[u8]>> {
        self.groups.iter().map(Option::as_deref).collect()
    }

    /// How many bytes before `before` were dropped, because nobody read them in time.
    #[getter]
    fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What matched, as text.
    fn __str__(&self) -> Cow<'_, str> {
        self.text()
    }

    fn __repr__(&self) -> String {
        format!("<Match {:?}>", self.text())
    }

    /// For pickle.
    #[expect(clippy::type_complexity, reason = "the arguments of `new`")]
    fn __getnewargs__(&self) -> (&[u8], &[u8], Vec<Option<&[u8]>>, u64, usize) {
        (&self.before, &self.matched, self.groups(), self.dropped, self.index)
    }
}
