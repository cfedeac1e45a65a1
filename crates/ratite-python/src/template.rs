//! A machine that was frozen, and what each that is made of it has for itself.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::UNIX_EPOCH;

use pyo3::prelude::*;
use ratite::RamTransfer;
use ratite::StoreError;
use ratite::Timeouts;
use serde_json::Value;

use crate::config::transcript;
use crate::errors::Raise;
use crate::errors::raise;
use crate::errors::raise_io;
use crate::machine::Machine;
use crate::pending::Pending;
use crate::pool::Pool;
use crate::pool::preparation;
use crate::template_errors::not_there;
use crate::values::Owned;
use crate::values::limit;

/// A machine that was frozen; see `ratite::Template`. A temporary one goes with this, or when it is closed.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Template {
    place: Owned<Place>,
}

/// Where the template is, also for the task that moves it.
type Place = Arc<Mutex<Held>>;

/// What there is of it.
enum Held {
    Here(ratite::Template),
    /// Somebody else is just storing it.
    Moving,
    Gone(&'static str),
}

fn lock(place: &Place) -> MutexGuard<'_, Held> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Template {
    pub(crate) fn new(inner: ratite::Template) -> Self {
        Self { place: Owned::new(Arc::new(Mutex::new(Held::Here(inner)))) }
    }

    pub(crate) fn give(py: Python<'_>, inner: ratite::Template) -> PyResult<Py<PyAny>> {
        Ok(Py::new(py, Self::new(inner))?.into_any())
    }

    /// # Errors
    /// `TemplateError` for one that is not there any more.
    fn share(&self, py: Python<'_>) -> PyResult<ratite::Template> {
        match &*lock(self.place.get(py)?) {
            Held::Here(template) => Ok(template.clone()),
            Held::Moving => Err(not_there(py, "is just being stored")),
            Held::Gone(why) => Err(not_there(py, why)),
        }
    }
}

#[pymethods]
impl Template {
    /// The one that was stored in `folder`.
    #[staticmethod]
    fn open(folder: PathBuf) -> Pending {
        Pending::new(async move { ratite::Template::open(folder).await }, Self::give)
    }

    /// A machine that goes on where it was frozen.
    fn spawn(&self, py: Python<'_>, spawn: &Spawn) -> PyResult<Pending> {
        let (template, spawn) = (self.share(py)?, spawn.inner.clone());
        Ok(Pending::new(async move { template.spawn_with(&spawn).await }, Machine::give))
    }

    /// A pool of such machines, prepared by `begin` if it is given.
    fn pool(&self, py: Python<'_>, size: usize, spawn: &Spawn, begin: Option<Py<PyAny>>) -> PyResult<Pool> {
        let template = self.share(py)?;
        let spawn = spawn.inner.clone();
        let pool = py.detach(|| match begin {
            None => template.pool_with(size, spawn),
            Some(begin) => template.prepared_pool(size, spawn, preparation(begin)),
        });
        pool.map(Pool::new).map_err(|error| error.raise(py))
    }

    /// Moves it to `path`, where it stays. It begins at once, and goes on when nobody waits for it any more: a template that is
    /// moved by half would be nowhere.
    fn store(&self, py: Python<'_>, path: PathBuf) -> PyResult<Pending> {
        let runtime = ratite::background().map_err(|error| raise_io(py, error))?;
        let place = Arc::clone(self.place.get(py)?);
        self.share(py)?;
        let moving = runtime.spawn(store(place, path));
        let moved =
            async move { moving.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) };
        Ok(Pending::new(moved, |py, ()| Ok(py.None())))
    }

    /// Lets it go: a temporary one is removed once nothing needs it.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let held = std::mem::replace(&mut *lock(self.place.get(py)?), Held::Gone("was closed"));
        py.detach(|| drop(held));
        Ok(())
    }

    /// How the RAM comes to the machines, and why not in the quickest way.
    #[getter]
    fn ram(&self, py: Python<'_>) -> PyResult<(&'static str, Option<String>)> {
        Ok(match self.share(py)?.ram() {
            RamTransfer::Mapped => ("mapped", None),
            RamTransfer::Streamed { because } => ("streamed", Some(because)),
            RamTransfer::Placed { because } => ("placed", Some(because)),
            _ => ("other", None),
        })
    }

    #[getter]
    fn folder(&self, py: Python<'_>) -> PyResult<OsString> {
        Ok(self.share(py)?.folder().into())
    }

    /// When it was made, in seconds since the epoch.
    #[getter]
    fn made(&self, py: Python<'_>) -> PyResult<f64> {
        Ok(self.share(py)?.made().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()))
    }

    #[getter]
    fn qemu_version(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.share(py)?.qemu_version().to_owned())
    }

    /// The names of its consoles.
    #[getter]
    fn consoles(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.share(py)?.consoles().collect())
    }
}

