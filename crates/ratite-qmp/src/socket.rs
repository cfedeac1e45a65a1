//! What a QMP socket must do: read, write, and let descriptors travel with a message.
//!
//! Unix sockets, TCP, and pairs in memory for tests. Knows nothing of messages.

mod watched;

use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::net::AddressFamily;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::SocketType;
use rustix::net::sockopt;
use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::DuplexStream;
use tokio::io::Interest;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;

use crate::address::Address;
use crate::socket::watched::Watched;

/// A connected socket that QMP can be spoken over. Closed on drop.
///
/// Made from tokio's or std's Unix and TCP streams, from a descriptor, or in memory.
#[derive(Debug)]
pub struct Socket {
    kind: Kind,
    /// Whether nobody else has its descriptor.
    is_unshared: bool,
}

#[derive(Debug)]
enum Kind {
    Unix(UnixStream),
    Watched(Watched),
    Tcp(TcpStream),
    Memory(DuplexStream),
}

/// For how long a thread waits that reads from such a stream itself (as the kernel rounds it).
pub(crate) const PATIENCE: Duration = Duration::from_millis(2);

/// How many descriptors may travel with one message: the kernel's SCM_MAX_FD.
pub(crate) const MOST_DESCRIPTORS: usize = 253;

impl Socket {
    /// Connects to `address`. Has no limit of its own.
    ///
    /// # Errors
    /// What the system says; for TCP that of the last address the host's name resolves to.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Unix(path) => UnixStream::connect(path).await.map(Self::made_here),
            Address::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await.map(Self::from),
            Address::Fd(number) => Self::adopt(*number),
        }
    }

    /// Two ends of a connection within this process, without any descriptor: a peer for tests.
    ///
    /// Each direction holds 64 KiB before a writer has to wait.
    #[must_use]
    pub fn pair() -> (Self, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        (Self::of(Kind::Memory(ours)), theirs)
    }

    /// A stream whose descriptor nobody else has: no duplicate of it is in this program or in another one.
    ///
    /// Then a thread that waits for a reply may sleep in the kernel on this very socket, which takes settings that all duplicates
    /// would share (`SO_RCVTIMEO`, no `O_NONBLOCK`). Everything else works without it. Needs to be called within a tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn unshared(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream).map(Self::made_here)
    }

    /// One that was just made, so that nobody can have a duplicate.
    pub(crate) fn made_here(stream: UnixStream) -> Self {
        Self { kind: Kind::Unix(stream), is_unshared: true }
    }

    /// One that others may have, too.
    fn of(kind: Kind) -> Self {
        Self { kind, is_unshared: false }
    }

    /// A duplicate of the socket that this process has under `number`; the original stays open.
    ///
    /// Duplicated through a pidfd of this very process (Linux 5.6), which needs no trust in the number.
    fn adopt(number: RawFd) -> io::Result<Self> {
        if number < 0 {
            return Err(rustix::io::Errno::BADF.into());
        }
        let this = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        rustix::process::pidfd_getfd(this, number, PidfdGetfdFlags::empty())?.try_into()
    }

    /// Whether descriptors can travel over it.
    #[must_use]
    pub fn carries_descriptors(&self) -> bool {
        matches!(self.kind, Kind::Unix(_) | Kind::Watched(_))
    }

    /// The same socket, for a session: callers may write to it at once, and a thread may wait for it itself.
    pub(crate) fn for_a_session(self) -> io::Result<Self> {
        match self.kind {
            Kind::Unix(stream) => {
                let watched = Watched::new(stream.into_std()?, self.is_unshared)?;
                Ok(Self { kind: Kind::Watched(watched), ..self })
            }
            kind => Ok(Self { kind, ..self }),
        }
    }

    /// Whether the peer has closed both directions, as far as the system tells: one that has only ended its own still reads.
    pub(crate) fn peer_is_gone(&self) -> bool {
        let fd = match &self.kind {
            Kind::Unix(stream) => stream.as_fd(),
            Kind::Watched(socket) => socket.stream().as_fd(),
            Kind::Tcp(stream) => stream.as_fd(),
            Kind::Memory(_) => return false,
        };
        let mut looked = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
        let at_once = Timespec::default();
        rustix::event::poll(&mut looked, Some(&at_once)).is_ok()
            && looked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Reads what there is room for in `bytes`; descriptors that came with it replace those in `fds`.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
        fds: &mut Vec<OwnedFd>,
    ) -> Poll<io::Result<usize>> {
        if let Kind::Unix(stream) = &self.kind {
            return poll_receive_unix(stream, cx, bytes, fds);
        }
        let mut space = ReadBuf::new(bytes);
        ready!(Pin::new(self).poll_read(cx, &mut space))?;
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Writes a beginning of `bytes`; `fds` travel with its first byte.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        fds: &[OwnedFd],
    ) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Unix(stream) => poll_send_unix(stream, cx, bytes, fds),
            Kind::Watched(socket) => socket.poll_send(cx, bytes, fds),
            Kind::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Memory(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

impl Socket {
    /// Whether [`Socket::send_at_once`] may write.
    pub(crate) fn sends_at_once(&self) -> bool {
        matches!(self.kind, Kind::Watched(_) | Kind::Tcp(_))
    }

    /// The stream, for a thread that waits for it itself, in recv(2), for [`PATIENCE`] at most.
    pub(crate) fn watched(&self) -> Option<Arc<std::os::unix::net::UnixStream>> {
        match &self.kind {
            Kind::Watched(socket) => socket.for_a_thread(),
            _ => None,
        }
    }

    /// As [`AsyncRead::poll_read`], for somebody who does not wait.
    pub(crate) fn read_at_once(&self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &self.kind {
            Kind::Watched(socket) => socket.read_at_once(buffer),
            _ => Poll::Pending,
        }
    }

    /// As [`Socket::poll_send`], for somebody who does not wait.
    pub(crate) fn send_at_once(&self, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
        match &self.kind {
            Kind::Watched(socket) => send_unix(socket.stream(), bytes, fds),
            Kind::Tcp(stream) => stream.try_write(bytes),
            Kind::Unix(_) | Kind::Memory(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// Takes bytes, and the descriptors that came with them: those of an earlier message that nobody has taken are closed.
fn poll_receive_unix(
    stream: &UnixStream,
    cx: &mut Context<'_>,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Poll<io::Result<usize>> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut receive = || {
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(bytes)];
        let received = rustix::net::recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let rights = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let came: Vec<OwnedFd> = rights.flatten().collect();
        if !came.is_empty() {
            *fds = came;
        }
        Ok(received.bytes)
    };
    loop {
        ready!(stream.poll_read_ready(cx))?;
        match stream.try_io(Interest::READABLE, &mut receive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return Poll::Ready(outcome),
        }
    }
}

/// Writes a beginning of `bytes`, once there is room; `fds` travel with its first byte.
fn poll_send_unix(
    stream: &UnixStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
    fds: &[OwnedFd],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_io(Interest::WRITABLE, || send_unix(stream, bytes, fds)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return Poll::Ready(outcome),
        }
    }
}

/// Sends without SIGPIPE, which a program may have set back to its default: the end of a QEMU must not be ours.
fn send_unix(stream: impl AsFd, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    if fds.is_empty() {
        return Ok(rustix::net::send(stream, bytes, flags)?);
    }
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(&borrowed).size()];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fits = ancillary.push(SendAncillaryMessage::ScmRights(&borrowed));
    debug_assert!(fits, "the space was made to measure");
    Ok(rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, flags)?)
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::of(Kind::Unix(stream))
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        // Messages are small and each is awaited: waiting to fill a packet would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
        Self::of(Kind::Tcp(stream))
    }
}

