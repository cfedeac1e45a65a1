//! The socket to a guest agent, and whether both sides agree on where they are.
//!
//! Owns the socket, the decoder, what is yet to be written, and one bit: whether the line is *in order*, which it is
//! when the last command has its reply. A command that was given up leaves it out of order, and the next one begins
//! with a synchronisation:
//!
//! ```text
//! 0xFF guest-sync-delimited(random id) ─►     0xFF: the agent forgets half of a command
//! ◄─ stale replies, half a reply, …           skipped
//! ◄─ 0xFF {"return": another id}              the reply to a synchronisation that was given up: skipped
//! ◄─ 0xFF {"return": id}                      in order
//! ```

use std::collections::hash_map::RandomState;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;
use tokio::io::AsyncRead;
use tokio::io::ReadBuf;

use crate::codec::Decoder;
use crate::codec::Limits;
use crate::codec::SENTINEL;
use crate::codec::encode_for_agent;
use crate::command::Command;
use crate::deadline::within;
use crate::error::Disconnect;
use crate::malformed::excerpt;
use crate::message::Message;
use crate::reply::Reply;
use crate::socket::Socket;

#[derive(Debug)]
pub(crate) struct Line {
    socket: Socket,
    decoder: Decoder,
    outgoing: Vec<u8>,
    written: usize,
    in_order: bool,
    /// Whether the agent has answered the last synchronisation; for those who wait for the line.
    answers: Arc<AtomicBool>,
    /// The beginning of what came since the last synchronisation began.
    heard: Vec<u8>,
    ended: Option<Disconnect>,
}

/// The command whose reply has the sentinel before it.
pub(crate) const SYNC: &str = "guest-sync-delimited";

/// After how long an unanswered synchronisation is sent again, at first; then after twice that, and so on. A channel
/// that is a serial port loses what is sent before the agent is there.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How much is kept of what came instead of an answer.
const HEARD: usize = 120;

