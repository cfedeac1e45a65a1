//! One peer of a relay: its greeting, its negotiation, its commands, and what comes back to it.
//!
//! ```text
//! greeted ─ qmp_capabilities ─► in session ─ end of what it sends ─► last replies ─► gone
//!    └────────────────────────────┴─ end of QEMU's session ─► last words ─────────────┘
//! ```
//!
//! Everything that waits for the peer is bounded: its commands by no longer reading, its events by a queue of their own,
//! its replies because there are two at a time.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::Deserialize;

use crate::client::WeakClient;
use crate::codec::Decoder;
use crate::codec::Limits;
use crate::command::Command;
use crate::deadline::within;
use crate::error::ExecuteError;
use crate::error::ListenError;
use crate::filter::EventFilter;
use crate::listener::Listener;
use crate::malformed::Malformed;
use crate::reply::Reply;
use crate::request::Refusal;
use crate::request::Request;
use crate::request::done_text;
use crate::request::refusal_text;
use crate::request::reply_text;
use crate::socket::Socket;

/// What all peers of a relay have in common.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) greeting: String,
    pub(super) oob: bool,
}

/// The longest message of a peer. QEMU takes two million tokens, of which each has a byte at least.
const LONGEST_MESSAGE: usize = 2 << 20;

/// How many commands of a peer wait before nothing more is read from it; as many as QEMU takes in.
const WAITING: usize = 8;

/// How many bytes may wait to be written before neither events are taken nor commands read.
const BACKLOG: usize = 256 << 10;

/// How long a peer has to take the last words of a session that is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Peer {
    socket: Socket,
    client: WeakClient,
    session: Arc<Session>,
    decoder: Decoder,
    /// Descriptors that came with what was read, for the command that takes them.
    fds: Vec<OwnedFd>,
    outgoing: VecDeque<u8>,
    in_band: Lane,
    urgent: Lane,
    oob: bool,
    /// Every event; `None` until it has negotiated.
    events: Option<Listener>,
    /// It sends nothing more.
    has_ended: bool,
}

/// Commands of one kind: one is with QEMU, and the others wait in their order.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<(Option<String>, Command)>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    id: Option<String>,
    reply: Pin<Box<dyn Future<Output = Result<Reply, ExecuteError>> + Send>>,
}

/// Why a peer's connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// It went, or could not be written to.
    Gone,
    /// What it sent last was not answered within the limit.
    Unanswered,
    /// QEMU's session is over.
    Session,
    /// It left its events unread.
    Slow { dropped: u64 },
    /// It sent what cannot be read on behind.
    TooLong,
}

impl End {
    pub(super) fn deserves_a_warning(&self) -> bool {
        matches!(self, Self::Slow { .. } | Self::TooLong)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it has gone"),
            Self::Unanswered => f.write_str("its last commands took too long"),
            Self::Session => f.write_str("the session is over"),
            Self::Slow { dropped } => write!(f, "it did not read its events, and {dropped} are lost to it"),
            Self::TooLong => write!(f, "its message is longer than {LONGEST_MESSAGE} bytes"),
        }
    }
}

/// What the socket did.
enum Moved {
    Read,
    Ended,
    Written,
}

impl Peer {
    pub(super) fn new(socket: Socket, client: WeakClient, session: Arc<Session>) -> Self {
        let limits = Limits { message: LONGEST_MESSAGE, ..Limits::default() };
        let mut outgoing = VecDeque::new();
        outgoing.extend(session.greeting.as_bytes());
        outgoing.extend(b"\r\n");
        Self {
            socket,
            client,
            session,
            decoder: Decoder::new(limits),
            fds: Vec::new(),
            outgoing,
            in_band: Lane::default(),
            urgent: Lane::default(),
            oob: false,
            events: None,
            has_ended: false,
        }
    }

    /// Serves it to the end of its connection.
    pub(super) async fn serve(mut self) -> End {
        let end = loop {
            match self.turn().await {
                Ok(()) if self.has_ended => break None,
                Ok(()) => {}
                Err(end) => break Some(end),
            }
        };
        let end = match end {
            Some(end) => end,
            None => {
                let limit = self.client.command_limit();
                within(limit, "its last replies", self.last_replies()).await.unwrap_or(End::Unanswered)
            }
        };
        if !matches!(end, End::Gone) {
            let _unheard = within(LAST_WORDS, "room for last words", self.last_words()).await;
        }
        end
    }

    /// Goes on until all that it asked for is answered.
    async fn last_replies(&mut self) -> End {
        while self.in_band.is_busy() || self.urgent.is_busy() || !self.outgoing.is_empty() {
            if let Err(end) = self.turn().await {
                return end;
            }
        }
        End::Gone
    }

