//! A console that is read in the background.

use std::ffi::OsString;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::Pattern;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::errors::Raise;
use crate::errors::raise;
use crate::pending::Pending;
use crate::values::Home;
use crate::values::duplicate;
use crate::values::limit;

/// A console that is read in the background.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Console {
    inner: ratite::Console,
    home: Home,
}

impl Console {
    pub(crate) fn new(inner: ratite::Console) -> Self {
        Self { inner, home: Home::here() }
    }
}

fn bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    Ok(PyBytes::new(py, bytes).into_any().unbind())
}

fn pattern(py: Python<'_>, text: &str, regex: bool) -> PyResult<Pattern> {
    match regex {
        true => Pattern::regex(text).map_err(|error| raise(py, "PatternError", error.to_string(), [])),
        false => Ok(Pattern::literal(text)),
    }
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
        self.home.check(py)?;
        let (console, limit) = (self.inner.clone(), limit(seconds)?);
        let read = async move { console.read_at_most(size, limit).await };
        Ok(Pending::new(read, |py, read| bytes(py, &read)))
    }

    /// Takes what has arrived.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.inner.take().map(|taken| PyBytes::new(py, &taken)).map_err(|error| error.raise(py))
    }

    /// Waits until there is something to take, or the stream has ended.
    fn ready(&self, py: Python<'_>, seconds: f64) -> PyResult<Pending> {
        self.home.check(py)?;
        let (console, limit) = (self.inner.clone(), limit(seconds)?);
        Ok(Pending::new(async move { console.ready(limit).await }, |py, ()| Ok(py.None())))
    }

    /// Waits for a text or a regular expression, and takes nothing yet: see `Found.take`.
    fn find(&self, py: Python<'_>, text: &str, regex: bool, seconds: f64) -> PyResult<Pending> {
        self.home.check(py)?;
        let (console, pattern, limit) = (self.inner.clone(), pattern(py, text, regex)?, limit(seconds)?);
        let found = async move { console.find(pattern, limit).await };
        Ok(Pending::new(found, |py, found| {
            let found = Found { found: Mutex::new(Some(found)) };
            Ok(Py::new(py, found)?.into_any())
        }))
    }

    /// Writes all of `data`.
    fn write(&self, py: Python<'_>, data: Vec<u8>) -> PyResult<Pending> {
        self.home.check(py)?;
        let console = self.inner.clone();
        Ok(Pending::new(async move { console.write(data).await }, |py, ()| Ok(py.None())))
    }

    /// At most the last `size` bytes, read or not.
    fn tail<'py>(&self, py: Python<'py>, size: usize) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.tail(size).bytes)
    }

    /// How many bytes have come so far.
    #[getter]
    fn bytes_seen(&self) -> u64 {
        self.inner.bytes_seen()
    }

    /// Whether the stream has ended.
    #[getter]
    fn has_ended(&self) -> bool {
        self.inner.has_ended()
    }

    /// Why the log file is not written any more.
    #[getter]
    fn log_fault(&self) -> Option<String> {
        self.inner.log_fault()
    }

    /// The number of a new socket, the caller's own, on which all that this console brings can be read and to which can be
    /// written. If nobody reads it, the console is read all the same; what does not fit is dropped.
    fn socket(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.home.check(py)?;
        let relay = || -> io::Result<RawFd> {
            let (theirs, ours) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let runtime = ratite::background()?;
            let _within = runtime.enter();
            let ours = tokio::net::UnixStream::from_std(ours)?;
            runtime.spawn(relay(self.inner.clone(), ours));
            Ok(theirs.into_raw_fd())
        };
        relay().map_err(|error| error.raise(py))
    }
}

/// Carries bytes both ways until either end is over.
async fn relay(console: ratite::Console, socket: tokio::net::UnixStream) {
    let (mut reader, mut writer) = socket.into_split();
    let out = async {
        loop {
            match console.read(Duration::MAX).await {
                Ok(bytes) if bytes.is_empty() => return,
                Ok(bytes) if writer.write_all(&bytes).await.is_ok() => {}
                Err(ConsoleError::Lagged { dropped }) => {
                    tracing::warn!(dropped, "a console's socket was read too slowly");
                }
                // Its reader is gone.
                _ => return,
            }
        }
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
    found: Mutex<Option<ratite::Found>>,
}

#[pymethods]
impl Found {
    /// Takes it; `None` if somebody has read the console meanwhile, or it was taken.
    fn take(&self) -> Option<Match> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).take();
        found?.take().map(Match)
    }
}

/// What `expect` found.
#[pyclass(frozen, module = "ratite")]
pub(crate) struct Match(ratite::Match);

#[pymethods]
impl Match {
    /// What came before the match, since the last read.
    #[getter]
    fn before(&self) -> &[u8] {
        &self.0.before
    }

    /// What matched.
    #[getter]
    fn matched(&self) -> &[u8] {
        &self.0.matched
    }

    /// What the pattern's groups hold; `None` for one that took no part.
    #[getter]
    fn groups(&self, py: Python<'_>) -> Vec<Option<Py<PyBytes>>> {
        let group = |group: &Vec<u8>| PyBytes::new(py, group).unbind();
        self.0.groups.iter().map(|held| held.as_ref().map(group)).collect()
    }

    /// How many bytes before `before` were dropped, because nobody read them in time.
    #[getter]
    fn dropped(&self) -> u64 {
        self.0.dropped
    }

    /// What matched, as text.
    fn __str__(&self) -> String {
        self.0.text()
    }

    fn __repr__(&self) -> OsString {
        format!("<Match {:?}>", self.0.text()).into()
    }
}
