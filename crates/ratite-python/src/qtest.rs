//! The qtest protocol.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use pyo3::prelude::*;
use ratite::qmp::Socket;

use crate::errors::Raise;
use crate::pending::Pending;
use crate::values::Home;
use crate::values::duplicate;
use crate::values::limit;

/// A connection that speaks qtest.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Qtest {
    inner: ratite::Qtest,
    home: Home,
}

impl Qtest {
    pub(crate) fn new(inner: ratite::Qtest) -> Self {
        Self { inner, home: Home::here() }
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

    /// Sends a command and returns its answer as it came, without the line end.
    fn raw(&self, py: Python<'_>, command: String) -> PyResult<Pending> {
        self.home.check(py)?;
        let inner = self.inner.clone();
        let raw = async move { inner.raw(&command).await };
        Ok(Pending::new(raw, |py, answer| Ok(answer.into_pyobject(py)?.into_any().unbind())))
    }

    /// Sends a command and returns what came behind `OK`.
    fn command(&self, py: Python<'_>, command: String) -> PyResult<Pending> {
        self.home.check(py)?;
        let inner = self.inner.clone();
        let answer = async move { inner.command(&command).await };
        Ok(Pending::new(answer, |py, answer| Ok(answer.into_pyobject(py)?.into_any().unbind())))
    }

    /// The levels of the interrupt lines that were intercepted and have changed.
    fn irqs(&self) -> BTreeMap<u32, bool> {
        self.inner.irqs().into_iter().collect()
    }

    /// Waits until the interrupt line `number` is at `level`.
    fn wait_irq(&self, py: Python<'_>, number: u32, level: bool, seconds: f64) -> PyResult<Pending> {
        self.home.check(py)?;
        let (inner, limit) = (self.inner.clone(), limit(seconds)?);
        let reached = async move { inner.wait_irq(number, level, limit).await };
        Ok(Pending::new(reached, |py, ()| Ok(py.None())))
    }
}
