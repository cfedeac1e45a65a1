//! What the Rust contenders need to begin, the same for every scenario.

pub(crate) mod machines;
pub(crate) mod qapi;
pub(crate) mod qmp;

use std::time::Duration;

use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::scenario::Failure;

/// The limit of every wait that is not measured itself.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A runtime that runs everything on this thread.
pub(crate) fn current_thread() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A runtime with two threads, as on a machine with two cores, wherever they may run; the work is to be a task of it.
pub(crate) fn multi_thread() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
