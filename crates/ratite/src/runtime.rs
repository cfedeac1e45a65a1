//! The background runtime: what has to go on while the caller computes.
//!
//! Console pumps run here, and everything of the blocking face. One for each process, made when it is first needed,
//! with two named threads; a process that was forked off makes its own, since threads do not survive a fork.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::test_kill_process;
use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// How many threads it has.
const THREADS: usize = 2;

static BACKGROUND: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

/// ratite's own runtime, on which consoles are read and everything of [`crate::blocking`] goes on: for a face of one's own
/// over the async API, in another language or for another runtime.
///
/// One for each process, with two threads `ratite-io`, started at the first need and never ended. In a process that was
/// forked off this is a new one.
///
/// # Errors
/// When its threads cannot be started.
pub fn background() -> io::Result<Handle> {
    let mut background = BACKGROUND.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = std::process::id();
    if let Some((owner, runtime)) = &*background
        && *owner == pid
    {
        return Ok(runtime.handle().clone());
    }
    rehearse(THREADS)?;
    // Another program of this user may have taken what the rehearsal found.
    let runtime = std::panic::catch_unwind(build).unwrap_or_else(|_| Err(Errno::AGAIN.into()))?;
    let handle = runtime.handle().clone();
    if let Some((_, parents)) = background.replace((pid, runtime)) {
        // Its threads are the parent's: to shut it down here would wait for what does not exist.
        std::mem::forget(parents);
    }
    Ok(handle)
}

fn build() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(THREADS).thread_name("ratite-io").enable_all().build()
}

/// Starts as many threads at once and ends them again: where that fails, tokio would panic.
fn rehearse(threads: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    let numbers: Vec<Pid> = thread::scope(|scope| {
        let closed = gate.lock();
        let wait_and_tell = || {
            drop(gate.lock());
            rustix::thread::gettid()
        };
        let start = |_| thread::Builder::new().spawn_scoped(scope, wait_and_tell);
        let started = (0..threads).map(start).collect::<io::Result<Vec<_>>>()?;
        drop(closed);
        Ok::<_, io::Error>(started.into_iter().filter_map(|thread| thread.join().ok()).collect())
    })?;
    // A thread that was joined still counts until the kernel has forgotten its number.
    let start = Instant::now();
    while start.elapsed() < FORGOTTEN && numbers.iter().any(|it| test_kill_process(*it).is_ok()) {
        thread::yield_now();
    }
    Ok(())
}

/// How long the kernel may take to forget a thread that has ended.
const FORGOTTEN: Duration = Duration::from_millis(500);

/// Does `work` on a thread of its own, since it may take long; on this one only where the system gives no thread.
pub(crate) async fn aside<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    fn take<F>(work: &Mutex<Option<F>>) -> F {
        work.lock().unwrap_or_else(PoisonError::into_inner).take().expect("either thread takes it, not both")
    }
    let (answer, outcome) = oneshot::channel();
    let work = Arc::new(Mutex::new(Some(work)));
    let theirs = Arc::clone(&work);
    // Whoever waited may be gone when it is done.
    let there = move || drop(answer.send(take(&theirs)()));
    match thread::Builder::new().name("ratite-aside".into()).spawn(there) {
        Ok(_) => outcome.await.expect("the thread answers, or panics, and so do we"),
        Err(_) => take(&work)(),
    }
}
