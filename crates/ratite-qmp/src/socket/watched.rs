//! A Unix socket that the runtime watches for what it is waited for, and for nothing else.
//!
//! A peer that takes what was written to it makes room for more, and the kernel tells that to everybody who watches for room.
//! Watched for both directions, as tokio's own streams are, a socket would wake its owner twice for each command: since it was
//! taken, and since it was answered.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::io::ReadBuf;
use tokio::io::unix::AsyncFd;

use crate::socket::PATIENCE;
use crate::socket::send_unix;

/// A stream that is waited for within one runtime, or by a thread that reads from it.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Arc<UnixStream>,
    /// None where it could not be watched.
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Watch {
    fd: AsyncFd<Arc<UnixStream>>,
    interest: Interest,
}

impl Watched {
    /// Watches for what is to be read, in the runtime of the caller.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        // For threads that wait themselves; everybody else says with each call that he does not wait.
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut watched = Self { stream: Arc::new(stream), watch: None };
        watched.watch_for(Interest::READABLE)?;
        Ok(watched)
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn shared(&self) -> Arc<UnixStream> {
        Arc::clone(&self.stream)
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(Watch { fd, .. }) = &self.watch else { return Poll::Ready(Err(unwatched())) };
        loop {
            let mut ready = ready!(fd.poll_read_ready(cx))?;
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
        match rustix::net::recv(&self.stream, buffer.initialize_unfilled(), RecvFlags::DONTWAIT) {
            Ok((count, _)) => {
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(Errno::WOULDBLOCK) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Writes a beginning of `bytes`, with which `fds` travel. Where that has to wait, or need not any more, the waker is woken
    /// at once, for whatever else it waits for.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        fds: &[OwnedFd],
    ) -> Poll<io::Result<usize>> {
        loop {
            match send_unix(&self.stream, bytes, fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => {
                    if outcome.as_ref().is_ok_and(|count| *count == bytes.len()) && self.is_watched_for_room()
                    {
                        self.watch_for(Interest::READABLE)?;
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Ready(outcome);
                }
            }
            if !self.is_watched_for_room() {
                self.watch_for(Interest::READABLE | Interest::WRITABLE)?;
                cx.waker().wake_by_ref();
            }
            let Some(Watch { fd, .. }) = &self.watch else { return Poll::Ready(Err(unwatched())) };
            ready!(fd.poll_write_ready(cx))?.clear_ready();
        }
    }

    fn is_watched_for_room(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.interest.is_writable())
    }

    /// What was told before is told again, since it still holds; who waited before is forgotten.
    fn watch_for(&mut self, interest: Interest) -> io::Result<()> {
        // One at a time: a descriptor is watched once.
        self.watch = None;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the stream owns its descriptor for as long as it is watched"
        )]
        let fd = AsyncFd::with_interest(Arc::clone(&self.stream), interest)?;
        self.watch = Some(Watch { fd, interest });
        Ok(())
    }
}

fn unwatched() -> io::Error {
    io::Error::other("the runtime could not watch the socket")
}
