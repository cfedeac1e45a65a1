//! Whether a command may wait on the thread on which it is begun.

use std::cell::Cell;
use std::task::Poll;

thread_local! {
    static MAY_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Lets the first command that is begun within `poll` wait for its reply on this very thread, asleep in the kernel, for some
/// milliseconds: for threads that would do nothing else but wait.
///
/// A runtime that waits for a reply takes longer than all the rest of a command, a thread that waits for the socket itself next to
/// nothing. It drives no runtime meanwhile. It does so only on a Unix socket and where nothing else is under way on the
/// connection; else it is as if nothing had been said.
pub fn on_this_thread<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    let _over = Over(MAY_WAIT.replace(true));
    poll()
}

/// Whether it may, which is for one command.
pub(crate) fn take() -> bool {
    MAY_WAIT.take()
}

/// Brings back what was before, also when a panic ends it.
struct Over(bool);

impl Drop for Over {
    fn drop(&mut self) {
        MAY_WAIT.set(self.0);
    }
}
