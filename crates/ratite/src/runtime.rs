//! The background runtime: what has to go on while the caller computes.
//!
//! Console pumps run here, and everything of the blocking face. One for each process, made when it is first needed, with
//! a thread of its own that drives it while nobody waits; a process that was forked off makes its own, since threads do not
//! survive a fork.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::driver::Driver;

static BACKGROUND: Mutex<Option<(u32, Arc<Driver>)>> = Mutex::new(None);

/// ratite's own runtime, on which consoles are read and everything of [`crate::blocking`] goes on: for a face of one's own
/// over the async API, in another language or for another runtime.
///
/// One for each process, with a thread `ratite-io`, started at the first need and never ended. In a process that was
/// forked off this is a new one. What is spawned here must not block: all of ratite's background work has one thread.
/// [`block_on`] waits for what goes on here, `Handle::block_on` does, too, with the wake-up of a thread in each direction.
///
/// # Errors
/// When its thread cannot be started.
pub fn background() -> io::Result<Handle> {
    driver().map(|driver| driver.runtime().handle().clone())
}

/// Waits for `future` on the caller's thread, within ratite's own runtime, which is driven by this thread meanwhile: what
/// the future waits for wakes this thread, and no other.
///
/// # Errors
/// When the runtime's own thread cannot be started; the future is dropped.
///
/// # Panics
/// Within an async runtime, as tokio's `block_on` does.
pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    driver().map(|driver| driver.wait(future))
}

pub(crate) fn driver() -> io::Result<Arc<Driver>> {
    let mut background = BACKGROUND.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = std::process::id();
    if let Some((owner, driver)) = &*background
        && *owner == pid
    {
        return Ok(Arc::clone(driver));
    }
    // That of a parent has no thread here.
    let driver = Driver::start()?;
    *background = Some((pid, Arc::clone(&driver)));
    Ok(driver)
}

/// Lets time pass, where that is what is wanted.
#[expect(clippy::disallowed_methods, reason = "the callers say why")]
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

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

/// How the thread of [`later`] is reached, and whose process it is in.
static REST: Mutex<Option<(u32, mpsc::SyncSender<Job>)>> = Mutex::new(None);

type Job = Box<dyn FnOnce() + Send>;

/// How long the thread of [`later`] waits for more to do.
const LINGERING: Duration = Duration::from_millis(100);

/// How much waits for the thread of [`later`] at most.
const MOST_LATER: usize = 64;

/// Does `work` where nobody waits for it: on a thread that stays for a while, as more may come. On this one where there is none to be
/// had, or where too much waits for it already.
pub(crate) fn later(work: impl FnOnce() + Send + 'static) {
    // In a process that was forked off, somebody may seem to hold the lock for ever.
    let Ok(mut rest) = REST.try_lock() else { return work() };
    let pid = std::process::id();
    if let Some((_, jobs)) = rest.take_if(|(owner, _)| *owner != pid) {
        drop(rest);
        // A process that was forked off has a copy of it, with jobs that are not its own, and whose lock may seem to be held.
        std::mem::forget(jobs);
        return work();
    }
    let job: Job = Box::new(work);
    let job = match &*rest {
        Some((owner, jobs)) if *owner == pid => match jobs.try_send(job) {
            Ok(()) => return,
            Err(mpsc::TrySendError::Full(job)) => {
                drop(rest);
                return job();
            }
            Err(mpsc::TrySendError::Disconnected(job)) => job,
        },
        _ => job,
    };
    let (jobs, inbox) = mpsc::sync_channel(MOST_LATER);
    match thread::Builder::new().name("ratite-aside".into()).spawn(move || do_rest(&inbox)) {
        Ok(_) => {
            // The thread holds the other end until it has the lock, and so cannot have gone.
            let _sent = jobs.send(job);
            *rest = Some((pid, jobs));
        }
        Err(_) => {
            drop(rest);
            job();
        }
    }
}

fn do_rest(inbox: &mpsc::Receiver<Job>) {
    loop {
        while let Ok(job) = inbox.recv_timeout(LINGERING) {
            job();
        }
        let mut rest = REST.lock().unwrap_or_else(PoisonError::into_inner);
        // Sent before the lock was taken. Afterwards nobody sends any more.
        let Ok(job) = inbox.try_recv() else {
            *rest = None;
            return;
        };
        drop(rest);
        job();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANG: Duration = Duration::from_secs(30);

    #[test]
    fn what_is_too_much_for_the_thread_is_done_by_who_asks() {
        let here = thread::current().id();
        let is_here = move || thread::current().id() == here;
        let (begun, began) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        later(move || {
            begun.send(is_here()).unwrap();
            if !is_here() {
                let _ended = ended.recv_timeout(HANG);
            }
        });
        if began.recv_timeout(HANG).unwrap() {
            // Another test has just had the lock.
            return;
        }

        let (done, was_done) = mpsc::channel();
        for _ in 0..1000 {
            let done = done.clone();
            later(move || done.send(is_here()).unwrap());
        }
        drop(done);
        let early: Vec<bool> = was_done.try_iter().collect();
        drop(end);

        assert!(early.len() >= 1000 - MOST_LATER, "{} were done", early.len());
        assert!(early.iter().all(|here| *here));
        assert_eq!(early.len() + was_done.iter().count(), 1000);
    }
}
