//! The qtest protocol: lines to a machine under test, and one line back for each (QEMU's docs/devel/testing/qtest).
//!
//! QEMU also says `IRQ raise N` and `IRQ lower N` at any time. Those are kept apart from the answers, so that no answer
//! is ever taken for another's. One task owns the stream; a caller that goes away costs nobody else anything.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ratite_qmp::Socket;
use ratite_qmp::TimedOut;
use ratite_qmp::within;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::io::ReadHalf;
use tokio::io::WriteHalf;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

/// A qtest session. Cheap to clone; clones share one connection.
#[derive(Debug, Clone)]
pub struct Qtest {
    requests: mpsc::UnboundedSender<Request>,
    irqs: watch::Receiver<Irqs>,
    ended: watch::Receiver<Option<Arc<str>>>,
    limit: Duration,
}

/// The interrupt lines that QEMU has spoken of, each with its level; nothing is known of one that is not here.
pub type Irqs = BTreeMap<u32, bool>;

/// Why a qtest command has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QtestError {
    /// The command is none; nothing was sent. QEMU aborts at an empty line, and takes a line break for two commands.
    #[error("could not send the qtest command {command:?}: {reason}")]
    Command {
        /// The command.
        command: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// QEMU answered with something other than `OK`.
    #[error("QEMU answered `{answer}` to the qtest command `{command}`")]
    Failed {
        /// The command.
        command: String,
        /// The whole answer.
        answer: String,
    },
    /// No answer came in time. If it comes yet, it is dropped.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The connection ended.
    #[error("the qtest connection ended while `{command}` waited: {reason}")]
    Disconnected {
        /// The command.
        command: String,
        /// Why.
        reason: Arc<str>,
    },
}

#[derive(Debug)]
struct Request {
    line: String,
    answer: oneshot::Sender<String>,
}

/// The longest line that is taken from QEMU: a `read` of 32 MiB of memory, in hexadecimal digits.
const LONGEST_LINE: u64 = 64 << 20;

/// How many interrupt lines are remembered; a machine has a few hundred.
const MOST_IRQS: usize = 64 << 10;

impl Qtest {
    /// Speaks qtest over `socket`; each command waits at most `limit`.
    ///
    /// Must be called within a tokio runtime, which then drives the connection.
    pub fn over(socket: Socket, limit: Duration) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        let (publish_irqs, irqs) = watch::channel(Irqs::new());
        let (publish_end, ended) = watch::channel(None);
        let (reader, writer) = tokio::io::split(socket);
        let outbox = Outbox { inbox, unsent: VecDeque::new() };
        tokio::spawn(run(BufReader::new(reader), writer, outbox, publish_irqs, publish_end));
        Self { requests, irqs, ended, limit }
    }

    /// Sends a command and returns what came behind `OK`, without surrounding blanks: `"0x2a"`, `""`.
    ///
    /// # Errors
    /// [`QtestError`]; [`QtestError::Failed`] carries QEMU's answer.
    pub async fn command(&self, command: &str) -> Result<String, QtestError> {
        let answer = self.raw(command).await?;
        match answer.strip_prefix("OK") {
            Some(rest) if rest.is_empty() || rest.starts_with(' ') => Ok(rest.trim().to_owned()),
            _ => Err(QtestError::Failed { command: command.to_owned(), answer }),
        }
    }

    /// Sends a command and returns its answer as it came, without the line end.
    ///
    /// # Errors
    /// [`QtestError`], but never [`QtestError::Failed`].
    pub async fn raw(&self, command: &str) -> Result<String, QtestError> {
        check(command)?;
        let (answer, reply) = oneshot::channel();
        let request = Request { line: format!("{command}\n"), answer };
        if self.requests.send(request).is_err() {
            return Err(self.disconnected(command));
        }
        within(self.limit, AnswerTo(command), reply).await?.map_err(|_| self.disconnected(command))
    }

    /// The levels of the interrupt lines that were intercepted and have changed.
    #[must_use]
    pub fn irqs(&self) -> Irqs {
        self.irqs.borrow().clone()
    }

    /// Waits until the interrupt line `number` is at `level`.
    ///
    /// # Errors
    /// [`QtestError::TimedOut`] after `limit`, [`QtestError::Disconnected`] when the connection ends first.
    pub async fn wait_irq(&self, number: u32, level: bool, limit: Duration) -> Result<(), QtestError> {
        let mut irqs = self.irqs.clone();
        let what = format!("interrupt line {number} {}", if level { "raised" } else { "lowered" });
        let reached = irqs.wait_for(|irqs| irqs.get(&number) == Some(&level));
        match within(limit, &what, reached).await? {
            Ok(_) => Ok(()),
            Err(_) => Err(self.disconnected(&what)),
        }
    }

    fn disconnected(&self, command: &str) -> QtestError {
        let reason = self.ended.borrow().clone();
        let reason = reason.unwrap_or_else(|| "the runtime that drove it ended".into());
        QtestError::Disconnected { command: command.to_owned(), reason }
    }
}

