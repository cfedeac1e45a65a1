//! The way from Rust into the interpreter, which closes before the interpreter ends.
//!
//! CPython (before 3.14) ends a thread that wants the GIL once it is on its way out, and does it by unwinding the stack: through
//! frames of Rust that is undefined, and seen to be a crash. So whatever calls Python from Rust passes here, and `atexit`
//! closes the gate and waits until everybody is out. Not passed by what returns to Python without calling it.

use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::thread::ThreadId;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

#[derive(Debug)]
struct Gate {
    /// The process it is of: one that was forked off begins anew.
    process: u32,
    inside: usize,
    /// The thread in which the interpreter ends, once it does.
    closed_by: Option<ThreadId>,
}

static GATE: Mutex<Gate> = Mutex::new(Gate { process: 0, inside: 0, closed_by: None });

static LEFT: Condvar = Condvar::new();

/// How long the interpreter's end waits for a subscriber that does not return.
const PATIENCE: Duration = Duration::from_secs(5);

fn gate() -> MutexGuard<'static, Gate> {
    let mut gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    if gate.process != std::process::id() {
        *gate = Gate { process: std::process::id(), inside: 0, closed_by: None };
    }
    gate
}

/// Somebody who may call Python.
#[derive(Debug)]
pub(crate) struct Inside(());

impl Drop for Inside {
    fn drop(&mut self) {
        let mut gate = gate();
        // A process that was forked off meanwhile has counted nobody.
        gate.inside = gate.inside.saturating_sub(1);
        LEFT.notify_all();
    }
}

/// Lets in a thread of ratite's own; `None` when it is too late.
pub(crate) fn enter() -> Option<Inside> {
    let mut gate = gate();
    if gate.closed_by.is_some() {
        return None;
    }
    gate.inside += 1;
    Some(Inside(()))
}

/// Lets in a thread of Python's. When it is too late it stays here for ever, as any daemon thread does that still runs then.
///
/// # Errors
/// `RuntimeError` in the thread in which the interpreter ends.
pub(crate) fn enter_from_python(py: Python<'_>) -> PyResult<Inside> {
    if let Some(inside) = enter() {
        return Ok(inside);
    }
    if gate().closed_by == Some(thread::current().id()) {
        return Err(PyRuntimeError::new_err("the interpreter is ending: nothing can be awaited any more"));
    }
    py.detach(|| {
        loop {
            thread::park();
        }
    })
}

/// What `atexit` calls.
#[pyclass(frozen, module = "ratite._core")]
struct Close;

#[pymethods]
impl Close {
    fn __call__(&self, py: Python<'_>) {
        py.detach(|| {
            let mut gate = gate();
            gate.closed_by = Some(thread::current().id());
            let _late_or_not = LEFT.wait_timeout_while(gate, PATIENCE, |gate| gate.inside > 0);
        });
    }
}

/// Has the gate closed at the interpreter's end.
pub(crate) fn close_at_exit(py: Python<'_>) -> PyResult<()> {
    py.import("atexit")?.call_method1("register", (Close,))?;
    Ok(())
}
