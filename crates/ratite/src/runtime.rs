//! The background runtime: what has to go on while the caller computes.
//!
//! Console pumps run here, and everything of the blocking face. One for each process, made when it is first needed,
//! with two named threads; a process that was forked off makes its own, since threads do not survive a fork.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;

static BACKGROUND: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

/// A handle to the background runtime of this process.
///
/// # Errors
/// When its threads cannot be started.
pub(crate) fn background() -> io::Result<Handle> {
    let mut background = BACKGROUND.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = std::process::id();
    if let Some((owner, runtime)) = &*background
        && *owner == pid
    {
        return Ok(runtime.handle().clone());
    }
    let runtime =
        Builder::new_multi_thread().worker_threads(2).thread_name("ratite-io").enable_all().build()?;
    let handle = runtime.handle().clone();
    if let Some((_, parents)) = background.replace((pid, runtime)) {
        // Its threads are the parent's: to shut it down here would wait for what does not exist.
        std::mem::forget(parents);
    }
    Ok(handle)
}
