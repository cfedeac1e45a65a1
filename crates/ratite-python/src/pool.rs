//! Machines that are started ahead.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;

use pyo3::prelude::*;
use tokio::sync::oneshot;

use crate::config::Config;
use crate::errors::Raise;
use crate::errors::raise;
use crate::gate;
use crate::machine::Machine;
use crate::pending::Pending;
use crate::values::Owned;

/// Machines that are started ahead; see `ratite::Pool`. Those that nobody has taken end with it, or when it is closed.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Pool {
    inner: Owned<Mutex<Option<Arc<ratite::Pool>>>>,
}

impl Pool {
    pub(crate) fn new(inner: ratite::Pool) -> Self {
        Self { inner: Owned::new(Mutex::new(Some(Arc::new(inner)))) }
    }

    fn share(&self, py: Python<'_>) -> PyResult<Arc<ratite::Pool>> {
        let pool = self.inner.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).clone();
        pool.ok_or_else(|| raise(py, "SpawnError", "the pool was closed".into(), []))
    }
}

#[pymethods]
impl Pool {
    /// A pool of plain machines, prepared by `begin` if it is given; see [`preparation`].
    #[staticmethod]
    fn of(py: Python<'_>, config: &Config, size: usize, begin: Option<Py<PyAny>>) -> PyResult<Self> {
        let config = config.get()?;
        let pool = py.detach(|| match begin {
            None => config.pool(size),
            Some(begin) => config.prepared_pool(size, preparation(begin)),
        });
        pool.map(Self::new).map_err(|error| error.raise(py))
    }

    /// A machine that runs.
    fn take(&self, py: Python<'_>) -> PyResult<Pending> {
        let pool = self.share(py)?;
        Ok(Pending::new(async move { pool.take().await }, Machine::give))
    }

    /// Waits until it is full.
    fn filled(&self, py: Python<'_>) -> PyResult<Pending> {
        let pool = self.share(py)?;
        let filled = async move {
            pool.filled().await;
            Ok::<_, std::convert::Infallible>(())
        };
        Ok(Pending::new(filled, |py, ()| Ok(py.None())))
    }

    /// Ends the machines that nobody has taken; does not wait for that.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let pool = self.inner.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(pool));
        Ok(())
    }
}

/// What has `begin(machine, prepared)` called for each machine of a pool. That only begins it, and says to `prepared` how it went.
pub(crate) fn preparation(begin: Py<PyAny>) -> impl Fn(ratite::Machine) -> Outcome + Send + Sync + 'static {
    move |machine| {
        let (sender, outcome) = oneshot::channel();
        let prepared = Prepared { outcome: Owned::new(Mutex::new(Some(sender))) };
        if let Some(_inside) = gate::enter() {
            let _called = Python::try_attach(|py| {
                let prepared = Py::new(py, prepared).expect("its class is there");
                let called = Machine::give(py, machine)
                    .and_then(|machine| begin.call1(py, (machine, prepared.clone_ref(py))));
                if let Err(error) = called {
                    prepared.get().say(py, Err(error));
                }
            });
        }
        Outcome(outcome)
    }
}

/// Resolves once a preparation is over.
pub(crate) struct Outcome(oneshot::Receiver<Told>);

/// How a preparation went.
type Told = Result<(), Raised>;

impl Future for Outcome {
    type Output = Result<(), Unprepared>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|outcome| match outcome {
            Ok(outcome) => outcome.map_err(Unprepared::Raised),
            Err(_) => Err(Unprepared::GivenUp),
        })
    }
}

/// Why a machine was not prepared.
#[derive(Debug)]
pub(crate) enum Unprepared {
    Raised(Raised),
    GivenUp,
}

impl fmt::Display for Unprepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raised(raised) => raised.fmt(f),
            Self::GivenUp => f.write_str("its preparation was given up"),
        }
    }
}

impl Error for Unprepared {}

/// What a preparation has raised. It leads to all that this had at hand, its machine too, and so goes at once wherever it is
/// dropped: without the interpreter, that would be put off until something else of ratite is called.
#[derive(Debug)]
pub(crate) struct Raised(Option<PyErr>);

impl Raised {
    pub(crate) fn into_error(mut self) -> PyErr {
        self.0.take().expect("only this and dropping takes it")
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |error| error.fmt(f))
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        let Some(error) = self.0.take() else { return };
        if let Some(_inside) = gate::enter() {
            let _dropped = Python::try_attach(|_| drop(error));
        }
    }
}

/// To whom a preparation says how it went.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Prepared {
    outcome: Owned<Mutex<Option<oneshot::Sender<Told>>>>,
}

impl Prepared {
    fn say(&self, py: Python<'_>, outcome: PyResult<()>) {
        let Ok(sender) = self.outcome.get(py) else { return };
        if let Some(sender) = sender.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody waits for it any more, if the pool is gone.
            let _told = sender.send(outcome.map_err(|error| Raised(Some(error))));
        }
    }
}

#[pymethods]
impl Prepared {
    fn succeeded(&self, py: Python<'_>) {
        self.say(py, Ok(()));
    }

    fn failed(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        self.say(py, Err(PyErr::from_value(error)));
    }
}
