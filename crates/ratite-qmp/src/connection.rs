//! The owner of the socket.
//!
//! One task for each connection: it takes requests from the [`crate::Client`]s, writes each command whole, routes
//! replies back by id and events to their listeners. It ends when the peer does, when it is told to, or when the last
//! client is gone, and tells everybody who waits why. A caller that has gone away costs nobody else anything.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
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
use crate::event::Event;
use crate::handshake::NEGOTIATION_ID;
use crate::listener::Subscription;
use crate::malformed::Malformed;
use crate::message::Message;
use crate::pending::Pending;
use crate::reply::Reply;
use crate::reply::ReplyId;
use crate::wire::Wire;

/// What a client asks of the connection.
#[derive(Debug)]
pub(crate) enum Request {
    Execute(Execute),
    Close,
}

/// A command and the place for its answer.
#[derive(Debug)]
pub(crate) struct Execute {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Result<Reply, ExecuteError>>,
}

/// The listeners of one connection: registered by clients, served by the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<Subscribers>>);

#[derive(Debug, Default)]
struct Subscribers {
    subscriptions: Vec<Subscription>,
    ended: Option<Disconnect>,
}

impl Registry {
    pub(crate) fn add(&self, subscription: Subscription) {
        let mut subscribers = self.lock();
        match &subscribers.ended {
            Some(why) => subscription.end(why),
            None => subscribers.subscriptions.push(subscription),
        }
    }

    fn deliver(&self, event: &Event) {
        self.lock().subscriptions.retain(|subscription| subscription.deliver(event));
    }