/// What a command waits for; written out only when it does not come.
struct AnswerTo<'a>(&'a str);

impl fmt::Display for AnswerTo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answer to the qtest command `{}`", self.0)
    }
}

fn check(command: &str) -> Result<(), QtestError> {
    let reason = if command.trim().is_empty() {
        "it is empty"
    } else if command.contains(['\n', '\r', '\0']) {
        "it holds a line break or a NUL"
    } else {
        return Ok(());
    };
    Err(QtestError::Command { command: command.to_owned(), reason })
}

/// Owns the stream until it ends.
async fn run(
    reader: BufReader<ReadHalf<Socket>>,
    writer: WriteHalf<Socket>,
    mut outbox: Outbox,
    irqs: watch::Sender<Irqs>,
    publish_end: watch::Sender<Option<Arc<str>>>,
) {
    let (begin, begun) = mpsc::unbounded_channel();
    let mut desk = Desk { begun, waiting: VecDeque::new(), irqs };
    let reason = tokio::select! {
        reason = outbox.write(writer, begin) => reason,
        reason = desk.read(reader) => reason,
    };
    // Before those who wait are let go, so that they find it published.
    publish_end.send_replace(Some(reason.into()));
}

/// What is to be written, in order.
struct Outbox {
    inbox: mpsc::UnboundedReceiver<Request>,
    unsent: VecDeque<Request>,
}

impl Outbox {
    /// Writes one command after the other, each whole, and gives `begin` the place for the answer before its first byte.
    ///
    /// What was given up before it was begun is never sent, and not kept for a QEMU that may never read it. Ends with
    /// the reason why nothing more is to be written.
    async fn write(
        &mut self,
        mut writer: WriteHalf<Socket>,
        begin: mpsc::UnboundedSender<oneshot::Sender<String>>,
    ) -> String {
        const CLOSED: &str = "it was closed on this side";
        loop {
            let next = match self.unsent.pop_front() {
                Some(request) => Some(request),
                None => self.inbox.recv().await,
            };
            let Some(Request { line, answer }) = next else { return CLOSED.into() };
            if answer.is_closed() {
                continue;
            }
            // If nobody reads any more, the connection is about to end, and the answer's sender with it.
            let _ended = begin.send(answer);
            let mut write = std::pin::pin!(writer.write_all(line.as_bytes()));
            loop {
                tokio::select! {
                    outcome = &mut write => match outcome {
                        Ok(()) => break,
                        Err(error) => return error.to_string(),
                    },
                    request = self.inbox.recv() => match request {
                        Some(request) => {
                            self.unsent.retain(|unsent| !unsent.answer.is_closed());
                            self.unsent.push_back(request);
                        }
                        None => return CLOSED.into(),
                    },
                }
            }
        }
    }
}

/// Who waits, and what is known.
struct Desk {
    begun: mpsc::UnboundedReceiver<oneshot::Sender<String>>,
    /// Whose answers are to come, in order; an abandoned one keeps its place.
    waiting: VecDeque<oneshot::Sender<String>>,
    irqs: watch::Sender<Irqs>,
}

impl Desk {
    /// Reads and routes lines; ends with the reason why no more can be read.
    async fn read(&mut self, mut reader: BufReader<ReadHalf<Socket>>) -> String {
        let mut line = Vec::new();
        loop {
            if let Err(reason) = read_line(&mut reader, &mut line).await {
                return reason;
            }
            // Whatever this line answers was begun before it came.
            while let Ok(answer) = self.begun.try_recv() {
                self.waiting.push_back(answer);
            }
            if let Err(reason) = self.route(&String::from_utf8_lossy(&line)) {
                return reason;
            }
            line.clear();
        }
    }

    fn route(&mut self, line: &str) -> Result<(), String> {
        let line = line.trim_end_matches(['\n', '\r']);
        if let Some((number, level)) = irq(line) {
            self.irqs.send_modify(|irqs| {
                irqs.insert(number, level);
            });
            let too_many = self.irqs.borrow().len() > MOST_IRQS;
            return match too_many {
                true => Err(format!("QEMU spoke of over {MOST_IRQS} interrupt lines")),
                false => Ok(()),
            };
        }
        match self.waiting.pop_front() {
            Some(answer) => drop(answer.send(line.to_owned())),
            None => tracing::warn!(line, "dropped a qtest answer to nothing that was asked"),
        }
        Ok(())
    }
}

