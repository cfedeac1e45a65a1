//! A wait that has not begun: Python blocks on it, or awaits it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::awaited::Steps;
use crate::awaited::Task;
use crate::errors::Raise;
use crate::errors::raise_io;
use crate::values::Owned;

/// What is left to be done with the interpreter at hand: to make the value, or to raise.
pub(crate) type Finish = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

pub(crate) type Wait = Pin<Box<dyn Future<Output = Finish> + Send>>;

/// A wait that has not begun. Blocking on it or awaiting it begins it; it serves once.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Pending {
    work: Owned<Mutex<Option<Work>>>,
}

enum Work {
    /// Nothing has to be waited for.
    Done(Py<PyAny>),
    /// An event loop looks itself whether it is over: that costs next to nothing.
    Light(Wait),
    /// Goes on while an event loop does something else.
    Heavy(Wait),
}

/// How long a signal may have to wait for its Python handler while a thread blocks.
const SIGNALS: Duration = Duration::from_millis(25);

impl Pending {
    /// The wait for `future`, whose value `finish` gives to Python.
    pub(crate) fn new<T, E>(
        future: impl Future<Output = Result<T, E>> + Send + 'static,
        finish: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self
    where
        T: Send + 'static,
        E: Raise + Send + 'static,
    {
        Self::over(Work::Heavy(wait(future, finish)))
    }

    /// The same for a future that does nothing but wait: it need not go on while an event loop does something else.
    pub(crate) fn light<T, E>(
        future: impl Future<Output = Result<T, E>> + Send + 'static,
        finish: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self
    where
        T: Send + 'static,
        E: Raise + Send + 'static,
    {
        Self::over(Work::Light(wait(future, finish)))
    }

    /// What is over already.
    pub(crate) fn done(value: Py<PyAny>) -> Self {
        Self::over(Work::Done(value))
    }

    fn over(work: Work) -> Self {
        Self { work: Owned::new(Mutex::new(Some(work))) }
    }

    fn take(&self, py: Python<'_>) -> PyResult<Work> {
        let work = self.work.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.ok_or_else(|| PyRuntimeError::new_err("this wait has been waited for already"))
    }
}

fn wait<T, E>(
    future: impl Future<Output = Result<T, E>> + Send + 'static,
    finish: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
) -> Wait
where
    T: Send + 'static,
    E: Raise + Send + 'static,
{
    Box::pin(async move {
        let outcome = future.await;
        Box::new(move |py: Python<'_>| match outcome {
            Ok(value) => finish(py, value),
            Err(error) => Err(error.raise(py)),
        }) as Finish
    })
}

#[pymethods]
impl Pending {
    /// Blocks until it is over. Other threads run meanwhile, and so do signal handlers: what one raises ends the wait.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mut wait = match self.take(py)? {
            Work::Done(value) => return Ok(value),
            Work::Light(wait) | Work::Heavy(wait) => wait,
        };
        if Handle::try_current().is_ok() {
            return Err(PyRuntimeError::new_err(
                "ratite's own threads must not be blocked: hand on what they bring",
            ));
        }
        loop {
            let turn = py.detach(|| ratite::block_on(async { timeout(SIGNALS, wait.as_mut()).await }));
            match turn.map_err(|error| raise_io(py, error))? {
                Ok(finish) => return finish(py),
                Err(_) => py.check_signals()?,
            }
        }
    }

    /// Lets the running event loop wait for it, from the first step on. Dropping the steps gives it up.
    fn __await__(&self, py: Python<'_>) -> PyResult<Steps> {
        let wait = match self.take(py)? {
            Work::Done(value) => Box::pin(async { Box::new(|_: Python<'_>| Ok(value)) as Finish }),
            Work::Light(wait) => wait,
            Work::Heavy(wait) => {
                let runtime = ratite::background().map_err(|error| raise_io(py, error))?;
                Box::pin(Task::spawn(wait, &runtime))
            }
        };
        Ok(Steps::new(wait))
    }
}
