//! A wait that an event loop drives, in its own thread.
//!
//! The loop polls the future itself: at once, and again whenever its waker says that there is a reason. So a reply crosses to the
//! loop's thread without a task in between, and nobody but that thread ever needs the interpreter.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::TryLockError;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;

use pyo3::PyTraverseError;
use pyo3::PyVisit;
use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::errors::raise_io;
use crate::gate;
use crate::mailbox::Mailbox;
use crate::pending::Finish;
use crate::pending::Wait;

/// A wait of an event loop.
pub(crate) struct Awaited {
    state: Mutex<State>,
    mailbox: Weak<Mailbox>,
    /// Whether the loop is to look already.
    is_due: AtomicBool,
}

enum State {
    /// With the promise on which the loop's task sleeps.
    Waiting(Wait, Option<Py<PyAny>>),
    Over(Finish),
    GivenUp,
}

impl std::fmt::Debug for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Awaited").field("is_due", &self.is_due).finish_non_exhaustive()
    }
}

impl Wake for Awaited {
    fn wake(self: Arc<Self>) {
        // A loop that is gone has nobody left who waits.
        if !self.is_due.swap(true, Ordering::AcqRel)
            && let Some(mailbox) = self.mailbox.upgrade()
        {
            mailbox.post(self);
        }
    }
}

impl Awaited {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether it is over; only in the loop's thread.
    fn is_over(self: &Arc<Self>, py: Python<'_>) -> PyResult<bool> {
        let runtime = ratite::background().map_err(|error| raise_io(py, error))?;
        let _within = runtime.enter();
        let waker = Waker::from(Arc::clone(self));
        let mut state = self.lock();
        let State::Waiting(wait, _) = &mut *state else { return Ok(true) };
        match wait.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => Ok(false),
            Poll::Ready(finish) => {
                let before = std::mem::replace(&mut *state, State::Over(finish));
                drop(state);
                if let State::Waiting(_, Some(promise)) = before {
                    settle(promise.bind(py))?;
                }
                Ok(true)
            }
        }
    }

    /// Looks whether it is over, and lets its task go on if it is.
    pub(crate) fn look(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        // Before looking: what happens from now on is a reason to look again.
        self.is_due.store(false, Ordering::Release);
        self.is_over(py).map(drop)
    }

    /// What came of it, once.
    fn take(&self) -> Option<Finish> {
        match std::mem::replace(&mut *self.lock(), State::GivenUp) {
            State::Over(finish) => Some(finish),
            waiting => {
                *self.lock() = waiting;
                None
            }
        }
    }

    fn give_up(&self) {
        // Dropped without the lock: it may be anything.
        let _before = std::mem::replace(&mut *self.lock(), State::GivenUp);
    }
}

fn settle(promise: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = promise.py();
    // One that was cancelled is settled.
    if !promise.call_method0(intern!(py, "done"))?.is_truthy()? {
        promise.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}

/// What `await` steps through. Whoever drops it gives the wait up.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Steps {
    step: Mutex<Step>,
}

enum Step {
    First(Wait),
    Asleep(Asleep),
    Done,
}

/// Somebody who sleeps until a wait is over, and gives it up when he goes.
struct Asleep {
    awaited: Arc<Awaited>,
    /// The promise's own steps.
    sleep: Py<PyAny>,
}

impl Drop for Asleep {
    fn drop(&mut self) {
        self.awaited.give_up();
    }
}

impl Steps {
    pub(crate) fn new(wait: Wait) -> Self {
        Self { step: Mutex::new(Step::First(wait)) }
    }

    fn take(&self) -> Step {
        std::mem::replace(&mut self.step.lock().unwrap_or_else(PoisonError::into_inner), Step::Done)
    }

    fn put(&self, step: Step) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    /// Begins the wait, and has a task of the running loop sleep unless it is over at once.
    fn begin(&self, py: Python<'_>, wait: Wait) -> PyResult<Py<PyAny>> {
        let event_loop = RUNNING.import(py, "asyncio", "get_running_loop")?.call0()?;
        let awaited = Arc::new(Awaited {
            state: Mutex::new(State::Waiting(wait, None)),
            mailbox: Mailbox::of(&event_loop)?,
            is_due: AtomicBool::new(false),
        });
        if awaited.is_over(py)? {
            return Err(finished(py, awaited.take()));
        }
        let promise = event_loop.call_method0(intern!(py, "create_future"))?;
        let sleep = promise.call_method0(intern!(py, "__await__"))?;
        let slept = sleep.call_method0(intern!(py, "__next__"))?;
        if let State::Waiting(_, place) = &mut *awaited.lock() {
            *place = Some(promise.unbind());
        }
        self.put(Step::Asleep(Asleep { awaited, sleep: sleep.unbind() }));
        Ok(slept.unbind())
    }
}

static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The way of an iterator to return a value, or to raise.
fn finished(py: Python<'_>, finish: Option<Finish>) -> PyErr {
    match finish.map(|finish| finish(py)) {
        Some(Ok(value)) => PyStopIteration::new_err((value,)),
        Some(Err(error)) => error,
        None => PyStopIteration::new_err(()),
    }
}

#[pymethods]
impl Steps {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let _inside = gate::enter_from_python(py)?;
        match self.take() {
            Step::First(wait) => self.begin(py, wait),
            Step::Asleep(asleep) => match asleep.awaited.take() {
                Some(finish) => Err(finished(py, Some(finish))),
                // Woken by somebody else: what the promise says of that is what is so.
                None => {
                    let slept = asleep.sleep.call_method0(py, intern!(py, "__next__"));
                    self.put(Step::Asleep(asleep));
                    slept
                }
            },
            Step::Done => Err(PyStopIteration::new_err(())),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let step = match self.step.try_lock() {
            Ok(step) => step,
            Err(TryLockError::Poisoned(step)) => step.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let Step::Asleep(asleep) = &*step else { return Ok(()) };
        visit.call(&asleep.sleep)?;
        match asleep.awaited.state.try_lock().as_deref() {
            // The promise belongs to these steps: its other holders only look at it.
            Ok(State::Waiting(_, Some(promise))) => visit.call(promise),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        drop(self.take());
    }
}

/// A task of the runtime that ends when nobody waits for it any more.
pub(crate) struct Task(tokio::task::JoinHandle<Finish>);

impl Task {
    /// Has the runtime go on with `wait` also while the loop computes.
    pub(crate) fn spawn(wait: Wait, runtime: &tokio::runtime::Handle) -> Self {
        Self(runtime.spawn(wait))
    }
}

impl Future for Task {
    type Output = Finish;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Finish> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Ready(Ok(finish)) => Poll::Ready(finish),
            Poll::Ready(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Nobody but us ends it.
                Err(_) => Poll::Pending,
            },
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