/// The line number and level of `IRQ raise N` or `IRQ lower N`.
fn irq(line: &str) -> Option<(u32, bool)> {
    let rest = line.strip_prefix("IRQ ")?;
    let (verb, number) = rest.split_once(' ')?;
    let level = match verb {
        "raise" => true,
        "lower" => false,
        _ => return None,
    };
    let number = number.trim();
    // `str::parse` alone would take a sign.
    let plain = number.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| number.parse().ok()).flatten().map(|number| (number, level))
}

async fn read_line(reader: &mut BufReader<ReadHalf<Socket>>, line: &mut Vec<u8>) -> Result<(), String> {
    let room = LONGEST_LINE.saturating_sub(line.len() as u64);
    let count = reader.take(room).read_until(b'\n', line).await.map_err(|error| error.to_string())?;
    match line.last() {
        Some(b'\n') => Ok(()),
        _ if line.len() as u64 >= LONGEST_LINE => {
            Err(format!("QEMU sent a line of over {LONGEST_LINE} bytes"))
        }
        None => Err("QEMU closed it".into()),
        _ if count == 0 => Err("QEMU closed it in the middle of a line".into()),
        // More is to come, or the end.
        _ => Box::pin(read_line(reader, line)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    const LIMIT: Duration = Duration::from_secs(5);

    fn session() -> (Qtest, BufReader<DuplexStream>) {
        let (socket, peer) = Socket::pair();
        (Qtest::over(socket, LIMIT), BufReader::new(peer))
    }

    async fn received(peer: &mut BufReader<DuplexStream>) -> String {
        let mut line = String::new();
        peer.read_line(&mut line).await.unwrap();
        line
    }

    #[tokio::test]
    async fn interrupts_do_not_shift_answers() {
        let (qtest, mut peer) = session();
        let session = qtest.clone();
        let asked = tokio::spawn(async move { session.command("inb 0x60").await });
        assert_eq!(received(&mut peer).await, "inb 0x60\n");

        peer.write_all(b"IRQ raise 8\nOK 0x1f\nIRQ lower 8\nIRQ raise 3\n").await.unwrap();

        assert_eq!(asked.await.unwrap().unwrap(), "0x1f");
        qtest.wait_irq(3, true, LIMIT).await.unwrap();
        assert_eq!(qtest.irqs(), Irqs::from([(3, true), (8, false)]));
    }

    #[tokio::test]
    async fn a_cancelled_command_leaves_the_next_one_its_answer() {
        let (qtest, mut peer) = session();
        let first = tokio::spawn({
            let qtest = qtest.clone();
            async move { qtest.command("first").await }
        });
        assert_eq!(received(&mut peer).await, "first\n");
        first.abort();
        assert!(first.await.is_err());

        let second = tokio::spawn(async move { qtest.command("second").await });
        assert_eq!(received(&mut peer).await, "second\n");
        peer.write_all(b"OK 1\nOK 2\n").await.unwrap();

        assert_eq!(second.await.unwrap().unwrap(), "2");
    }

    #[tokio::test]
    async fn commands_that_would_hurt_are_not_sent() {
        let (qtest, _peer) = session();

        for command in ["", "  ", "a\nb", "a\0"] {
            assert!(matches!(qtest.command(command).await, Err(QtestError::Command { .. })), "{command:?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_verbatim() {
        let (qtest, mut peer) = session();
        peer.write_all(b"").await.unwrap();
        let asked = tokio::spawn(async move { (qtest.command("x").await, qtest.raw("x").await) });
        received(&mut peer).await;
        peer.write_all(b"FAIL Unknown command 'x'\n").await.unwrap();
        received(&mut peer).await;
        peer.write_all(b"FAIL Unknown command 'x'\r\n").await.unwrap();

        let (refused, raw) = asked.await.unwrap();
        let text = refused.unwrap_err().to_string();
        assert_eq!(text, "QEMU answered `FAIL Unknown command 'x'` to the qtest command `x`");
        assert_eq!(raw.unwrap(), "FAIL Unknown command 'x'");
    }

    #[tokio::test]
    async fn the_end_wakes_whoever_waits_and_whoever_asks_later() {
        let (qtest, mut peer) = session();
        let waiting = tokio::spawn({
            let qtest = qtest.clone();
            async move { qtest.command("x").await }
        });
        received(&mut peer).await;
        drop(peer);

        for outcome in [waiting.await.unwrap(), qtest.command("later").await] {
            assert!(matches!(outcome, Err(QtestError::Disconnected { .. })), "{outcome:?}");
        }
        assert!(qtest.wait_irq(1, true, LIMIT).await.is_err());
    }
}
