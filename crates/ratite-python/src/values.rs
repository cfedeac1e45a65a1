//! What Python says and Rust means: times, descriptors, the process that an object belongs to.

use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::time::Duration;

use pyo3::exceptions::PyOSError;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::raise;

/// A limit in seconds; infinity, or more than a `Duration` holds, is none.
pub(crate) fn limit(seconds: f64) -> PyResult<Duration> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err(format!(
            "a limit of {seconds} seconds: it is 0 or more, or math.inf"
        )));
    }
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// A limit in seconds as Python has it.
pub(crate) fn seconds(limit: Duration) -> f64 {
    if limit == Duration::MAX { f64::INFINITY } else { limit.as_secs_f64() }
}

/// A descriptor of our own for what `number` stands for.
#[expect(unsafe_code, reason = "a number is all that Python has for a descriptor")]
pub(crate) fn duplicate(number: RawFd) -> PyResult<OwnedFd> {
    if number < 0 {
        return Err(PyValueError::new_err(format!("{number} is no file descriptor")));
    }
    // SAFETY: it is not -1, and it is borrowed for fcntl(2) alone, which fails for a number that stands for nothing.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed
        .try_clone_to_owned()
        .map_err(|error| PyOSError::new_err((error.raw_os_error(), error.to_string())))
}

/// What belongs to the process that made it.
///
/// A process that was forked off has a copy that leads nowhere: behind it are threads that do not exist there, and locks that
/// these may have held. It may not be used, and dropping it does nothing.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    inner: Option<T>,
    owner: u32,
}

impl<T> Owned<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner: Some(inner), owner: std::process::id() }
    }

    /// # Errors
    /// `ForkedError` in a process that was forked off.
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<&T> {
        if self.owner == std::process::id() {
            return Ok(self.inner.as_ref().expect("only dropping takes it"));
        }
        let message = format!(
            "this belongs to process {}, which this process was forked off: make a new machine here",
            self.owner
        );
        Err(raise(py, "ForkedError", message, []))
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            std::mem::forget(self.inner.take());
        }
    }
}
