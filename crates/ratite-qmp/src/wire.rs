//! A socket on which whole messages come and go.
//!
//! Owns the socket, the decoder and what is yet to be written; knows no order and no meaning.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use tokio::io::AsyncRead;
use tokio::io::ReadBuf;

use crate::codec::Decoder;
use crate::codec::Limits;
use crate::envelope::Envelope;
use crate::error::Disconnect;
use crate::message::Arrival;
use crate::message::Message;
use crate::socket::Socket;
use crate::transcript::Direction;
use crate::transcript::Transcript;

#[derive(Debug)]
pub(crate) struct Wire {
    socket: Socket,
    decoder: Decoder,
    outgoing: Option<Outgoing>,
    limits: Limits,
    transcript: Option<Transcript>,
    /// The peer says nothing more; what it said may not have been looked at to its end.
    ended: Option<Disconnect>,
}

#[derive(Debug)]
struct Outgoing {
    id: u64,
    text: String,
    written: usize,
    fds: Vec<OwnedFd>,
}

impl Wire {
    pub(crate) fn new(socket: Socket, limits: Limits, transcript: Option<Transcript>) -> Self {
        Self { socket, decoder: Decoder::new(limits), outgoing: None, limits, transcript, ended: None }
    }

    pub(crate) fn carries_descriptors(&self) -> bool {
        self.socket.carries_descriptors()
    }

    /// Whether a message can be pushed.
    pub(crate) fn is_idle(&self) -> bool {
        self.outgoing.is_none()
    }

    /// Takes the message of the command `id`, to be written by the next flushes; `fds` travel with its first byte.
    ///
    /// One at a time: what waits elsewhere can still be given up.
    pub(crate) fn push(&mut self, id: u64, text: String, fds: Vec<OwnedFd>) {
        debug_assert!(self.is_idle(), "one message at a time");
        self.outgoing = Some(Outgoing { id, text, written: 0, fds });
    }

    /// Forgets the message of the command `id`, unless its first byte has gone.
    pub(crate) fn take_back(&mut self, id: u64) {
        self.outgoing.take_if(|message| message.id == id && message.written == 0);
    }

    /// Writes what there is to write; ready only with the reason why nothing can be written any more.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Disconnect> {
        while let Some(message) = &mut self.outgoing {
            let rest = &message.text.as_bytes()[message.written..];
            let count = match ready!(self.socket.poll_send(cx, rest, &message.fds)) {
                Ok(count) => count,
                Err(error) => return Poll::Ready(Disconnect::io("write to", error)),
            };
            if message.written == 0
                && let Some(transcript) = &self.transcript
            {
                transcript.note(Direction::Sent, &message.text);
            }
            message.written += count;
            // They have gone with the first byte; our copies are closed here.
            message.fds.clear();
            if message.written == message.text.len() {
                self.outgoing = None;
            }
        }
        Poll::Pending
    }

    /// The next message of those that were read.
    pub(crate) fn next(&mut self) -> Result<Option<Arrival<'_>>, Disconnect> {
        let Some((text, envelope)) = self.decoder.next_read().map_err(Disconnect::Malformed)? else {
            return Ok(None);
        };
        if let Some(transcript) = &self.transcript {
            transcript.note(Direction::Received, text);
        }
        let envelope = envelope.map_or_else(|| Envelope::parse(text), Ok).map_err(Disconnect::Malformed)?;
        Ok(Some(Arrival { text, envelope, depth_limit: self.limits.depth }))
    }

    /// Reads what the socket has, once [`Wire::next`] finds nothing more in what was read before; it may then find more
    /// though nothing was read.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnect>> {
        if let Some(why) = &self.ended {
            return Poll::Ready(Err(self
                .decoder
                .finish()
                .map_or_else(Disconnect::Malformed, |()| why.clone())));
        }
        let mut space = ReadBuf::new(self.decoder.space());
        let outcome = Pin::new(&mut self.socket).poll_read(cx, &mut space);
        let count = space.filled().len();
        self.decoder.filled(count);
        match outcome {
            Poll::Pending if self.decoder.rest() => {}
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if count > 0 => self.decoder.be_patient(),
            Poll::Ready(Ok(())) => {
                self.ended = Some(Disconnect::ByPeer);
                self.decoder.rest();
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Disconnect::io("read from", error))),
        }
        Poll::Ready(Ok(()))
    }

    /// The next message, read from the socket if need be.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Disconnect>> {
        loop {
            match self.next() {
                Ok(Some(arrival)) => return Poll::Ready(arrival.into_message()),
                Ok(None) => {}
                Err(why) => return Poll::Ready(Err(why)),
            }
            ready!(self.poll_read(cx))?;
        }
    }

    /// Writes what waits and returns the next message.
    pub(crate) async fn exchange(&mut self) -> Result<Message, Disconnect> {
        poll_fn(|cx| {
            // What can be read counts more than that nothing can be written: it may say why.
            let flushed = self.poll_flush(cx);
            match (self.poll_message(cx), flushed) {
                (Poll::Ready(outcome), _) => Poll::Ready(outcome),
                (Poll::Pending, Poll::Ready(why)) => Poll::Ready(Err(why)),
                (Poll::Pending, Poll::Pending) => Poll::Pending,
            }
        })
        .await
    }
}
