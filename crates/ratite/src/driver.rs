//! Who drives the background runtime: a thread of its own, or whoever waits for what goes on there.
//!
//! A blocking call would cost two wake-ups of another thread if the runtime's thread had to do all the work: one to
//! begin it and one to tell of its end. So the thread hands the runtime over to the caller, who then sleeps in the kernel
//! on the very sockets that he waits for. The thread takes it back once nobody has been waiting for a moment, since consoles
//! have to be read and children reaped while the caller computes.
//!
//! ```text
//! the thread drives ── a caller comes ─► callers drive ── none for a moment ─► the thread drives
//! ```

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::thread::Thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// How often the thread looks whether callers still come. For at most twice as long does the runtime stand still between two
/// blocking calls.
const MOMENT: Duration = Duration::from_millis(1);

/// After so many tasks, the runtime looks for what has come on its sockets, and at what its driver waits for.
const TASKS_A_TURN: u32 = 8;

#[derive(Debug)]
pub(crate) struct Driver {
    runtime: Runtime,
    /// How many callers have come, and how many of them wait now.
    came: AtomicUsize,
    waiting: AtomicUsize,
    /// Whether the thread drives, or is about to.
    drives: AtomicBool,
    /// Whether the thread sleeps until the last caller has gone.
    sleeps: AtomicBool,
    asked: Notify,
    thread: OnceLock<Thread>,
}

impl Driver {
    /// A runtime that is driven from now on, by a thread `ratite-io`. It stays for as long as the program runs.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().event_interval(TASKS_A_TURN).enable_all().build()?;
        let driver = Arc::new(Self {
            runtime,
            came: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            drives: AtomicBool::new(true),
            sleeps: AtomicBool::new(false),
            asked: Notify::new(),
            thread: OnceLock::new(),
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
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.came.fetch_add(1, SeqCst);
        self.waiting.fetch_add(1, SeqCst);
        let _waits = Waits(self);
        if self.drives.load(SeqCst) {
            self.asked.notify_one();
        }
        self.runtime.block_on(future)
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
        loop {
            let came = self.came.load(SeqCst);
            thread::park_timeout(MOMENT);
            if self.came.load(SeqCst) != came {
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
