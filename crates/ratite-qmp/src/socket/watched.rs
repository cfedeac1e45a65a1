//! A Unix socket that a runtime watches, and on which a thread may wait as well.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::ReadBuf;
use tokio::io::unix::AsyncFd;

use crate::socket::PATIENCE;
use crate::socket::send_unix;

/// A stream that is waited for within one runtime, or by a thread that reads from it.
#[derive(Debug)]
pub(super) struct Watched {
    fd: AsyncFd<Arc<UnixStream>>,
    /// Whether a thread that reads from it waits for a while.
    waits: bool,
}

impl Watched {
    /// Watches it in the runtime of the caller. Only a stream that `is_unshared` is set up for threads that wait themselves: whoever
    /// else had it could take the limit of their waits away.
    pub(super) fn new(stream: UnixStream, is_unshared: bool) -> io::Result<Self> {
        if is_unshared {
            // Everybody else says with each call that he does not wait.
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the stream owns its descriptor for as long as it is watched"
        )]
        let fd = AsyncFd::new(Arc::new(stream))?;
        Ok(Self { fd, waits: is_unshared })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        self.fd.get_ref()
    }

    /// The stream, for a thread that waits for it itself.
    pub(super) fn for_a_thread(&self) -> Option<Arc<UnixStream>> {
        self.waits.then(|| Arc::clone(self.fd.get_ref()))
    }

    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.fd.poll_read_ready(cx))?;
            let room = buffer.remaining();
            match self.read_at_once(buffer) {
                Poll::Pending => ready.clear_ready(),
                Poll::Ready(outcome) => {
                    let is_all = (1..room).contains(&(room - buffer.remaining()));
                    if is_all {
                        // What comes from now on is told anew.
                        ready.clear_ready();
                    }
                    return Poll::Ready(outcome);
                }
            }
        }
    }

    /// Reads what is there; pending if there is nothing.
    pub(super) fn read_at_once(&self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match rustix::net::recv(self.stream(), buffer.initialize_unfilled(), RecvFlags::DONTWAIT) {
            Ok((count, _)) => {
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(Errno::WOULDBLOCK) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Writes a beginning of `bytes`, with which `fds` travel.
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        fds: &[OwnedFd],
    ) -> Poll<io::Result<usize>> {
        loop {
            match send_unix(self.stream(), bytes, fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
            // Whatever is cleared here, it is tried once more after it.
            ready!(self.fd.poll_write_ready(cx))?.clear_ready();
        }
    }
}
