//! The owner of the socket.
//!
//! One task for each connection: it takes requests from the [`crate::Client`]s, writes each command whole, routes
//! replies back by id and events to their listeners. It ends when the peer does, when it is told to, or when the last
//! client is gone, and tells everybody who waits why. A caller that has gone away costs nobody else anything.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::codec::encode;
use crate::command::Command;
use crate::command::CommandError;
use crate::error::Disconnect;
use crate::error::ExecuteError;
use crate::event::Batch;
use crate::malformed::Malformed;
use crate::message::Message;
use crate::pending::Pending;
use crate::registry::Registry;
use crate::reply::Reply;
use crate::reply::ReplyId;
use crate::socket::MOST_DESCRIPTORS;
use crate::wire::Wire;

/// What a client asks of the connection.
#[derive(Debug)]
pub(crate) enum Request {
    /// To send a command and to answer when its reply comes. Boxed: a channel has room for 32 requests from its beginning on.
    Execute(Box<Asked>),
    /// To forget a command: nobody waits for it any more.
    GiveUp { id: u64 },
    /// To end.
    Close,
}

/// A command, and who asked for it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: u64,
    pub(crate) command: Command,
    pub(crate) answer: Answer,
}

/// What became of a command.
pub(crate) type Answered = Result<Reply, ExecuteError>;

/// The place for a command's answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Channel(oneshot::Sender<Answered>),
    /// The connection's seat.
    Seat,
}

/// The place of the one command that was begun by its caller, who looks into it.
#[derive(Debug)]
struct Seat {
    id: u64,
    answer: Option<Answered>,
}

/// With `oob` on, QEMU holds eight in-band commands and then stops reading; one more in the socket would stand in the
/// way of an out-of-band command (QEMU's docs/interop/qmp-spec, "Out-of-band execution").
const IN_BAND_WINDOW: usize = 8;

/// How often the socket is read before the runtime's other tasks get their turn.
const TURN: usize = 2;

/// How often a thread that waits for the socket itself reads what is there before others have their turn: enough for a long reply.
const STRETCH: usize = 16;

#[derive(Debug)]
pub(crate) struct Connection {
    // Before the desk: whoever is told that the connection has ended finds the socket closed.
    wire: Wire,
    desk: Desk,
    /// Why nothing can be written any more; what the peer had said before is read yet.
    unwritable: Option<Disconnect>,
    /// Whether much has come, and others are to have their turn before more is read.
    is_flooded: bool,
    /// Why nothing more comes, if a caller has found out.
    over: Option<Disconnect>,
}

/// Who asked, who listens, and where it is published that all is over.
#[derive(Debug)]
struct Desk {
    requests: mpsc::UnboundedReceiver<Request>,
    pending: Pending<Answer>,
    seat: Option<Seat>,
    registry: Registry,
    /// Events that have arrived and are not delivered yet; nothing else is done before they are.
    events: Vec<Arc<Batch>>,
    ended: watch::Sender<Option<Disconnect>>,
    oob: bool,
}

/// How far the reading has come.
enum Read {
    /// Nothing more for now.
    All,
    /// There may be more, but others have their turn first.
    Some,
    /// Nothing more for ever.
    Ended(Disconnect),
}

impl Connection {
    pub(crate) fn new(
        wire: Wire,
        requests: mpsc::UnboundedReceiver<Request>,
        registry: Registry,
        ended: watch::Sender<Option<Disconnect>>,
        oob: bool,
    ) -> Self {
        let pending = Pending::with_window(if oob { IN_BAND_WINDOW } else { usize::MAX });
        Self {
            wire,
            desk: Desk { requests, pending, seat: None, registry, events: Vec::new(), ended, oob },
            unwritable: None,
            is_flooded: false,
            over: None,
        }
    }

    /// Closes the socket and tells everybody why; what is for the seat is returned.
    pub(crate) fn end(self, why: &Disconnect) -> Option<Answered> {
        let Self { wire, mut desk, .. } = self;
        drop(wire);
        desk.end(why);
        desk.seat.take()?.answer
    }

