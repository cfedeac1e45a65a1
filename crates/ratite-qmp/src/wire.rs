//! A socket on which whole messages come and go.
//!
//! Owns the socket, the decoder and what is yet to be written; knows no order and no meaning.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use tokio::io::AsyncRead;
use tokio::io::ReadBuf;

use crate::codec::Decoder;
use crate::codec::Limits;
use crate::codec::Run;
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
    /// What is to be written: at most one that has begun, the urgent ones, then the others.
    outgoing: VecDeque<Outgoing>,
    limits: Limits,
    transcript: Option<Transcript>,
    /// The peer says nothing more; what it said may not have been looked at to its end.
    ended: Option<Disconnect>,
    /// How many bytes came with the last read.
    last_read: usize,
}

#[derive(Debug)]
struct Outgoing {
    id: u64,
    text: String,
    written: usize,
    fds: Vec<OwnedFd>,
    is_urgent: bool,
}

impl Outgoing {
    fn rest(&self) -> &[u8] {
        &self.text.as_bytes()[self.written..]
    }
}

/// How many messages are written at once.
const MOST_AT_ONCE: usize = 32;

/// How many bytes are much for one read: a flood, and not a few replies.
const MUCH: usize = 64 << 10;

/// How long they are together; a longer one is written alone.
const MOST_BYTES_AT_ONCE: usize = 16 << 10;

impl Wire {
    pub(crate) fn new(socket: Socket, limits: Limits, transcript: Option<Transcript>) -> Self {
        Self {
            socket,
            decoder: Decoder::new(limits),
            outgoing: VecDeque::new(),
            limits,
            transcript,
            ended: None,
            last_read: 0,
        }
    }

    pub(crate) fn carries_descriptors(&self) -> bool {
        self.socket.carries_descriptors()
    }

    /// Whether another message is worth being pushed: what waits elsewhere can still be given up at no cost.
    pub(crate) fn has_room(&self) -> bool {
        self.outgoing.len() < MOST_AT_ONCE
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Whether somebody who does not wait may write, since nothing is to be written yet and nobody watches.
    pub(crate) fn is_at_hand(&self) -> bool {
        self.is_idle() && self.transcript.is_none() && self.socket.sends_at_once()
    }

    /// Writes what can be written without waiting: whether that is all.
    pub(crate) fn flush_at_once(&mut self) -> bool {
        // An error comes again, to whoever flushes after this.
        while let Some(first) = self.outgoing.front()
            && let Ok(count) = self.socket.send_at_once(first.rest(), &first.fds)
        {
            self.written(count);
        }
        self.is_idle()
    }

    /// Takes the message of the command `id`, to be written by the next flushes, before those that are not urgent if it is;
    /// `fds` travel with its first byte.
    pub(crate) fn push(&mut self, id: u64, text: String, fds: Vec<OwnedFd>, is_urgent: bool) {
        let waits = |message: &Outgoing| message.written == 0 && !message.is_urgent;
        let place = self.outgoing.iter().position(waits).filter(|_| is_urgent);
        let message = Outgoing { id, text, written: 0, fds, is_urgent };
        self.outgoing.insert(place.unwrap_or(self.outgoing.len()), message);
    }

    /// Forgets the message of the command `id`, unless its first byte has gone.
    pub(crate) fn take_back(&mut self, id: u64) {
        self.outgoing.retain(|message| message.id != id || message.written > 0);
    }

    /// Writes what there is to write; ready only with the reason why nothing can be written any more.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Disconnect> {
        while let Some(first) = self.outgoing.front() {
            let together = self.together();
            let bytes = if together.is_empty() { first.rest() } else { &together };
            match ready!(self.socket.poll_send(cx, bytes, &first.fds)) {
                Ok(count) => self.written(count),
                Err(error) => return Poll::Ready(Disconnect::io("write to", error)),
            }
        }
        Poll::Pending
    }

    /// The messages that one system call can write; empty if that is only the first one.
    fn together(&self) -> Vec<u8> {
        let mut messages = self.outgoing.iter();
        let Some(first) = messages.next() else { return Vec::new() };
        let mut length = first.rest().len();
        // Descriptors come with a first byte, and only with that of the first message.
        let fits = |message: &&Outgoing| {
            length += message.text.len();
            message.fds.is_empty() && length <= MOST_BYTES_AT_ONCE
        };
        let more = messages.take_while(fits).count();
        if more == 0 {
            return Vec::new();
        }
        let mut together = Vec::with_capacity(MOST_BYTES_AT_ONCE.min(length) + first.rest().len());
        self.outgoing.iter().take(1 + more).for_each(|message| together.extend_from_slice(message.rest()));
        together
    }

    /// Says that `count` bytes have gone.
    fn written(&mut self, mut count: usize) {
        while count > 0
            && let Some(message) = self.outgoing.front_mut()
        {
            if message.written == 0
                && let Some(transcript) = &self.transcript
            {
                transcript.note(Direction::Sent, &message.text);
            }
            let part = count.min(message.rest().len());
            message.written += part;
            count -= part;
            // They have gone with the first byte; our copies are closed here.
            message.fds.clear();
            if message.rest().is_empty() {
                self.outgoing.pop_front();
            }
        }
    }

    /// The next events of those that were read; `None` when [`Wire::next`] has to look for what comes next.
    pub(crate) fn next_events(&mut self) -> Result<Option<Run<'_>>, Disconnect> {
        // Who follows every message is told of each before anything is done with it.
        if self.transcript.is_some() {
            return Ok(None);
        }
        self.decoder.next_events().map_err(Disconnect::Malformed)
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
        self.check_end()?;
        self.read_from(|socket, space| Pin::new(socket).poll_read(cx, space))
    }

    /// Whether so much came with the last read that others should have a turn before the next one.
    pub(crate) fn has_read_much(&self) -> bool {
        self.last_read >= MUCH
    }

    /// Why nothing more is to be read, if all that the peer said has been looked at.
    fn check_end(&self) -> Result<(), Disconnect> {
        let Some(why) = &self.ended else { return Ok(()) };
        Err(self.decoder.finish().map_or_else(Disconnect::Malformed, |()| why.clone()))
    }

    /// The socket, for who waits for it himself.
    pub(crate) fn watched(&self) -> Option<Arc<UnixStream>> {
        self.socket.watched()
    }

    /// Takes in what somebody has read from the socket.
    pub(crate) fn take_in(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
        self.decoder.be_patient();
    }

    /// Reads what is there, as [`Wire::poll_read`] does; pending if there is nothing more.
    pub(crate) fn read_at_once(&mut self) -> Poll<Result<(), Disconnect>> {
        self.check_end()?;
        self.read_from(|socket, space| socket.read_at_once(space))
    }

    /// Says that nothing more is read for now; whether [`Wire::next`] may find something all the same.
    pub(crate) fn rest(&mut self) -> bool {
        self.decoder.rest()
    }

    /// Says that somebody else reads before this is read again.
    pub(crate) fn give_room_back(&mut self) {
        self.decoder.give_room_back();
    }

    fn read_from(
        &mut self,
        read: impl FnOnce(&mut Socket, &mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<Result<(), Disconnect>> {
        let mut space = ReadBuf::new(self.decoder.space());
        let outcome = read(&mut self.socket, &mut space);
        let count = space.filled().len();
        self.decoder.filled(count);
        self.last_read = count;
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
                Ok(Some(arrival)) => {
                    return Poll::Ready(arrival.into_message().map_err(Disconnect::Malformed));
                }
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
