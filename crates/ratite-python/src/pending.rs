//! A wait that has not begun: Python blocks on it, or awaits it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::errors::Raise;
use crate::errors::raise_io;
use crate::gate;
use crate::values::Owned;

/// What is left to be done with the interpreter at hand: to make the value, or to raise.
type Finish = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

type Wait = Pin<Box<dyn Future<Output = Finish> + Send>>;

/// A wait that has not begun. Blocking on it or awaiting it begins it; it serves once.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Pending {
    wait: Owned<Mutex<Option<Wait>>>,
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
        let wait = async move {
            let outcome = future.await;
            Box::new(move |py: Python<'_>| match outcome {
                Ok(value) => finish(py, value),
                Err(error) => Err(error.raise(py)),
            }) as Finish
        };
        Self { wait: Owned::new(Mutex::new(Some(Box::pin(wait)))) }
    }

    fn take(&self, py: Python<'_>) -> PyResult<Wait> {
        let wait = self.wait.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).take();
        wait.ok_or_else(|| PyRuntimeError::new_err("this wait has been waited for already"))
    }
}

#[pymethods]
impl Pending {
    /// Blocks until it is over. Other threads run meanwhile, and so do signal handlers: what one raises ends the wait.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mut wait = self.take(py)?;
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

    /// Lets the running event loop wait for it. Cancelling gives it up.
    fn __await__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let _inside = gate::enter_from_python(py)?;
        let wait = self.take(py)?;
        let runtime = ratite::background().map_err(|error| raise_io(py, error))?;
        let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
        let promise = event_loop.call_method0("create_future")?;
        let (to_loop, to_promise) = (event_loop.unbind(), promise.clone().unbind());
        let task = runtime.spawn(async move {
            let finish = wait.await;
            // An interpreter that is on its way out has nobody left to tell.
            let Some(_inside) = gate::enter() else { return };
            let _told = Python::try_attach(|py| deliver(py, &to_loop, to_promise, finish));
        });
        promise.call_method1("add_done_callback", (GiveUp { task: task.abort_handle() },))?;
        Ok(promise.call_method0("__await__")?.unbind())
    }
}

/// Has the loop's own thread settle the promise.
fn deliver(py: Python<'_>, event_loop: &Py<PyAny>, promise: Py<PyAny>, finish: Finish) {
    let settle = Settle { promise, finish: Mutex::new(Some(finish)) };
    let called =
        Py::new(py, settle).and_then(|settle| event_loop.call_method1(py, "call_soon_threadsafe", (settle,)));
    if let Err(error) = called {
        tracing::debug!(%error, "an event loop closed before its wait was over");
    }
}

/// Settles a promise, in the thread of its loop.
#[pyclass(frozen, module = "ratite._core")]
struct Settle {
    promise: Py<PyAny>,
    finish: Mutex<Option<Finish>>,
}

#[pymethods]
impl Settle {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let _inside = gate::enter_from_python(py)?;
        let finish = self.finish.lock().unwrap_or_else(PoisonError::into_inner).take();
        let promise = self.promise.bind(py);
        let Some(finish) = finish.filter(|_| !is_done(promise)) else { return Ok(()) };
        match finish(py) {
            Ok(value) => promise.call_method1("set_result", (value,))?,
            Err(error) => promise.call_method1("set_exception", (error,))?,
        };
        Ok(())
    }
}

fn is_done(promise: &Bound<'_, PyAny>) -> bool {
    promise.call_method0("done").and_then(|done| done.is_truthy()).unwrap_or(true)
}

/// Stops the task of a promise that is settled, and so perhaps cancelled.
#[pyclass(frozen, module = "ratite._core")]
struct GiveUp {
    task: tokio::task::AbortHandle,
}

#[pymethods]
impl GiveUp {
    #[pyo3(signature = (_promise, **_context))]
    fn __call__(&self, _promise: Py<PyAny>, _context: Option<Py<PyDict>>) {
        self.task.abort();
    }
}
