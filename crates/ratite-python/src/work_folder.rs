//! A folder that is made before its machine.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::Raise;
use crate::values::Owned;

/// A work folder that is made before its machine; see `ratite::WorkFolder`.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct WorkFolder {
    folder: Owned<Mutex<Option<ratite::WorkFolder>>>,
    path: PathBuf,
}

impl WorkFolder {
    /// # Errors
    /// `ValueError` for one that was removed, `ForkedError` in a process that was forked off.
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<ratite::WorkFolder> {
        let folder = self.folder.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).clone();
        folder.ok_or_else(|| {
            PyValueError::new_err(format!("the work folder {} was removed", self.path.display()))
        })
    }
}

#[pymethods]
impl WorkFolder {
    #[new]
    fn new(py: Python<'_>, base: PathBuf) -> PyResult<Self> {
        let folder = py.detach(|| ratite::WorkFolder::create(base)).map_err(|error| error.raise(py))?;
        let path = folder.path().to_owned();
        Ok(Self { folder: Owned::new(Mutex::new(Some(folder))), path })
    }

    /// Where it is, as a string.
    #[getter]
    fn path(&self) -> std::ffi::OsString {
        self.path.clone().into_os_string()
    }

    /// Removes it, or leaves that to the machine that still needs it.
    fn remove(&self, py: Python<'_>) -> PyResult<()> {
        let folder = self.folder.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(folder));
        Ok(())
    }
}
