//! Waiting on the caller's thread for what the background runtime does.

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::driver::Driver;
use crate::runtime::driver;

/// The background runtime, and the process it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Background {
    driver: Arc<Driver>,
    owner: u32,
}

impl Background {
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self { driver: driver()?, owner: std::process::id() })
    }

    /// Runs `make`, which needs a runtime around it but does not wait.
    pub(crate) fn within<T>(&self, make: impl FnOnce() -> T) -> T {
        let _within = self.driver.runtime().enter();
        make()
    }

    /// Whether this thread is one of an async runtime's, which may let it wait all the same.
    pub(crate) fn may_be_within_a_runtime() -> bool {
        Handle::try_current().is_ok()
    }

    /// Whether this thread may wait. Within an async runtime only one may that the runtime has set aside for it
    /// (`spawn_blocking`), which tokio tells by a panic alone.
    fn may_block(&self) -> bool {
        !Self::may_be_within_a_runtime()
            || catch_unwind(AssertUnwindSafe(|| self.driver.runtime().handle().block_on(async {}))).is_ok()
    }

    /// Waits for `future`, which is that of the async method `twin`.
    #[track_caller]
    pub(crate) fn wait<T>(&self, twin: &str, future: impl Future<Output = T>) -> T {
        assert!(
            self.may_block(),
            "a blocking call within an async runtime would stop its tasks: use `{twin}` and `.await` it",
        );
        assert!(
            self.owner == std::process::id(),
            "this belongs to process {}, which this process was forked off: launch anew here",
            self.owner,
        );
        self.driver.wait(future)
    }
}