    fn end(&self, why: &Disconnect) {
        let mut subscribers = self.lock();
        subscribers.ended = Some(why.clone());
        for subscription in subscribers.subscriptions.drain(..) {
            subscription.end(why);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Subscribers> {
        // Nothing under this lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With `oob` on, QEMU holds eight in-band commands and then stops reading; one more in the socket would stand in the
/// way of an out-of-band command (QEMU's docs/interop/qmp-spec, "Out-of-band execution").
const IN_BAND_WINDOW: usize = 8;

/// How many messages are taken in before the runtime's other tasks get their turn.
const TURN: usize = 128;

/// How many messages are still taken in from a peer that takes nothing any more.
const REST: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Connection {
    wire: Wire,
    requests: mpsc::UnboundedReceiver<Request>,
    /// Commands that wait for a place in the window, oldest first.
    waiting: VecDeque<Execute>,
    pending: Pending<Waiter>,
    registry: Registry,
    ended: watch::Sender<Option<Disconnect>>,
    oob: bool,
}

#[derive(Debug)]
struct Waiter {
    name: String,
    in_band: bool,
    answer: oneshot::Sender<Result<Reply, ExecuteError>>,
}

impl Connection {
    pub(crate) fn new(
        wire: Wire,
        requests: mpsc::UnboundedReceiver<Request>,
        registry: Registry,
        ended: watch::Sender<Option<Disconnect>>,
        oob: bool,
    ) -> Self {
        Self {
            wire,
            requests,
            waiting: VecDeque::new(),
            pending: Pending::counting_from(NEGOTIATION_ID + 1),
            registry,
            ended,
            oob,
        }
    }

    /// Serves until the connection ends.
    pub(crate) async fn run(mut self) {
        let why = poll_fn(|cx| self.poll_end(cx)).await;
        self.end(&why);
    }

    /// Does all there is to do; ready with the reason once there is nothing more to come.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Disconnect> {
        if let Poll::Ready(why) = self.poll_requests(cx) {
            return Poll::Ready(why);
        }
        if let Poll::Ready(why) = self.poll_messages(cx) {
            return Poll::Ready(why);
        }
        // After the replies: each may have opened the window.
        self.send_waiting();
        self.wire.poll_flush(cx).map(|why| self.read_the_rest(cx).unwrap_or(why))
    }

    /// Delivers what the peer had said before nothing could be written to it any more; it may say why.
    fn read_the_rest(&mut self, cx: &mut Context<'_>) -> Option<Disconnect> {
        for _ in 0..REST {
            match self.wire.poll_message(cx) {
                Poll::Pending => return None,
                Poll::Ready(Err(why)) => return Some(why),
                Poll::Ready(Ok(message)) => {
                    if let Err(why) = self.route(message) {
                        return Some(why);
                    }
                }
            }
        }
        None
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Disconnect> {
        loop {
            match self.requests.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None | Some(Request::Close)) => return Poll::Ready(Disconnect::ByUs),
                Poll::Ready(Some(Request::Execute(execute))) => self.take(execute),
            }
        }
    }

    fn take(&mut self, execute: Execute) {
        let command = &execute.command;
        let refusal = if command.oob && !self.oob {
            ExecuteError::NoOob { command: command.name.clone() }
        } else if !command.fds.is_empty() && !self.wire.carries_descriptors() {
            ExecuteError::NoDescriptors { command: command.name.clone() }
        } else {
            return if command.oob {
                self.send(execute);
            } else {
                self.waiting.push_back(execute);
            };
        };
        let _gone = execute.answer.send(Err(refusal));
    }

    /// Sends what waits, as far as the window is open.
    fn send_waiting(&mut self) {
        while !self.wire.is_blocked() && self.window_is_open() {
            let Some(execute) = self.waiting.pop_front() else {
                return;
            };
            self.send(execute);
        }
    }

    fn window_is_open(&self) -> bool {
        // Those that nobody waits for any more do not count: a peer that never answers must not close it for good.
        let in_flight = |waiter: &&Waiter| waiter.in_band && !waiter.answer.is_closed();
        !self.oob || self.pending.values().filter(in_flight).count() < IN_BAND_WINDOW
    }

    fn send(&mut self, execute: Execute) {
        let Execute { mut command, answer } = execute;
        if answer.is_closed() {
            // Given up before it was written: it never happened.
            return;
        }
        let id = self.pending.next_id();
        let fds = std::mem::take(&mut command.fds);
        self.wire.push(encode(&command, id), fds);
        self.pending.register(id, Waiter { name: command.name, in_band: !command.oob, answer });
    }

    fn poll_messages(&mut self, cx: &mut Context<'_>) -> Poll<Disconnect> {
        for _ in 0..TURN {
            match self.wire.poll_message(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(why)) => return Poll::Ready(why),
                Poll::Ready(Ok(message)) => {
                    if let Err(why) = self.route(message) {
                        return Poll::Ready(why);
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn route(&mut self, message: Message) -> Result<(), Disconnect> {
        match message {
            Message::Event(event) => self.registry.deliver(&event),
            Message::Reply(reply) => self.answer(reply),
            Message::Greeting(greeting) => {
                let malformed = Malformed::shape(greeting.text(), "it greets twice".into());
                return Err(Disconnect::Malformed(malformed));
            }
        }
        Ok(())
    }

    fn answer(&mut self, reply: Reply) {
        let waiter = match reply.id() {
            ReplyId::Ours(id) => self.pending.complete(id),
            ReplyId::Foreign => None,
            ReplyId::Absent => match reply.error() {
                Some(error) => return self.fail_all_in_flight(&error.clone()),
                None => None,
            },
        };
        match waiter {
            Some(waiter) => {
                // Whoever asked may be gone; that is no error.
                let _gone = waiter.answer.send(Ok(reply));
            }
            None => tracing::warn!(?reply, "dropped a reply that nobody waits for"),
        }
    }

    /// An error without an id says that QEMU could not read a command, but not which. Each that is in flight may be
    /// the one, so each is told; a later reply to one of the others finds nobody.
    fn fail_all_in_flight(&mut self, source: &CommandError) {
        tracing::warn!(%source, "the peer sent an error that names no command");
        for waiter in self.pending.take_all() {
            let error = ExecuteError::Unattributed { command: waiter.name, source: source.clone() };
            let _gone = waiter.answer.send(Err(error));
        }
    }

    /// Tells everybody who waits, now and later, why this connection is over.
    fn end(&mut self, why: &Disconnect) {
        // First, so that whoever is told below finds it published.
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert_with(|| why.clone());
            first
        });
        self.requests.close();
        let disconnected = |name| ExecuteError::Disconnected { command: name, source: why.clone() };
        for waiter in self.pending.take_all() {
            let _gone = waiter.answer.send(Err(disconnected(waiter.name)));
        }
        for execute in self.waiting.drain(..) {
            let _gone = execute.answer.send(Err(disconnected(execute.command.name)));
        }
        while let Ok(request) = self.requests.try_recv() {
            if let Request::Execute(execute) = request {
                let _gone = execute.answer.send(Err(disconnected(execute.command.name)));
            }
        }
        self.registry.end(why);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Also when the runtime drops the task, or a transcript subscriber panicked: nobody waits for nothing.
        if self.ended.borrow().is_none() {
            self.end(&Disconnect::Runtime);
        }
    }
}
