//! Who drives the background runtime: a thread of its own, or whoever waits for what goes on there.
//!
//! A blocking call would cost two wake-ups of another thread if the runtime's thread had to do all the work: one to
//! begin it and one to tell of its end. So the thread hands the runtime over to the caller, who then sleeps in the kernel
//! on the very sockets that he waits for. The thread takes it back once nobody has been waiting for a moment, since consoles
//! have to be read and children reaped while the caller computes. A caller with a single command sleeps on its socket alone, for
//! some milliseconds at most, and drives when nobody has for a moment.
//!
//! ```text
//! the thread drives ── a caller comes ─► callers drive ── none for a moment ─► the thread drives
//! ```

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::thread;
use std::thread::Thread;
use std::time::Duration;
use std::time::Instant;

use ratite_qmp::on_this_thread;
use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// For so long nobody has called when the thread takes the runtime back, and for so long at most does it stand still while a
/// caller waits in another way.
const MOMENT: Duration = Duration::from_millis(1);

/// How seldom the thread looks whether callers still come, once they have come for long: the runtime stands still for as long
/// after the last call.
const LONGEST_LOOK: Duration = Duration::from_millis(8);

/// After so many tasks, the runtime looks for what has come on its sockets, and at what its driver waits for.
const TASKS_A_TURN: u32 = 8;

#[derive(Debug)]
pub(crate) struct Driver {
    runtime: Runtime,
    /// How many callers wait now.
    waiting: AtomicUsize,
    /// Whether the thread drives, or is about to.
    drives: AtomicBool,
    /// Whether the thread sleeps until the last caller has gone.
    sleeps: AtomicBool,
    asked: Notify,
    thread: OnceLock<Thread>,
    start: Instant,
    /// When a caller has come last, and when one has driven: nanoseconds since the start.
    called: AtomicU64,
    driven: AtomicU64,
}

impl Driver {
    /// A runtime that is driven from now on, by a thread `ratite-io`. It stays for as long as the program runs.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().event_interval(TASKS_A_TURN).enable_all().build()?;
        let driver = Arc::new(Self {
            runtime,
            waiting: AtomicUsize::new(0),
            drives: AtomicBool::new(true),
            sleeps: AtomicBool::new(false),
            asked: Notify::new(),
            thread: OnceLock::new(),
            start: Instant::now(),
            called: AtomicU64::new(0),
            driven: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&driver);
        match thread::Builder::new().name("ratite-io".into()).spawn(move || theirs.run()) {
            Ok(thread) => {
                driver.thread.get_or_init(|| thread.thread().clone());
                Ok(driver)
            }
            Err(error) => {
                // Dropped within another runtime, it would panic.
                if let Some(driver) = Arc::into_inner(driver) {
                    driver.runtime.shutdown_background();
                }
                Err(error)
            }
        }
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Waits for `future`, and drives the runtime meanwhile if nobody else does.
    ///
    /// Who is alone with a command sleeps on its socket itself, unless the runtime has stood still for a [`MOMENT`].
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.called.store(self.now(), SeqCst);
        let is_alone = self.waiting.fetch_add(1, SeqCst) == 0;
        let _waits = Waits(self);
        let mut future = pin!(future);
        if self.drives.load(SeqCst) {
            self.asked.notify_one();
        } else if is_alone && self.since(&self.driven) < MOMENT && Handle::try_current().is_err() {
            let _within = self.runtime.enter();
            let mut nobody = Context::from_waker(Waker::noop());
            // The runtime asks again what is not ready now.
            if let Poll::Ready(outcome) = on_this_thread(|| future.as_mut().poll(&mut nobody)) {
                return outcome;
            }
        }
        let outcome = self.runtime.block_on(async {
            let outcome = future.await;
            // Everything has a turn that was woken with it: the next call may not drive.
            tokio::task::yield_now().await;
            outcome
        });
        self.driven.store(self.now(), SeqCst);
        outcome
    }

    fn since(&self, moment: &AtomicU64) -> Duration {
        Duration::from_nanos(self.now().saturating_sub(moment.load(SeqCst)))
    }

    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// What the thread does.
    fn run(&self) -> ! {
        loop {
            self.drives.store(true, SeqCst);
            self.runtime.block_on(async {
                // A caller who came before the store has not asked.
                while self.waiting.load(SeqCst) == 0 {
                    self.asked.notified().await;
                }
            });
            self.drives.store(false, SeqCst);
            self.stand_by();
        }
    }

    /// Lets callers drive for as long as they come.
    fn stand_by(&self) {
        let mut look = MOMENT;
        loop {
            thread::park_timeout(look);
            if self.since(&self.called) < MOMENT {
                // Each look interrupts somebody where there is one core for all.
                look = LONGEST_LOOK.min(2 * look);
                continue;
            }
            if self.waiting.load(SeqCst) == 0 {
                return;
            }
            // Somebody waits for long: the last to go wakes this thread.
            self.sleeps.store(true, SeqCst);
            while self.waiting.load(SeqCst) > 0 && self.sleeps.load(SeqCst) {
                thread::park();
            }
            self.sleeps.store(false, SeqCst);
        }
    }
}

/// A caller who waits. Dropped however his wait ends.
struct Waits<'a>(&'a Driver);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let Self(driver) = self;
        if driver.waiting.fetch_sub(1, SeqCst) == 1
            && driver.sleeps.swap(false, SeqCst)
            && let Some(thread) = driver.thread.get()
        {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::sync::oneshot;

    const HANG: Duration = Duration::from_secs(30);

    /// Has a task of the runtime answer, and waits for that without driving.
    fn is_driven(driver: &Driver) -> bool {
        let (answer, answered) = mpsc::channel();
        driver.runtime().spawn(async move {
            tokio::task::yield_now().await;
            answer.send(())
        });
        answered.recv_timeout(HANG).is_ok()
    }

    #[test]
    fn the_thread_drives_before_and_after_a_call() {
        let driver = Driver::start().unwrap();
        for call in 0..50 {
            assert!(is_driven(&driver), "after {call} calls");
            assert_eq!(driver.wait(async { call }), call);
        }
        assert!(is_driven(&driver));
    }

    #[test]
    fn callers_on_many_threads_are_all_served() {
        let driver = Driver::start().unwrap();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for number in 0..200 {
                        let (answer, answered) = oneshot::channel();
                        driver.runtime().spawn(async move { answer.send(number) });
                        assert_eq!(driver.wait(answered), Ok(number));
                    }
                });
            }
        });
        assert!(is_driven(&driver));
    }

    #[test]
    fn a_caller_who_waits_long_drives_for_the_others() {
        let driver = Driver::start().unwrap();
        let (end, ended) = oneshot::channel();
        thread::scope(|scope| {
            let long = scope.spawn(|| driver.wait(ended));
            while driver.waiting.load(SeqCst) == 0 || !driver.sleeps.load(SeqCst) {
                thread::yield_now();
            }
            assert!(is_driven(&driver));
            assert_eq!(driver.wait(async { 7 }), 7);
            end.send(8).unwrap();
            assert_eq!(long.join().unwrap(), Ok(8));
        });
        assert!(is_driven(&driver));
    }

    #[test]
    fn a_call_that_panics_leaves_the_runtime_to_others() {
        let driver = Driver::start().unwrap();
        let call = std::panic::AssertUnwindSafe(|| driver.wait(async { panic!("on purpose") }));

        assert!(std::panic::catch_unwind(call).is_err());

        assert_eq!(driver.waiting.load(SeqCst), 0);
        assert!(is_driven(&driver));
    }
}