    /// Writes what is there for it: replies that had come, and events up to the session's end.
    async fn last_words(&mut self) {
        // When the session is over, each has an outcome.
        for lane in [&mut self.urgent, &mut self.in_band] {
            lane.waiting.clear();
        }
        if self.client.upgrade().is_none_or(|client| client.ended().is_some()) {
            for urgent in [true, false] {
                let lane = if urgent { &mut self.urgent } else { &mut self.in_band };
                if lane.under_way.is_some() {
                    let (id, outcome) = lane.reply().await;
                    self.answer(id.as_deref(), outcome);
                }
            }
        }
        loop {
            // Its error is the end, which is known.
            let _end = self.take_events();
            if self.outgoing.is_empty() || self.step(false).await.is_err() {
                return;
            }
        }
    }

    /// Waits for the next thing to happen, and sees to it.
    async fn turn(&mut self) -> Result<(), End> {
        self.begin_commands();
        let crowded = self.outgoing.len() > BACKLOG;
        let full = crowded || self.in_band.waiting.len() >= WAITING || self.urgent.waiting.len() >= WAITING;
        let reads = !full && !self.has_ended;
        let (has_urgent, has_in_band) = (self.urgent.under_way.is_some(), self.in_band.under_way.is_some());
        let Self { socket, client, decoder, fds, outgoing, in_band, urgent, events, .. } = self;
        tokio::select! {
            biased;
            (id, outcome) = urgent.reply(), if has_urgent => self.replied(id, outcome),
            (id, outcome) = in_band.reply(), if has_in_band => self.replied(id, outcome),
            outcome = next_event(events.as_ref(), crowded, client) => {
                outcome?;
                self.take_events()
            }
            moved = step(socket, decoder, fds, outgoing, reads) => match moved {
                Ok(Moved::Read) => self.take_messages(),
                Ok(Moved::Ended) if self.socket.peer_is_gone() => Err(End::Gone),
                Ok(Moved::Ended) => {
                    self.has_ended = true;
                    Ok(())
                }
                Ok(Moved::Written) => Ok(()),
                Err(_) => Err(End::Gone),
            },
        }
    }

    async fn step(&mut self, reads: bool) -> io::Result<Moved> {
        step(&mut self.socket, &mut self.decoder, &mut self.fds, &mut self.outgoing, reads).await
    }

    /// Answers a command. What had happened before its reply came is told before it, as QEMU does.
    fn replied(&mut self, id: Option<String>, outcome: Result<Reply, ExecuteError>) -> Result<(), End> {
        let events = self.take_events();
        self.answer(id.as_deref(), outcome);
        events
    }

    fn answer(&mut self, id: Option<&str>, outcome: Result<Reply, ExecuteError>) {
        match outcome {
            Ok(reply) => self.write(&reply_text(&reply, id)),
            // The connection's end tells it.
            Err(ExecuteError::Disconnected { .. }) => {}
            Err(error) => self.refuse(&Refusal::generic(error.to_string()), id),
        }
    }

    fn write(&mut self, text: &str) {
        self.outgoing.extend(text.as_bytes());
    }

    fn refuse(&mut self, refusal: &Refusal, id: Option<&str>) {
        self.write(&refusal_text(refusal, id));
    }

    /// Takes the events that are there, as far as there is room for them.
    fn take_events(&mut self) -> Result<(), End> {
        while let Some(events) = &self.events
            && self.outgoing.len() <= BACKLOG
        {
            match events.try_next() {
                Ok(Some(event)) => {
                    self.outgoing.extend(event.text().as_bytes());
                    self.outgoing.extend(b"\r\n");
                }
                Ok(None) => return Ok(()),
                Err(ListenError::Lagged { dropped }) => return Err(End::Slow { dropped }),
                Err(_) => return Err(End::Session),
            }
        }
        Ok(())
    }

    /// Takes every message that was read whole.
    fn take_messages(&mut self) -> Result<(), End> {
        loop {
            let parsed = match self.decoder.next() {
                Ok(None) => return Ok(()),
                Ok(Some(text)) => Request::parse(text),
                Err(malformed @ Malformed::TooLong { .. }) => {
                    self.refuse(&Refusal::unreadable(&malformed), None);
                    return Err(End::TooLong);
                }
                Err(malformed) => {
                    if matches!(malformed, Malformed::NotAnObject { .. }) {
                        self.decoder.skip_line();
                    }
                    Err(Refusal::unreadable(&malformed))
                }
            };
            match parsed {
                Err(refusal) => self.refuse(&refusal, None),
                Ok(request) => self.ask(request),
            }
        }
    }

