//! The qtest protocol.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use pyo3::prelude::*;
use ratite::qmp::Socket;
use ratite::qmp::within;

use crate::errors::Raise;
use crate::pending::Pending;
use crate::values::Owned;
use crate::values::duplicate;
use crate::values::limit;

/// A connection that speaks qtest.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Qtest {
    inner: Owned<ratite::Qtest>,
}

impl Qtest {
    pub(crate) fn new(inner: ratite::Qtest) -> Self {
        Self { inner: Owned::new(inner) }
    }
}

#[pymethods]
impl Qtest {
    /// Speaks qtest over a copy of the connected socket `fd`.
    #[staticmethod]
    fn over(py: Python<'_>, fd: RawFd, seconds: f64) -> PyResult<Self> {
        let (fd, limit) = (duplicate(fd)?, limit(seconds)?);
        let runtime = ratite::background().map_err(|error| error.raise(py))?;
        let _within = runtime.enter();
        let socket = Socket::try_from(fd).map_err(|error| error.raise(py))?;
        Ok(Self::new(ratite::Qtest::over(socket, limit)))
    }

    /// Sends a command and returns its answer as it came, without the line end; `seconds` bounds it where the session's own
    /// limit does not.
    #[pyo3(signature = (command, seconds=None))]
    fn raw(&self, py: Python<'_>, command: String, seconds: Option<f64>) -> PyResult<Pending> {
        let (inner, limit) = (self.inner.get(py)?.clone(), limit(seconds.unwrap_or(f64::INFINITY))?);
        let raw = async move {
            let what = format!("answer to the qtest command `{command}`");
            // An answer that comes too late is dropped, and shifts no other.
            within(limit, what, inner.raw(&command)).await?
        };
        Ok(Pending::new(raw, |py, answer| Ok(answer.into_pyobject(py)?.into_any().unbind())))
    }

    /// Sends a command and returns what came behind `OK`.
    fn command(&self, py: Python<'_>, command: String) -> PyResult<Pending> {
        let inner = self.inner.get(py)?.clone();
        let answer = async move { inner.command(&command).await };
        Ok(Pending::new(answer, |py, answer| Ok(answer.into_pyobject(py)?.into_any().unbind())))
    }

    /// The levels of the interrupt lines that were intercepted and have changed.
    fn irqs(&self, py: Python<'_>) -> PyResult<BTreeMap<u32, bool>> {
        Ok(self.inner.get(py)?.irqs().into_iter().collect())
    }

    /// Waits until the interrupt line `number` is at `level`.
    fn wait_irq(&self, py: Python<'_>, number: u32, level: bool, seconds: f64) -> PyResult<Pending> {
        let (inner, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        let reached = async move { inner.wait_irq(number, level, limit).await };
        Ok(Pending::new(reached, |py, ()| Ok(py.None())))
    }
}
