//! What a guest has drawn, and the plain text of what it has printed.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use ratite::qmp::TimedOut;
use ratite::qmp::within;
use tokio::runtime::Handle;
use tokio::sync::Mutex as AsyncMutex;

use crate::console::Wanted;
use crate::console::pattern;
use crate::errors::raise_io;
use crate::pending::Pending;
use crate::values::Owned;
use crate::values::limit;

/// The plain text of console output: no escape sequences, lines as they look in the end.
#[pyfunction]
pub(crate) fn plain_text(data: &[u8]) -> String {
    ratite::plain_text(data)
}

/// A terminal that nobody sees: fed with bytes, read as text.
#[pyclass(frozen, module = "ratite")]
pub(crate) struct Terminal {
    inner: Mutex<ratite::Terminal>,
}

impl Terminal {
    fn lock(&self) -> MutexGuard<'_, ratite::Terminal> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Terminal {
    /// An empty one of 1 to 1000 columns and rows; what is beyond becomes the nearest that is possible.
    #[new]
    #[pyo3(signature = (columns=80, rows=25))]
    fn new(columns: usize, rows: usize) -> Self {
        Self { inner: Mutex::new(ratite::Terminal::new(columns, rows)) }
    }

    /// Draws what these bytes say; they may be cut anywhere.
    fn feed(&self, data: &[u8]) {
        self.lock().feed(data);
    }

    /// Changes the size, and moves what is drawn as an xterm would.
    fn resize(&self, columns: usize, rows: usize) {
        self.lock().resize(columns, rows);
    }

    /// Columns and rows.
    #[getter]
    fn size(&self) -> (usize, usize) {
        self.lock().size()
    }

    /// The rows from the top, each without the blanks at its end.
    #[getter]
    fn lines(&self) -> Vec<String> {
        self.lock().lines()
    }

    /// The rows down to the last that is not empty, as one text.
    #[getter]
    fn text(&self) -> String {
        self.lock().text()
    }

    /// Column and row of the cursor, counted from 0; None while it is hidden.
    #[getter]
    fn cursor(&self) -> Option<(usize, usize)> {
        self.lock().cursor()
    }

    fn __repr__(&self) -> String {
        let (columns, rows) = self.lock().size();
        format!("<Terminal {columns}x{rows}>")
    }
}

/// A console, drawn on a terminal.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct TerminalView {
    /// Locked by the call that waits.
    inner: Owned<Arc<AsyncMutex<ratite::TerminalView>>>,
}

impl TerminalView {
    pub(crate) fn new(view: ratite::TerminalView) -> Self {
        Self { inner: Owned::new(Arc::new(AsyncMutex::new(view))) }
    }

    fn now<T>(&self, py: Python<'_>, look: impl FnOnce(&mut ratite::TerminalView) -> T) -> PyResult<T> {
        let view = self.inner.get(py)?;
        if let Ok(mut view) = view.try_lock() {
            return Ok(look(&mut view));
        }
        if Handle::try_current().is_ok() {
            return Err(in_use());
        }
        let locked = py.detach(|| ratite::block_on(within(LETTING_GO, "end of a wait", view.lock())));
        let locked = locked.map_err(|error| raise_io(py, error))?;
        locked.map(|mut view| look(&mut view)).map_err(|_| in_use())
    }
}

/// How long a wait that was given up may take to be gone.
const LETTING_GO: Duration = Duration::from_secs(1);

#[pymethods]
impl TerminalView {
    /// Waits until a text or a regular expression stands on the screen.
    fn wait_for(&self, py: Python<'_>, wanted: Wanted, seconds: f64) -> PyResult<Pending> {
        let (view, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        let wanted = pattern(py, wanted.0, wanted.1)?;
        let shown = async move {
            let turn = within(limit, "end of the screen's other wait", view.lock()).await;
            let mut view = turn.map_err(|TimedOut { what, limit }| ratite::ConsoleError::TimedOut {
                what,
                limit,
                tail: ratite::Tail::default(),
            })?;
            view.wait_for(wanted, limit).await.map(ratite::Terminal::text)
        };
        Ok(Pending::new(shown, |py, text| Ok(text.into_pyobject(py)?.into_any().unbind())))
    }

    fn resize(&self, py: Python<'_>, columns: usize, rows: usize) -> PyResult<()> {
        self.now(py, |view| view.resize(columns, rows))
    }

    #[getter]
    fn size(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        self.now(py, |view| view.now().size())
    }

    #[getter]
    fn lines(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.now(py, |view| view.now().lines())
    }

    #[getter]
    fn text(&self, py: Python<'_>) -> PyResult<String> {
        self.now(py, |view| view.now().text())
    }

    #[getter]
    fn cursor(&self, py: Python<'_>) -> PyResult<Option<(usize, usize)>> {
        self.now(py, |view| view.now().cursor())
    }

    #[getter]
    fn dropped(&self, py: Python<'_>) -> PyResult<u64> {
        self.now(py, |view| {
            view.now();
            view.dropped()
        })
    }
}

fn in_use() -> PyErr {
    PyRuntimeError::new_err("somebody waits for this screen: make another with Console.terminal")
}