    fn ask(&mut self, request: Request) {
        let id = request.id;
        match request.command.and_then(|command| self.permit(command, id.as_deref())) {
            Err(refusal) => self.refuse(&refusal, id.as_deref()),
            Ok(None) => {}
            Ok(Some(mut command)) => {
                if ["getfd", "add-fd"].contains(&command.name()) {
                    command.fds = std::mem::take(&mut self.fds);
                }
                let lane = if command.oob { &mut self.urgent } else { &mut self.in_band };
                // QEMU has no limit, and the peer's own is its own.
                lane.waiting.push_back((id, command.limit(Duration::MAX)));
            }
        }
    }

    /// The command if it is for QEMU; the negotiation ends here.
    fn permit(&mut self, command: Command, id: Option<&str>) -> Result<Option<Command>, Refusal> {
        match (command.name(), self.events.is_some()) {
            ("qmp_capabilities", false) if !command.oob => {
                self.oob = negotiate(&command, self.session.oob)?;
                let Some(client) = self.client.upgrade() else { return Ok(None) };
                // Armed before the reply: whatever it does next, it hears of it.
                self.events = Some(client.listen(EventFilter::any()));
                self.write(&done_text(id));
                Ok(None)
            }
            ("qmp_capabilities", true) => Err(Refusal::no_command("the capabilities are negotiated already")),
            (_, false) => {
                Err(Refusal::no_command("the capabilities are negotiated first, with `qmp_capabilities`"))
            }
            (name, true) if command.oob && !self.oob => {
                Err(Refusal::generic(format!("could not run `{name}` out of band: `oob` was not negotiated")))
            }
            (_, true) => Ok(Some(command)),
        }
    }

    /// Gives QEMU the next command of each kind, if the one before it is answered.
    fn begin_commands(&mut self) {
        for lane in [&mut self.urgent, &mut self.in_band] {
            if lane.under_way.is_none()
                && let Some((id, command)) = lane.waiting.pop_front()
                && let Some(client) = self.client.upgrade()
            {
                let reply = Box::pin(async move { client.send(command).await });
                lane.under_way = Some(UnderWay { id, reply });
            }
        }
    }
}

impl Lane {
    fn is_busy(&self) -> bool {
        self.under_way.is_some() || !self.waiting.is_empty()
    }

    /// Waits for the reply to what is under way, of which there has to be something.
    async fn reply(&mut self) -> (Option<String>, Result<Reply, ExecuteError>) {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let outcome = under_way.reply.as_mut().await;
        (self.under_way.take().and_then(|under_way| under_way.id), outcome)
    }
}

/// Waits until there is an event for which there is room, or the session is over, or too many events were left unread.
async fn next_event(events: Option<&Listener>, crowded: bool, client: &WeakClient) -> Result<(), End> {
    match events {
        Some(events) if crowded => tokio::select! {
            dropped = events.lag() => Err(End::Slow { dropped }),
            _why = client.closed() => Err(End::Session),
        },
        Some(events) => events.ready(&EventFilter::any(), Duration::MAX).await.map_err(|_| End::Session),
        None => {
            client.closed().await;
            Err(End::Session)
        }
    }
}

/// Reads or writes, whatever can be done first.
async fn step(
    socket: &mut Socket,
    decoder: &mut Decoder,
    fds: &mut Vec<OwnedFd>,
    outgoing: &mut VecDeque<u8>,
    reads: bool,
) -> io::Result<Moved> {
    poll_fn(|cx| {
        if !outgoing.is_empty() {
            let (first, _) = outgoing.as_slices();
            if let Poll::Ready(outcome) = socket.poll_send(cx, first, &[]) {
                outgoing.drain(..outcome?);
                return Poll::Ready(Ok(Moved::Written));
            }
        }
        if reads && let Poll::Ready(outcome) = socket.poll_receive(cx, decoder.space(), fds) {
            let count = outcome?;
            decoder.filled(count);
            return Poll::Ready(Ok(if count == 0 { Moved::Ended } else { Moved::Read }));
        }
        Poll::Pending
    })
    .await
}

/// Whether a peer gets `oob`.
fn negotiate(command: &Command, offered: bool) -> Result<bool, Refusal> {
    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        #[serde(default)]
        enable: Vec<String>,
    }
    let Some(arguments) = &command.arguments else { return Ok(false) };
    let wanted: Wanted = serde_json::from_str(arguments)
        .map_err(|error| Refusal::generic(format!("could not read the capabilities: {error}")))?;
    match wanted.enable.iter().find(|capability| *capability != "oob" || !offered) {
        Some(odd) => Err(Refusal::generic(format!("the capability `{odd}` is not available"))),
        None => Ok(!wanted.enable.is_empty()),
    }
}