impl Line {
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            socket,
            decoder: Decoder::delimited(Limits::default()),
            outgoing: Vec::new(),
            written: 0,
            in_order: false,
            answers: Arc::default(),
            heard: Vec::new(),
            ended: None,
        }
    }

    pub(crate) fn answers(&self) -> Arc<AtomicBool> {
        self.answers.clone()
    }

    /// Whether the last command has its reply.
    pub(crate) fn is_in_order(&self) -> bool {
        self.in_order && self.ended.is_none()
    }

    /// Brings the line in order, unless it is.
    pub(crate) async fn synchronise(&mut self) -> Result<(), Disconnect> {
        if let Some(why) = &self.ended {
            return Err(why.clone());
        }
        if self.in_order && !self.has_unasked().await? {
            return Ok(());
        }
        self.in_order = false;
        self.answers.store(false, Ordering::Release);
        self.heard.clear();
        let mut pause = FIRST_PAUSE;
        loop {
            // A new id each time: only the reply to the last one has no other behind it.
            let id = random();
            // What was not written yet of an older command is not needed: the sentinel ends it.
            self.outgoing = vec![SENTINEL];
            self.written = 0;
            self.outgoing.extend(sync(id).into_bytes());
            match within(pause, SYNC, self.synchronised(id)).await {
                Ok(outcome) => return outcome,
                Err(_) => pause = pause.saturating_mul(2),
            }
        }
    }

    async fn synchronised(&mut self, id: u64) -> Result<(), Disconnect> {
        self.decoder.skip_to_sentinel();
        loop {
            match self.next().await {
                Ok(Message::Reply(reply)) if self.decoder.was_after_sentinel() && answers(&reply, id) => {
                    break;
                }
                Ok(stale) => tracing::debug!(?stale, "dropped what came before the agent's synchronisation"),
                Err(Disconnect::Malformed(_)) if !self.greeted() => {}
                Err(why) => return Err(why),
            }
            self.decoder.skip_to_sentinel();
        }
        self.in_order = true;
        self.answers.store(true, Ordering::Release);
        Ok(())
    }

    /// What came instead of an answer to the last synchronisation, escaped.
    pub(crate) fn heard(&self) -> Option<String> {
        (!self.heard.is_empty()).then(|| excerpt(&self.heard))
    }

    /// Whether the peer greets, as a QMP monitor does and an agent does not.
    pub(crate) fn greeted(&self) -> bool {
        self.heard.trim_ascii_start().starts_with(b"{\"QMP\"")
    }

    /// Sends a command, and returns its reply.
    ///
    /// Cancelled, it leaves the line out of order.
    pub(crate) async fn ask(&mut self, command: &Command) -> Result<Reply, Disconnect> {
        let is_sync = command.name == SYNC;
        self.begin(encode_for_agent(command));
        loop {
            match self.next().await? {
                Message::Reply(reply) if is_sync || !self.decoder.was_after_sentinel() => {
                    self.in_order = true;
                    return Ok(reply);
                }
                stale => tracing::debug!(?stale, "dropped what is no reply to the agent's command"),
            }
        }
    }

    /// Sends a command that has no reply unless it fails, and a synchronisation behind it, whose reply says that the
    /// agent is done with it. `None`: it did not fail, or it ended the connection.
    pub(crate) async fn tell(&mut self, command: &Command) -> Result<Option<Reply>, Disconnect> {
        let id = random();
        self.begin(encode_for_agent(command) + &sync(id));
        loop {
            let reply = match self.next().await {
                Ok(Message::Reply(reply)) => reply,
                Ok(stale) => {
                    tracing::debug!(?stale, "dropped what is no reply to the agent's command");
                    continue;
                }
                Err(Disconnect::ByPeer) if self.is_written() => return Ok(None),
                Err(why) => return Err(why),
            };
            match self.decoder.was_after_sentinel() {
                false => return Ok(Some(reply)),
                true if answers(&reply, id) => {
                    self.in_order = true;
                    return Ok(None);
                }
                true => {}
            }
        }
    }

    fn begin(&mut self, text: String) {
        self.in_order = false;
        self.outgoing = text.into_bytes();
        self.written = 0;
    }

    /// Whether something has come that nobody asked for; it may be the rest of anything.
    async fn has_unasked(&mut self) -> Result<bool, Disconnect> {
        // Of a message that has come the line end may be left, or still to come.
        while !self.decoder.has_more() {
            match poll_fn(|cx| Poll::Ready(self.poll_read(cx))).await {
                Poll::Pending => return Ok(false),
                Poll::Ready(read) => read?,
            }
        }
        Ok(true)
    }

    /// Whether all of the last command has been handed to the socket.
    pub(crate) fn is_written(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Writes what there is to write, and returns the next message.
    async fn next(&mut self) -> Result<Message, Disconnect> {
        poll_fn(|cx| {
            // What can be read counts more than that nothing can be written: it may say why.
            let flushed = self.poll_flush(cx);
            match (self.poll_message(cx), flushed) {
                (Poll::Ready(outcome), _) => Poll::Ready(outcome),
                (Poll::Pending, Poll::Ready(Err(why))) => Poll::Ready(Err(why)),
                (Poll::Pending, _) => Poll::Pending,
            }
        })
        .await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnect>> {
        while self.written < self.outgoing.len() {
            match ready!(self.socket.poll_send(cx, &self.outgoing[self.written..], &[])) {
                Ok(count) => self.written += count,
                Err(error) => return Poll::Ready(Err(self.end(Disconnect::io("write to", error)))),
            }
        }
        self.outgoing.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Disconnect>> {
        loop {
            if let Some(text) = self.decoder.next().map_err(Disconnect::Malformed)? {
                return Poll::Ready(Message::parse(text).map_err(Disconnect::Malformed));
            }
            ready!(self.poll_read(cx))?;
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnect>> {
        let mut space = ReadBuf::new(self.decoder.space());
        let outcome = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space));
        let read = space.filled();
        let more = HEARD.saturating_sub(self.heard.len()).min(read.len());
        self.heard.extend(&read[..more]);
        let count = read.len();
        self.decoder.filled(count);
        Poll::Ready(match outcome {
            Ok(()) if count == 0 => Err(self.end(Disconnect::ByPeer)),
            Ok(()) if self.greeted() => Err(self.end(Disconnect::ByUs)),
            Ok(()) => Ok(()),
            Err(error) => Err(self.end(Disconnect::io("read from", error))),
        })
    }

    fn end(&mut self, why: Disconnect) -> Disconnect {
        self.ended.get_or_insert(why).clone()
    }
}

fn sync(id: u64) -> String {
    let command = Command::new(SYNC).arguments(json!({ "id": id })).expect("a number serialises");
    encode_for_agent(&command)
}

fn answers(reply: &Reply, id: u64) -> bool {
    reply.decode::<u64>().is_ok_and(|answer| answer == id)
}

/// A number that no earlier client of this agent has sent; of 53 bits, which every JSON parser keeps.
fn random() -> u64 {
    RandomState::new().hash_one(Instant::now()) >> 11
}