impl TryFrom<std::os::unix::net::UnixStream> for Socket {
    type Error = io::Error;

    /// Needs to be called within a tokio runtime.
    fn try_from(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream).map(Self::from)
    }
}

impl TryFrom<OwnedFd> for Socket {
    type Error = io::Error;

    /// Takes a connected Unix or TCP socket; needs to be called within a tokio runtime.
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        let is_stream = sockopt::socket_type(&fd)? == SocketType::STREAM;
        if !is_stream || sockopt::socket_acceptconn(&fd)? {
            let text = "it is a socket, but no connected stream";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let family = rustix::net::getsockname(&fd)?.address_family();
        if family == AddressFamily::UNIX {
            return std::os::unix::net::UnixStream::from(fd).try_into();
        }
        let stream = std::net::TcpStream::from(fd);
        let _: SocketAddr = stream.peer_addr()?;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream).map(Self::from)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Watched(socket) => socket.poll_read(cx, buffer),
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Memory(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes, &[])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is held back on this side.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Watched(socket) => Poll::Ready(socket.stream().shutdown(Shutdown::Write)),
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_descriptor_that_others_may_have_keeps_its_settings() {
        type Std = std::os::unix::net::UnixStream;
        let (shared, _peer) = Std::pair().unwrap();
        let copy = shared.try_clone().unwrap();

        let shared = Socket::try_from(shared).unwrap().for_a_session().unwrap();

        assert!(shared.watched().is_none() && copy.read_timeout().unwrap().is_none());
        let (alone, _peer) = Std::pair().unwrap();
        assert!(Socket::unshared(alone).unwrap().for_a_session().unwrap().watched().is_some());
    }
}
