//! Machines that are started ahead.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use pyo3::prelude::*;

use crate::config::Config;
use crate::errors::Raise;
use crate::errors::raise;
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
    /// A pool of plain machines.
    #[staticmethod]
    fn of(py: Python<'_>, config: &Config, size: usize) -> PyResult<Self> {
        let config = config.get()?;
        py.detach(|| config.pool(size)).map(Self::new).map_err(|error| error.raise(py))
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