async fn store(place: Place, path: PathBuf) -> Result<(), StoreFault> {
    let template = match std::mem::replace(&mut *lock(&place), Held::Moving) {
        Held::Here(template) => template,
        other => {
            *lock(&place) = other;
            return Err(StoreFault::NotHere);
        }
    };
    let outcome = template.store(path).await;
    let mut held = lock(&place);
    match outcome {
        // Whoever has closed it meanwhile keeps nobody from having it there.
        Ok(_) | Err(StoreError::Held(_)) if matches!(*held, Held::Gone(_)) => Ok(()),
        Ok(template) => {
            *held = Held::Here(template);
            Ok(())
        }
        Err(error) => {
            *held = match error.template() {
                Some(template) => Held::Here(template.clone()),
                None => Held::Gone("is where it was to be stored, perhaps not on the disk yet"),
            };
            Err(StoreFault::Store(error))
        }
    }
}

/// Why it was not stored.
enum StoreFault {
    Store(StoreError),
    NotHere,
}

impl Raise for StoreFault {
    fn raise(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Store(error) => error.raise(py),
            Self::NotHere => not_there(py, "is just being stored, or was closed"),
        }
    }
}

/// What one machine has for itself, put together call by call; see `ratite::Spawn`.
#[pyclass(module = "ratite._core")]
#[derive(Default)]
pub(crate) struct Spawn {
    inner: ratite::Spawn,
}

impl Spawn {
    fn change(&mut self, change: impl FnOnce(ratite::Spawn) -> ratite::Spawn) {
        self.inner = change(std::mem::take(&mut self.inner));
    }
}

#[pymethods]
impl Spawn {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn name(&mut self, name: OsString) {
        self.change(|spawn| spawn.name(name));
    }

    fn base_folder(&mut self, folder: PathBuf) {
        self.change(|spawn| spawn.base_folder(folder));
    }

    fn log_folder(&mut self, folder: PathBuf) {
        self.change(|spawn| spawn.log_folder(folder));
    }

    fn keep_folder(&mut self) {
        self.change(ratite::Spawn::keep_folder);
    }

    fn timeouts(&mut self, connect: f64, command: f64, console: f64, kill: f64) -> PyResult<()> {
        let timeouts = Timeouts {
            connect: limit(connect)?,
            command: limit(command)?,
            console: limit(console)?,
            kill: limit(kill)?,
        };
        self.change(|spawn| spawn.timeouts(timeouts));
        Ok(())
    }

    fn console_log(&mut self, console: String, path: PathBuf) {
        self.change(|spawn| spawn.console_log(console, path));
    }

    fn vsock_cid(&mut self, cid: u32) {
        self.change(|spawn| spawn.vsock_cid(cid));
    }

    /// A command before it runs; its arguments as JSON text.
    #[pyo3(signature = (name, arguments))]
    fn command(&mut self, py: Python<'_>, name: String, arguments: Option<String>) -> PyResult<()> {
        let arguments = match arguments {
            None => Value::Null,
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| raise(py, "ArgumentsError", error.to_string(), []))?,
        };
        self.change(|spawn| spawn.command(name, arguments));
        Ok(())
    }

    fn paused(&mut self) {
        self.change(ratite::Spawn::paused);
    }

    /// Calls `subscriber(direction, text)` for each QMP message.
    fn transcript(&mut self, subscriber: Py<PyAny>) {
        self.change(|spawn| spawn.transcript(transcript(subscriber)));
    }
}
