//! A folder of templates with names, and the making of one in two halves, between which Python boots its machine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use pyo3::prelude::*;
use ratite::CacheError;
use ratite::Place;
use ratite::TemplateEntry;

use crate::config::Config;
use crate::errors::Raise;
use crate::errors::raise;
use crate::errors::raise_io;
use crate::machine::Machine;
use crate::pending::Pending;
use crate::template::Template;
use crate::values::Owned;
use crate::values::limit;

/// A folder of templates with names; see `ratite::TemplateCache`.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct TemplateCache {
    inner: ratite::TemplateCache,
}

/// Name, folder, when it was made and last used, size, version of QEMU, what is wrong with it.
type Entry = (String, OsString, f64, f64, u64, String, Option<String>);

#[pymethods]
impl TemplateCache {
    /// The templates in `folder`, or the user's own.
    #[new]
    #[pyo3(signature = (folder, patience))]
    fn new(py: Python<'_>, folder: Option<PathBuf>, patience: f64) -> PyResult<Self> {
        let inner = match folder {
            Some(folder) => ratite::TemplateCache::at(folder),
            None => ratite::TemplateCache::user().map_err(|error| error.raise(py))?,
        };
        Ok(Self { inner: inner.patience(limit(patience)?) })
    }

    #[getter]
    fn folder(&self) -> OsString {
        self.inner.folder().into()
    }

    /// The template of `key` for this very machine, or the right to make it.
    fn look(&self, key: String, config: &Config) -> PyResult<Pending> {
        let (cache, config) = (self.inner.clone(), config.get()?);
        let looked = async move { cache.look(&key, &config).await };
        Ok(Pending::new(looked, |py, place| match place {
            Place::Filled(template) => Template::give(py, template),
            Place::Empty(making) => Making::give(py, *making),
        }))
    }

    /// The right to make a template of this name.
    fn reserve(&self, name: String, config: &Config) -> PyResult<Pending> {
        let (cache, config) = (self.inner.clone(), config.get()?);
        Ok(Pending::new(async move { cache.reserve(&name, &config).await }, Making::give))
    }

    fn open(&self, name: String) -> Pending {
        let cache = self.inner.clone();
        Pending::new(async move { cache.open(&name).await }, Template::give)
    }

    /// All templates, by their names.
    fn list(&self, py: Python<'_>) -> PyResult<Pending> {
        let runtime = ratite::background().map_err(|error| raise_io(py, error))?;
        let cache = self.inner.clone();
        let listed = async move {
            let task = runtime.spawn_blocking(move || cache.list());
            task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
        };
        Ok(Pending::new(listed, |py, entries| {
            let entries: Vec<Entry> = entries.into_iter().map(entry).collect();
            Ok(entries.into_pyobject(py)?.unbind())
        }))
    }

    fn remove(&self, name: String) -> Pending {
        let cache = self.inner.clone();
        Pending::new(async move { cache.remove(&name).await }, |py, ()| Ok(py.None()))
    }
}

fn entry(entry: TemplateEntry) -> Entry {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let TemplateEntry { name, path, made, used, size, qemu_version, damage, .. } = entry;
    (name, path.into(), seconds(made), seconds(used), size, qemu_version, damage)
}

/// The right to make a template; others wait until it is used or given up.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Making {
    inner: Owned<Mutex<Option<ratite::Making>>>,
}

impl Making {
    fn give(py: Python<'_>, inner: ratite::Making) -> PyResult<Py<PyAny>> {
        Ok(Py::new(py, Self { inner: Owned::new(Mutex::new(Some(inner))) })?.into_any())
    }

    fn take(&self, py: Python<'_>) -> PyResult<Option<ratite::Making>> {
        Ok(self.inner.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

fn given_up(py: Python<'_>) -> PyErr {
    raise(py, "CacheError", "the place of the template was given up".into(), [])
}

#[pymethods]
impl Making {
    /// What is to be launched.
    #[getter]
    fn config(&self, py: Python<'_>) -> PyResult<Config> {
        let making = self.inner.get(py)?.lock().unwrap_or_else(PoisonError::into_inner);
        making.as_ref().map(|making| Config::new_of(making.config().clone())).ok_or_else(|| given_up(py))
    }

    /// Freezes the machine, which was launched so, and stores the template in its place.
    fn store(&self, py: Python<'_>, machine: &Machine) -> PyResult<Pending> {
        let making = self.take(py)?.ok_or_else(|| given_up(py))?;
        let machine = machine.share(py)?;
        let stored = async move {
            let outcome = making.store(&machine).await;
            outcome.map_err(|source| Unmade { source, machine })
        };
        Ok(Pending::new(stored, Template::give))
    }

    fn give_up(&self, py: Python<'_>) -> PyResult<()> {
        self.take(py).map(drop)
    }
}

/// Why a template was not made, and the machine that knows more.
struct Unmade {
    source: CacheError,
    machine: Arc<ratite::Machine>,
}

impl Raise for Unmade {
    fn raise(self, py: Python<'_>) -> PyErr {
        match self.source {
            CacheError::Freeze(source) => {
                crate::template_errors::Unfrozen { source, machine: self.machine }.raise(py)
            }
            other => other.raise(py),
        }
    }
}
