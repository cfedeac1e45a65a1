//! Which descriptors a child gets: those that are meant for it, and nothing of value besides.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

use command_fds::FdMapping;

use crate::procfs::inheritable;

/// What the child is to have, by its number there, and `/dev/null` under every number at which it would inherit something
/// else.
///
/// Everything of ratite's is close-on-exec, but the program may hold descriptors that are not, and closing them in the
/// child would take `unsafe`. One that another thread opens between this look and the fork still slips through.
pub(crate) fn exactly(fds: Vec<(RawFd, OwnedFd)>) -> io::Result<Inheritance> {
    let mut mappings: Vec<FdMapping> =
        fds.into_iter().map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
    // Nothing can be put at a number beyond the limit, even where something stands from before it was lowered.
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    for number in inheritable()?.into_iter().filter(|number| u64::from(number.unsigned_abs()) < most) {
        if mappings.iter().all(|mapping| mapping.child_fd != number) {
            mappings.push(FdMapping { parent_fd: File::open("/dev/null")?.into(), child_fd: number });
        }
    }
    let mut placeholders = Vec::new();
    for mapping in &mappings {
        let placeholder = rustix::io::fcntl_dupfd_cloexec(&mapping.parent_fd, mapping.child_fd)?;
        if placeholder.as_raw_fd() == mapping.child_fd {
            placeholders.push(placeholder);
        }
    }
    Ok(Inheritance { mappings, placeholders })
}

/// What a child is to inherit.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) mappings: Vec<FdMapping>,
    /// To be held until the child is started: they take, in this process, the numbers that are free here but not in the
    /// child. Otherwise the pipe by which the child tells that it could not start might get one of them, and be overwritten.
    pub(crate) placeholders: Vec<OwnedFd>,
}
