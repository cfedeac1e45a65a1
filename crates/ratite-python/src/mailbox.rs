//! What wakes an event loop from any thread: without the interpreter, and once for all that has happened meanwhile.

use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use rustix::event::EventfdFlags;
use rustix::event::eventfd;

use crate::awaited::Awaited;
use crate::errors::raise_io;
use crate::gate;

/// The waits of one event loop that are to be looked at.
#[derive(Debug)]
pub(crate) struct Mailbox {
    due: Mutex<Vec<Arc<Awaited>>>,
    /// Rung for the first that is due, and watched by the loop.
    bell: OwnedFd,
}

impl Mailbox {
    /// Has the loop look at `awaited`.
    pub(crate) fn post(&self, awaited: Arc<Awaited>) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.push(awaited);
        if due.len() == 1 {
            // It cannot fail: its count is nowhere near the end of 64 bits.
            let _rung = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    fn take(&self) -> Vec<Arc<Awaited>> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: whoever posts from now on rings again.
        let _silent = rustix::io::read(&self.bell, &mut [0; 8]);
        std::mem::take(&mut *due)
    }

    /// The one of the event loop that runs in this thread, which ends with it.
    ///
    /// # Errors
    /// `RuntimeError` when none runs.
    pub(crate) fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<Weak<Self>> {
        let py = event_loop.py();
        let known = KNOWN.get_or_try_init(py, || {
            py.import("weakref")?.getattr("WeakKeyDictionary")?.call0().map(Bound::unbind)
        })?;
        let known = known.bind(py);
        let found = known.call_method1(intern!(py, "get"), (event_loop,))?;
        if let Ok(look) = found.cast::<Look>() {
            return Ok(Arc::downgrade(&look.get().mailbox));
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = eventfd(0, flags).map_err(|error| raise_io(py, error.into()))?;
        let number = bell.as_raw_fd();
        let mailbox = Arc::new(Self { due: Mutex::default(), bell });
        let mailbox_of_it = Arc::downgrade(&mailbox);
        let look = Py::new(py, Look { mailbox })?;
        event_loop.call_method1(intern!(py, "add_reader"), (number, look.clone_ref(py)))?;
        known.set_item(event_loop, look)?;
        Ok(mailbox_of_it)
    }
}

/// The mailboxes by their loops, which they do not keep.
static KNOWN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// What a loop does when its bell rings.
#[pyclass(frozen, module = "ratite._core")]
struct Look {
    mailbox: Arc<Mailbox>,
}

#[pymethods]
impl Look {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let _inside = gate::enter_from_python(py)?;
        self.mailbox.take().into_iter().try_for_each(|awaited| awaited.look(py))
    }
}
