//! One connected stream socket: what is queued for the peer, and what came from it.
//!
//! Owns its descriptor; dropping it closes the connection. Knows no protocol.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::io::Errno;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use rustix::net::SocketFlags;
use rustix::net::accept_with;
use rustix::net::recvmsg;
use rustix::net::send;

/// A connection, with the bytes the peer has not taken yet.
#[derive(Debug)]
pub(crate) struct Line {
    socket: OwnedFd,
    queued: Vec<u8>,
    sent: usize,
}

/// What a read brought.
#[derive(Debug)]
pub(crate) enum Received {
    Bytes(Vec<u8>),
    Nothing,
    Closed,
}

impl Line {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, queued: Vec::new(), sent: 0 }
    }

    /// The bytes that still wait for the peer.
    pub(crate) fn backlog(&self) -> usize {
        self.queued.len() - self.sent
    }

    /// Sends `bytes` as far as the peer takes them, and keeps the rest.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.queued.extend_from_slice(bytes);
        self.flush();
    }

    /// Sends what is queued as far as the peer takes it. A peer that is gone takes everything.
    pub(crate) fn flush(&mut self) {
        while self.backlog() > 0 {
            match send(&self.socket, &self.queued[self.sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.sent = self.queued.len(),
            }
        }
        if self.backlog() == 0 {
            self.queued.clear();
            self.sent = 0;
        } else if self.sent > 1 << 20 {
            self.queued.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Waits until the peer has taken everything, or is gone, or `limit` is reached.
    pub(crate) fn drain(&mut self, limit: Instant) {
        self.flush();
        while self.backlog() > 0 {
            let left = limit.saturating_duration_since(Instant::now());
            let mut ready = [PollFd::new(&self.socket, PollFlags::OUT)];
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut ready, timeout.as_ref()) {
                Ok(0) => return,
                // An interrupted wait is repeated; the loop measures its own time.
                Ok(_) | Err(_) => self.flush(),
            }
        }
    }

    /// Reads once, without waiting; descriptors that come along are added to `descriptors`.
    pub(crate) fn receive(&self, descriptors: &mut VecDeque<OwnedFd>) -> Received {
        let mut bytes = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(message) => {
                for part in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = part {
                        descriptors.extend(rights);
                    }
                }
                bytes.truncate(message.bytes);
                if bytes.is_empty() { Received::Closed } else { Received::Bytes(bytes) }
            }
            Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            Err(_) => Received::Closed,
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A chardev: a connection, or a place where one can be made, or both.
#[derive(Debug, Default)]
pub(crate) struct Port {
    pub(crate) listener: Option<OwnedFd>,
    pub(crate) line: Option<Line>,
}

impl Port {
    /// Adds what has to be watched to `watched`, and says what it was: a listener or a connection.
    pub(crate) fn watch<'a>(&'a self, read: bool, watched: &mut Vec<PollFd<'a>>) -> Option<Watched> {
        match (&self.line, &self.listener) {
            (Some(line), _) => {
                let mut events = PollFlags::empty();
                events.set(PollFlags::IN, read);
                events.set(PollFlags::OUT, line.backlog() > 0);
                // Without a flag set, poll would still report the end of the connection, again and again.
                (!events.is_empty()).then(|| watched.push(PollFd::new(line, events)))?;
                Some(Watched::Line)
            }
            (None, Some(listener)) if read => {
                watched.push(PollFd::new(listener, PollFlags::IN));
                Some(Watched::Listener)
            }
            _ => None,
        }
    }

    /// Takes the connection that waits at the listener, if there is one.
    pub(crate) fn accept(&mut self) -> bool {
        let Some(listener) = &self.listener else {
            return false;
        };
        // The peer may have given up meanwhile; then there is nothing to take.
        self.line = accept_with(listener, SocketFlags::CLOEXEC).ok().map(Line::new);
        self.line.is_some()
    }

    pub(crate) fn backlog(&self) -> usize {
        self.line.as_ref().map_or(0, Line::backlog)
    }
}

/// What a watched descriptor of a port is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Watched {
    Line,
    Listener,
}
