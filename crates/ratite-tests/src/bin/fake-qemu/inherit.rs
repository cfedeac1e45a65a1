//! Takes over a descriptor that was inherited under a number.
//!
//! Owning a bare number is `unsafe` in Rust, so the descriptor is copied through the kernel, the number is closed,
//! and the copy is moved to that number: afterwards nothing but our `OwnedFd` holds it, and closing it closes it.

use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

use nix::unistd::close;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use rustix::process::getpid;
use rustix::process::pidfd_getfd;
use rustix::process::pidfd_open;

/// Takes the open descriptor `number`, which nothing else in this program may own.
pub(crate) fn take(number: RawFd) -> Result<OwnedFd, String> {
    if number < 3 {
        return Err(format!("descriptor {number} belongs to the standard streams"));
    }
    let myself = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|error| format!("pidfd_open: {error}"))?;
    let copy = pidfd_getfd(&myself, number, PidfdGetfdFlags::empty())
        .map_err(|error| format!("descriptor {number}: {error}"))?;
    close(number).map_err(|error| format!("closing descriptor {number}: {error}"))?;
    // The lowest free number from `number` on is `number` itself: it was closed a line ago, and we have one thread.
    fcntl_dupfd_cloexec(&copy, number).map_err(|error| format!("moving descriptor {number}: {error}"))
}
