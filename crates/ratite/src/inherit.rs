//! What a child inherits: the descriptors that are meant for it, nothing of value besides, and no blocked signals.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::process::Command;

use command_fds::FdMapping;
use process_wrap::std::CommandWrap;
use process_wrap::std::CommandWrapper;
use process_wrap::std::ResetSigmask;

use crate::procfs::inheritable;
use crate::procfs::named;

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
            mappings.push(FdMapping { parent_fd: dev_null()?.into(), child_fd: number });
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

fn dev_null() -> io::Result<File> {
    File::open("/dev/null").map_err(|error| named("/dev/null", error))
}

/// Has the child begin with no signal blocked, whatever this program blocks: it would be deaf to SIGTERM.
///
/// Done in the child. A thread of ours that unblocked a signal which the program takes by signalfd(2) or sigwait(3) would
/// be where the system delivers it, and be the program's end.
pub(crate) fn no_blocked_signals(command: &mut Command) -> io::Result<()> {
    ResetSigmask.pre_spawn(command, &CommandWrap::with_new("", |_| {}))
}

/// What a child is to inherit.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) mappings: Vec<FdMapping>,
    /// To be held until the child is started: they take, in this process, the numbers that are free here but not in the
    /// child. Otherwise the pipe by which the child tells that it could not start might get one of them, and be overwritten.
    pub(crate) placeholders: Vec<OwnedFd>,
}