    /// Does all there is to do; ready with the reason once there is nothing more to come. `io` is woken for what the socket
    /// does, `cx` for requests. Without news, nothing has come since it was read last.
    pub(crate) fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Context<'_>,
        has_news: bool,
    ) -> Poll<Disconnect> {
        if let Some(why) = self.over.take() {
            return Poll::Ready(why);
        }
        if let Some(why) = self.unwritable.clone() {
            return self.poll_rest(io, why);
        }
        if let Poll::Ready(why) = self.poll_requests(cx) {
            return Poll::Ready(why);
        }
        if has_news && let Read::Ended(why) = self.read(io) {
            return Poll::Ready(why);
        }
        // After the replies: each may have opened the window.
        if let Poll::Ready(why) = self.poll_send(io) {
            self.unwritable = Some(why);
            // Read in the next turn, which has the runtime's full budget.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Writes a command for its caller, who has the seat for it: whether it is written to its end. It comes back where something
    /// else is under way, or where it cannot be sent.
    pub(crate) fn begin(&mut self, id: u64, mut command: Command) -> Result<bool, Command> {
        let is_sendable = |command: &Command| !command.oob && command.fds.is_empty();
        if !self.is_idle() || !is_sendable(&command) {
            return Err(command);
        }
        self.wire.push(id, encode(&command, id), Vec::new(), false);
        self.desk.seat = Some(Seat { id, answer: None });
        self.desk.pending.begin(id, std::mem::take(&mut command.name), Answer::Seat);
        Ok(self.wire.flush_at_once())
    }

    fn is_idle(&self) -> bool {
        self.over.is_none()
            && self.unwritable.is_none()
            && self.wire.is_at_hand()
            && self.desk.seat.is_none()
            && self.desk.pending.is_lonely()
            && self.desk.requests.is_empty()
    }

    /// Whether reading was broken off since much had come, so that others get their turn: nobody was woken for the rest.
    pub(crate) fn take_flood(&mut self) -> bool {
        std::mem::take(&mut self.is_flooded)
    }

    /// Whether only what the peer had said is to be read yet.
    pub(crate) fn is_unwritable(&self) -> bool {
        self.unwritable.is_some()
    }

    /// Whether there is an answer in the seat.
    pub(crate) fn is_answered(&self) -> bool {
        self.desk.seat.as_ref().is_some_and(|seat| seat.answer.is_some())
    }

    /// Takes the answer from the seat, which is free then.
    pub(crate) fn take_answer(&mut self) -> Option<Answered> {
        let seat = self.desk.seat.take_if(|seat| seat.answer.is_some())?;
        seat.answer
    }

    /// Reads for a caller, and gives everybody his; whether there may be more to come.
    pub(crate) fn read_for_caller(&mut self, io: &mut Context<'_>) -> bool {
        if self.over.is_none()
            && let Read::Ended(why) = self.read(io)
        {
            self.over = Some(why);
        }
        self.over.is_none()
    }

    /// The socket, for who waits for it himself.
    pub(crate) fn watched(&self) -> Option<Arc<UnixStream>> {
        self.wire.watched()
    }

    /// Takes in what somebody has read from the socket, and some of what there is `more`, up to an answer for him. Whether that was
    /// all, and there may be more to come; else the task has to go on.
    pub(crate) fn take_in(&mut self, bytes: &[u8], more: bool) -> bool {
        self.wire.take_in(bytes);
        let mut outcome = self.route();
        let mut is_all = !more;
        for _ in 0..STRETCH {
            if is_all || outcome.is_err() || self.is_answered() {
                break;
            }
            match self.wire.read_at_once() {
                Poll::Ready(read) => outcome = read.and_then(|()| self.route()),
                Poll::Pending => is_all = true,
            }
        }
        // What has no line end may be whole all the same.
        if is_all && outcome.is_ok() && self.wire.rest() {
            outcome = self.route();
        }
        self.over = outcome.err();
        is_all && self.over.is_none()
    }

    /// Delivers what the peer had said before nothing could be written to it; it may say why.
    fn poll_rest(&mut self, cx: &mut Context<'_>, why: Disconnect) -> Poll<Disconnect> {
        match self.read(cx) {
            Read::All => Poll::Ready(why),
            Read::Some => Poll::Pending,
            Read::Ended(by_peer) => Poll::Ready(by_peer),
        }
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Disconnect> {
        loop {
            match self.desk.requests.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None | Some(Request::Close)) => return Poll::Ready(Disconnect::ByUs),
                Poll::Ready(Some(Request::Execute(asked))) => {
                    let Asked { id, command, answer } = *asked;
                    match refusal(&command, self.desk.oob, self.wire.carries_descriptors()) {
                        Some(refusal) => self.desk.give(answer, Err(refusal)),
                        None => self.desk.pending.ask(id, command, answer),
                    }
                }
                Poll::Ready(Some(Request::GiveUp { id })) => {
                    // What was not begun is never sent; of what was, the reply finds nobody.
                    self.wire.take_back(id);
                    self.desk.give_up(id);
                }
            }
        }
    }

    /// Sends what waits, several commands at once, as far as the window and the socket let it; ready only with the
    /// reason why nothing can be written any more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Disconnect> {
        loop {
            while self.wire.has_room() && self.push_next() {}
            if self.wire.is_idle() {
                return Poll::Pending;
            }
            if let Poll::Ready(why) = self.wire.poll_flush(cx) {
                return Poll::Ready(why);
            }
            if !self.wire.is_idle() {
                return Poll::Pending;
            }
        }
    }

    /// Hands the next command to the wire, if there is one.
    fn push_next(&mut self) -> bool {
        let Some((id, mut command)) = self.desk.pending.next() else { return false };
        let fds = std::mem::take(&mut command.fds);
        self.wire.push(id, encode(&command, id), fds, command.oob);
        true
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Read {
        let mut is_much = false;
        for _ in 0..TURN {
            let read = match self.route() {
                Ok(()) if is_much => break,
                Ok(()) => self.wire.poll_read(cx),
                Err(why) => return Read::Ended(why),
            };
            match read {
                Poll::Ready(Ok(())) => is_much = self.wire.has_read_much(),
                Poll::Ready(Err(why)) => return Read::Ended(why),
                Poll::Pending => return Read::All,
            }
        }
        match is_much {
            true => self.is_flooded = true,
            false => cx.waker().wake_by_ref(),
        }
        Read::Some
    }

    /// Gives everybody what has been read for him.
    fn route(&mut self) -> Result<(), Disconnect> {
        let is_heard = self.desk.registry.is_heard();
        let outcome = loop {
            match self.wire.next_events() {
                Ok(Some(run)) if is_heard => {
                    self.desk.events.push(Batch::new(run.text, run.places));
                    continue;
                }
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(why) => break Err(why),
            }
            match self.wire.next() {
                Ok(Some(arrival)) if arrival.is_event() && !is_heard => {}
                Ok(Some(arrival)) => {
                    match arrival
                        .into_message()
                        .map_err(Disconnect::Malformed)
                        .and_then(|message| self.desk.route(message))
                    {
                        Ok(()) => {}
                        Err(why) => break Err(why),
                    }
                }
                Ok(None) => break Ok(()),
                Err(why) => break Err(why),
            }
        };
        self.desk.deliver();
        outcome
    }
}

