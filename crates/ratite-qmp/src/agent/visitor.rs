//! Somebody who speaks with a guest agent through the one who has its channel.
//!
//! ```text
//! visitor ─► what he asks, one thing at a time ─► his turn on the line ─► agent
//! visitor ◄─ its replies, under his ids; synchronisations are answered here
//! ```
//!
//! Bounded in every direction: of what he sends a little is read ahead, a reply is written before the next command is begun, and
//! what he gives up, by 0xFF or by going, is given up at once.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::pending;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::agent::Agent;
use crate::agent::AgentError;
use crate::agent::line::SYNC;
use crate::codec::Decoder;
use crate::codec::Limits;
use crate::codec::SENTINEL;
use crate::command::Command;
use crate::deadline::within;
use crate::malformed::Malformed;
use crate::request::Refusal;
use crate::request::Request;
use crate::request::refusal_text;
use crate::request::reply_text;
use crate::request::returned_text;
use crate::socket::Socket;

/// The longest message: what a program is given on its stdin travels in one.
const LONGEST_MESSAGE: usize = 32 << 20;

/// How much of a message may be something else than text: an agent takes two million tokens, of which each has a byte.
const MOST_TOKENS: usize = 2 << 20;

/// How many messages wait, and how many bytes, before nothing more is read.
const WAITING: (usize, usize) = (8, 64 << 10);

/// How long a command may take, and with it keep the others from the agent, however long the visitor would wait.
const LONGEST: Duration = Duration::from_secs(600);

/// How long he has to take the reason why nothing more is read from him.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Visitor {
    socket: Socket,
    agent: Agent,
    decoder: Decoder,
    waiting: VecDeque<Asked>,
    under_way: Option<UnderWay>,
    outgoing: Vec<u8>,
    written: usize,
    /// He sends nothing more.
    has_ended: bool,
}

type UnderWay = Pin<Box<dyn Future<Output = Result<Vec<u8>, End>> + Send>>;

/// What he asks for.
struct Asked {
    /// How long the message was.
    length: usize,
    id: Option<String>,
    what: What,
}

enum What {
    Command(Command),
    Synchronisation(Synchronisation),
    /// What is no command.
    Refused(Refusal),
}

struct Synchronisation {
    number: Value,
    is_delimited: bool,
}

/// Why it is over.
#[derive(Debug)]
pub(super) enum End {
    Gone,
    Unanswered,
    TooLong,
    /// The agent's channel has ended.
    Channel,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "it has gone",
            Self::Unanswered => "what it sent last took too long",
            Self::TooLong => "its message was too long",
            Self::Channel => "the agent's channel has ended",
        })
    }
}

/// What the socket did.
enum Moved {
    Read,
    Ended,
    Written,
}

impl Visitor {
    pub(super) fn new(socket: Socket, agent: Agent, begun: &[u8]) -> Self {
        let mut decoder = Decoder::delimited(Limits { message: LONGEST_MESSAGE, ..Limits::default() });
        decoder.feed(begun);
        Self {
            socket,
            agent,
            decoder,
            waiting: VecDeque::new(),
            under_way: None,
            outgoing: Vec::new(),
            written: 0,
            has_ended: false,
        }
    }

    pub(super) async fn serve(mut self) -> End {
        let end = loop {
            match self.turn().await {
                Ok(()) if self.has_ended => {
                    let limit = self.agent.limit();
                    let last = within(limit, "its last replies", self.last_replies()).await;
                    break last.unwrap_or(End::Unanswered);
                }
                Ok(()) => {}
                Err(end) => break end,
            }
        };
        if matches!(end, End::TooLong) {
            let _unheard = within(LAST_WORDS, "room for last words", self.last_words()).await;
        }
        end
    }

    /// Tells him why nothing more is read.
    async fn last_words(&mut self) {
        let malformed = Malformed::TooLong { limit: LONGEST_MESSAGE };
        self.outgoing.extend(refusal_text(&Refusal::unreadable(&malformed), None).into_bytes());
        while !self.outgoing.is_empty() {
            match step(&mut self.socket, &mut self.decoder, &self.outgoing[self.written..], false).await {
                Ok((_, count)) => self.has_written(count),
                Err(_) => return,
            }
        }
    }

    /// Goes on until all that he asked for is answered.
    async fn last_replies(&mut self) -> End {
        loop {
            if let Err(end) = self.take_messages() {
                return end;
            }
            if self.under_way.is_none() && self.waiting.is_empty() && self.outgoing.is_empty() {
                return End::Gone;
            }
            if let Err(end) = self.turn().await {
                return end;
            }
        }
    }

    /// Waits for the next thing to happen, and sees to it.
    async fn turn(&mut self) -> Result<(), End> {
        self.take_messages()?;
        self.begin();
        let reads = !self.has_ended && !self.is_full();
        let has_more = !self.outgoing.is_empty();
        let is_busy = self.under_way.is_some();
        if !reads && !has_more && !is_busy {
            return Ok(());
        }
        let Self { socket, decoder, under_way, outgoing, written, .. } = self;
        tokio::select! {
            biased;
            answer = answer(under_way) => {
                self.under_way = None;
                self.outgoing = answer?;
            }
            moved = step(socket, decoder, &outgoing[*written..], reads) => match moved {
                Ok((Moved::Read, _)) => {}
                Ok((Moved::Ended, _)) if self.socket.peer_is_gone() => return Err(End::Gone),
                Ok((Moved::Ended, _)) => self.has_ended = true,
                Ok((Moved::Written, count)) => self.has_written(count),
                Err(_) => return Err(End::Gone),
            },
        }
        Ok(())
    }

    fn has_written(&mut self, count: usize) {
        self.written += count;
        if self.written == self.outgoing.len() {
            (self.outgoing, self.written) = (Vec::new(), 0);
        }
    }

    /// Begins with what he asked for next, once the reply before it is written.
    fn begin(&mut self) {
        if self.under_way.is_none()
            && self.outgoing.is_empty()
            && let Some(asked) = self.waiting.pop_front()
        {
            let agent = self.agent.with_limit(LONGEST);
            self.under_way = Some(Box::pin(asked.answer(agent)));
        }
    }

    fn is_full(&self) -> bool {
        let (messages, bytes) = WAITING;
        let waiting: usize = self.waiting.iter().map(|asked| asked.length).sum();
        self.waiting.len() >= messages || waiting >= bytes
    }

    /// Takes the messages that were read whole, as far as there is room for them.
    fn take_messages(&mut self) -> Result<(), End> {
        while !self.is_full() {
            let asked = match self.decoder.next() {
                Ok(None) => break,
                Ok(Some(text)) => Asked::read(text),
                Err(Malformed::TooLong { .. }) => return Err(End::TooLong),
                Err(malformed) => {
                    if matches!(malformed, Malformed::NotAnObject { .. }) {
                        self.decoder.skip_line();
                    }
                    self.waiting.push_back(Asked::refused(Refusal::unreadable(&malformed)));
                    continue;
                }
            };
            if self.decoder.was_after_sentinel() {
                // He has given up what he asked for before.
                self.waiting.clear();
                self.under_way = None;
            }
            self.waiting.push_back(asked);
        }
        Ok(())
    }
}

impl Asked {
    fn read(text: &str) -> Self {
        let Request { id, command } = match Request::parse(text) {
            Ok(request) => request,
            Err(refusal) => return Self::refused(refusal),
        };
        let what = match command {
            Err(refusal) => What::Refused(refusal),
            Ok(command) if command.oob => {
                What::Refused(Refusal::generic("a guest agent has no commands out of band"))
            }
            Ok(_) if outside_of_strings(text) > MOST_TOKENS => What::Refused(Refusal::generic(format!(
                "a message may have {MOST_TOKENS} bytes besides its strings"
            ))),
            Ok(command) => match Synchronisation::read(&command) {
                Some(synchronisation) => What::Synchronisation(synchronisation),
                None => What::Command(command),
            },
        };
        Self { length: text.len(), id, what }
    }

    fn refused(refusal: Refusal) -> Self {
        Self { length: 0, id: None, what: What::Refused(refusal) }
    }

    /// What he is answered; nothing for a command that has no reply.
    async fn answer(self, agent: Agent) -> Result<Vec<u8>, End> {
        let id = self.id.as_deref();
        let refused = |error: AgentError| match error {
            AgentError::Disconnected { .. } => Err(End::Channel),
            error => Ok(refusal_text(&Refusal::generic(words(&error)), id).into_bytes()),
        };
        match self.what {
            What::Refused(refusal) => Ok(refusal_text(&refusal, id).into_bytes()),
            What::Command(command) => match agent.forward(&command).await {
                Ok(reply) => Ok(reply.map(|reply| reply_text(&reply, id).into_bytes()).unwrap_or_default()),
                Err(error) => refused(error),
            },
            What::Synchronisation(Synchronisation { number, is_delimited }) => match agent.found().await {
                Ok(()) => {
                    let mut answer = if is_delimited { vec![SENTINEL] } else { Vec::new() };
                    answer.extend(returned_text(&number, id).into_bytes());
                    Ok(answer)
                }
                Err(error) => refused(error),
            },
        }
    }
}

impl Synchronisation {
    /// The synchronisation that a command is; one with odd arguments is for the agent to refuse.
    fn read(command: &Command) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Arguments {
            id: i64,
        }
        let is_delimited = command.name() == SYNC;
        if !is_delimited && command.name() != "guest-sync" {
            return None;
        }
        let Arguments { id } = serde_json::from_str(command.arguments.as_deref()?).ok()?;
        Some(Self { number: json!(id), is_delimited })
    }
}

/// Waits for the answer to what is under way.
async fn answer(under_way: &mut Option<UnderWay>) -> Result<Vec<u8>, End> {
    match under_way {
        Some(under_way) => under_way.await,
        None => pending().await,
    }
}

/// Writes or reads, whatever can be done first, and how much was written.
async fn step(
    socket: &mut Socket,
    decoder: &mut Decoder,
    outgoing: &[u8],
    reads: bool,
) -> io::Result<(Moved, usize)> {
    poll_fn(|cx| {
        if !outgoing.is_empty()
            && let Poll::Ready(outcome) = socket.poll_send(cx, outgoing, &[])
        {
            return Poll::Ready(outcome.map(|count| (Moved::Written, count)));
        }
        if reads && let Poll::Ready(outcome) = socket.poll_receive(cx, decoder.space(), &mut Vec::new()) {
            let count = outcome?;
            decoder.filled(count);
            return Poll::Ready(Ok((if count == 0 { Moved::Ended } else { Moved::Read }, 0)));
        }
        Poll::Pending
    })
    .await
}

/// How many bytes of JSON text are in none of its strings.
fn outside_of_strings(text: &str) -> usize {
    let (mut outside, mut in_string, mut is_escaped) = (0, false, false);
    for byte in text.bytes() {
        match (in_string, byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => {
                in_string = !in_string;
                outside += 1;
            }
            (true, _) => {}
            (false, _) => outside += 1,
        }
    }
    outside
}

/// An error with what is behind it.
fn words(error: &AgentError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