/// Why a command cannot be sent over this connection.
fn refusal(command: &Command, oob: bool, carries_descriptors: bool) -> Option<ExecuteError> {
    let name = || command.name.clone();
    if command.oob && !oob {
        return Some(ExecuteError::NoOob { command: name() });
    }
    if !command.fds.is_empty() && !carries_descriptors {
        return Some(ExecuteError::NoDescriptors { command: name() });
    }
    let count = command.fds.len();
    (count > MOST_DESCRIPTORS).then(|| ExecuteError::TooManyDescriptors {
        command: name(),
        count,
        most: MOST_DESCRIPTORS,
    })
}

impl Desk {
    fn route(&mut self, message: Message) -> Result<(), Disconnect> {
        match message {
            Message::Event(event) => self.events.push(event.alone()),
            Message::Reply(reply) => {
                // Whoever has a reply has what came before it.
                self.deliver();
                self.answer(reply);
            }
            Message::Greeting(greeting) => {
                return Err(Disconnect::Malformed(Malformed::shape(greeting.text(), "it greets twice")));
            }
        }
        Ok(())
    }

    fn deliver(&mut self) {
        if !self.events.is_empty() {
            self.registry.deliver(&self.events);
            self.events.clear();
        }
    }

    fn give(&mut self, answer: Answer, outcome: Answered) {
        match (answer, &mut self.seat) {
            // Whoever asked may have just gone; that is no error.
            (Answer::Channel(channel), _) => drop(channel.send(outcome)),
            (Answer::Seat, Some(seat)) => seat.answer = Some(outcome),
            (Answer::Seat, None) => {}
        }
    }

    fn give_up(&mut self, id: u64) {
        self.pending.give_up(id);
        self.seat.take_if(|seat| seat.id == id);
    }

    fn answer(&mut self, reply: Reply) {
        let waiter = match (reply.id(), reply.error()) {
            (ReplyId::Ours(id), _) => self.pending.complete(id),
            (ReplyId::Absent, Some(error)) => return self.fail_all_in_flight(&error.clone()),
            (ReplyId::Absent | ReplyId::Foreign, _) => None,
        };
        match waiter {
            Some(waiter) => self.give(waiter.who, Ok(reply)),
            None => tracing::debug!(?reply, "dropped a reply that nobody waits for"),
        }
    }

    /// An error without an id says that QEMU could not read a command, but not which. Each that is in flight may be
    /// the one, so each is told; a later reply to one of the others finds nobody.
    fn fail_all_in_flight(&mut self, source: &CommandError) {
        tracing::warn!(%source, "the peer sent an error that names no command");
        for waiter in self.pending.take_in_flight() {
            let error = ExecuteError::Unattributed { command: waiter.name, source: source.clone() };
            self.give(waiter.who, Err(error));
        }
    }

    /// Tells everybody who waits, now and later, why this connection is over.
    fn end(&mut self, why: &Disconnect) {
        self.deliver();
        // First, so that whoever is told below finds it published.
        self.ended.send_replace(Some(why.clone()));
        self.requests.close();
        let disconnected = |command| ExecuteError::Disconnected { command, source: why.clone() };
        for waiter in self.pending.take_all() {
            self.give(waiter.who, Err(disconnected(waiter.name)));
        }
        while let Ok(request) = self.requests.try_recv() {
            if let Request::Execute(asked) = request {
                let Asked { command, answer, .. } = *asked;
                self.give(answer, Err(disconnected(command.name)));
            }
        }
        self.registry.end(why);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Also when the runtime drops the task, or a transcript subscriber panicked: nobody waits for nothing.
        if self.ended.borrow().is_none() {
            self.end(&Disconnect::Runtime);
        }
    }
}
