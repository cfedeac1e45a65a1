//! One connection to the control socket: what it asks for, and what it gets.

mod agent;

use std::io;
use std::path::absolute;
use std::sync::Arc;
use std::time::Duration;

use ratite_qmp::within;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;

use crate::console::Console;
use crate::console::ConsoleError;
use crate::error::ShutdownError;
use crate::error::ShutdownErrorKind;
use crate::exit::ProcessExit;
use crate::reach_folder::QMP;
use crate::reach_server::Desk;
use crate::reach_server::state_of;
use crate::reach_words::Answer;
use crate::reach_words::Ask;
use crate::reach_words::ConsoleFacts;
use crate::reach_words::Ending;
use crate::reach_words::Facts;
use crate::reach_words::LONGEST_REQUEST;
use crate::reach_words::Opened;
use crate::reach_words::VERSION;
use crate::reach_words::WireExit;
use crate::reach_words::milliseconds;
use crate::running::Running;
use crate::shutdown;
use crate::text::plain_text;

/// How long a visitor has to say what it wants, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long QEMU has to say its state: one that is stopped or hangs must not hold up who only looks around.
const STATE: Duration = Duration::from_secs(1);

/// How long a visitor has to take the rest of what a machine that has ended had written.
const REST: Duration = Duration::from_secs(1);

/// How many bytes of a console are moved at once.
const PIECE: usize = 64 << 10;

/// How many of the last bytes of a console are looked at for its last line.
const LAST_LINE: usize = 4 << 10;

/// How long a last line may be that is told.
const LINE: usize = 1 << 10;

/// One who has connected.
pub(super) struct Visit {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    desk: Arc<Desk>,
}

/// Nothing more can be told or heard.
struct Over;

impl Visit {
    pub(super) fn new(socket: UnixStream, desk: Arc<Desk>) -> Self {
        let (reader, writer) = socket.into_split();
        Self { reader, writer, desk }
    }

    /// Serves it to its end.
    pub(super) async fn attend(mut self) {
        let asked = within(PATIENCE, "request", self.request()).await;
        // A visitor that has gone needs no answer, and what else went wrong was told.
        let _over = match asked {
            Ok(Ok((ask, rest))) => self.serve(ask, rest).await,
            Ok(Err(Unasked::Gone)) => Ok(()),
            Ok(Err(Unasked::Odd(reason))) => self.refuse(reason).await,
            Err(timed_out) => self.refuse(timed_out.to_string()).await,
        };
        let _gone = self.writer.shutdown().await;
    }

    /// The line that it sends, and what came behind it.
    async fn request(&mut self) -> Result<(Ask, Vec<u8>), Unasked> {
        let mut line = Vec::new();
        let end = loop {
            if let Some(end) = memchr::memchr(b'\n', &line) {
                break end;
            }
            if line.len() > LONGEST_REQUEST {
                return Err(Unasked::Odd(format!(
                    "a request is one line of at most {LONGEST_REQUEST} bytes"
                )));
            }
            match self.reader.read_buf(&mut line).await {
                Ok(0) | Err(_) if line.is_empty() => return Err(Unasked::Gone),
                Ok(0) | Err(_) => return Err(Unasked::Odd("the request ended before its line did".into())),
                Ok(_) => {}
            }
        };
        let rest = line.split_off(end + 1);
        let ask = serde_json::from_slice(&line)
            .map_err(|error| Unasked::Odd(format!("could not understand the request: {error}")))?;
        Ok((ask, rest))
    }

    async fn serve(&mut self, ask: Ask, rest: Vec<u8>) -> Result<(), Over> {
        match ask {
            Ask::Facts {} => {
                let Some(running) = self.desk.machine.upgrade() else { return self.refuse(GONE).await };
                let facts = facts(&self.desk, &running).await;
                drop(running);
                self.answer(facts).await
            }
            Ask::Console { name, replay } => match self.console(name.as_deref()) {
                Ok((name, console)) => self.attach(name, console, replay, rest).await,
                Err(reason) => self.refuse(reason).await,
            },
            Ask::Log { name, follow } => match self.console(name.as_deref()) {
                Ok((name, console)) => self.show(name, console, follow).await,
                Err(reason) => self.refuse(reason).await,
            },
            Ask::Agent {} => self.speak_with_the_agent(&rest).await,
            Ask::Stop { grace_ms } => self.stop(Duration::from_millis(grace_ms)).await,
            Ask::Kill {} => self.kill().await,
            Ask::Wait {} => {
                let exit = self.end().await?;
                self.answer(Ending { exit, fault: None }).await
            }
        }
    }

    /// A reader of its own of the console of this name, or the first.
    fn console(&self, name: Option<&str>) -> Result<(String, Console), String> {
        let running = self.desk.machine.upgrade().ok_or(GONE)?;
        let mut consoles = running.consoles.iter();
        let found = consoles.find(|(other, _)| name.is_none_or(|name| name == other));
        let names: Vec<&str> = running.consoles.iter().map(|(name, _)| name.as_str()).collect();
        match (found, name) {
            (Some((name, console)), _) => Ok((name.clone(), console.reader())),
            (None, _) if names.is_empty() => Err("the machine has no console".into()),
            (None, name) => Err(format!(
                "the machine has no console `{}`, but {}",
                name.unwrap_or_default(),
                names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
            )),
        }
    }

    /// A console in both directions.
    async fn attach(
        &mut self,
        name: String,
        console: Console,
        replay: usize,
        typed: Vec<u8>,
    ) -> Result<(), Over> {
        let (last, omitted) = last_recorded(&console, replay).await;
        self.answer(Opened { name, omitted, recorded: last.len() as u64 }).await?;
        self.write(&last).await?;
        let Self { reader, writer, desk } = self;
        let typing = async {
            forward(&console, typed).await;
            let mut piece = vec![0; PIECE];
            while let Ok(count @ 1..) = reader.read(&mut piece).await {
                forward(&console, piece[..count].to_vec()).await;
            }
        };
        let showing = show_on(writer, desk, &console, u64::MAX);
        tokio::select! {
            // Whoever has ended its own side has got what it wanted.
            () = typing => Ok(()),
            shown = showing => shown,
        }
    }

    /// What a console has recorded, and what it says from then on if that is to be followed.
    async fn show(&mut self, name: String, console: Console, follow: bool) -> Result<(), Over> {
        let recorded = console.tail(usize::MAX);
        let (omitted, there) = (recorded.omitted, recorded.bytes.len() as u64);
        drop(recorded);
        self.answer(Opened { name, omitted, recorded: there }).await?;
        let most = if follow { u64::MAX } else { there };
        let Self { reader, writer, desk } = self;
        tokio::select! {
            shown = show_on(writer, desk, &console, most) => shown,
            over = gone(reader) => Err(over),
        }
    }

    async fn stop(&mut self, grace: Duration) -> Result<(), Over> {
        let machine = self.desk.machine.upgrade();
        let Some(running) = machine else { return self.told_end(Some(None)).await };
        tracing::info!(name = self.desk.name, "another process stops the machine");
        // Goes on if the visitor goes: it was ordered.
        let stopping = tokio::spawn(async move { shutdown::end(&running, grace).await });
        let fault = match stopping.await {
            Ok(Ok(true)) | Err(_) => None,
            Ok(Ok(false)) => Some(ShutdownErrorKind::TimedOut { grace }),
            Ok(Err(error)) => return self.refuse(error.to_string()).await,
        };
        self.told_end(Some(fault)).await
    }

    async fn kill(&mut self) -> Result<(), Over> {
        if let Some(running) = self.desk.machine.upgrade() {
            tracing::info!(name = self.desk.name, "another process kills the machine");
            let killing = tokio::spawn(async move { shutdown::end_at_once(&running).await });
            if let Ok(Err(error)) = killing.await {
                return self.refuse(ShutdownError::to_string(&error)).await;
            }
        }
        self.told_end(None).await
    }

    /// Tells the machine's end, and if it was asked for (`Some`), whether it came as it should.
    async fn told_end(&mut self, asked: Option<Option<ShutdownErrorKind>>) -> Result<(), Over> {
        let exit = self.end().await?;
        let status = exit.clone().read().status;
        let fault = match asked {
            Some(Some(fault)) => Some(fault),
            Some(None) if !is_clean(status) => Some(ShutdownErrorKind::Unclean(status)),
            _ => None,
        };
        self.answer(Ending { exit, fault: fault.map(|fault| fault.to_string()) }).await
    }

    /// Waits for the machine's end, for as long as there is somebody to tell it.
    async fn end(&mut self) -> Result<WireExit, Over> {
        let mut end = self.desk.end.subscribe();
        tokio::select! {
            biased;
            exit = end.wait_for(Option::is_some) => exit.ok().and_then(|exit| exit.clone()).ok_or(Over),
            over = gone(&mut self.reader) => Err(over),
        }
    }

    async fn answer(&mut self, answer: impl Serialize) -> Result<(), Over> {
        self.tell(Answer { version: VERSION, error: None, answer: Some(answer) }).await
    }

    async fn refuse(&mut self, reason: impl Into<String>) -> Result<(), Over> {
        self.tell(Answer::<()> { version: VERSION, error: Some(reason.into()), answer: None }).await
    }

    async fn tell(&mut self, answer: Answer<impl Serialize>) -> Result<(), Over> {
        let line = line(answer);
        let written = within(PATIENCE, "room for an answer", self.writer.write_all(&line)).await;
        written.map_err(|_| Over)?.map_err(|_| Over)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Over> {
        write_on(&mut self.writer, &self.desk, bytes).await
    }
}

/// Why there is no request.
enum Unasked {
    Gone,
    Odd(String),
}

const GONE: &str = "the machine is gone";

/// Tells a visitor why it is not served.
pub(super) async fn refuse(mut socket: UnixStream, reason: String) {
    let line = line(Answer::<()> { version: VERSION, error: Some(reason), answer: None });
    let _unheard = within(PATIENCE, "room for a refusal", socket.write_all(&line)).await;
}

fn line(answer: Answer<impl Serialize>) -> Vec<u8> {
    let mut line = serde_json::to_vec(&answer).expect("strings and numbers serialise");
    line.push(b'\n');
    line
}

/// Exits as one that was asked for does: with status 0, or by the SIGTERM that asks where there is no monitor.
fn is_clean(status: ProcessExit) -> bool {
    const TERM: i32 = 15;
    status.code() == Some(0) || status.signal() == Some(TERM) || status.is_unknown()
}

/// Waits until the visitor has gone. One that has only ended its own side listens yet, and is found gone when it is told.
async fn gone(reader: &mut OwnedReadHalf) -> Over {
    let mut ignored = [0; 1024];
    loop {
        match reader.read(&mut ignored).await {
            Ok(1..) => {}
            Ok(0) if !hears_nothing(reader.as_ref()) => return std::future::pending().await,
            Ok(0) | Err(_) => return Over,
        }
    }
}

/// Whether both directions of a socket are closed.
fn hears_nothing(socket: &UnixStream) -> bool {
    let mut looked = [PollFd::new(socket, PollFlags::empty())];
    let looking = rustix::event::poll(&mut looked, Some(&Timespec::default()));
    looking.is_ok() && looked[0].revents().contains(PollFlags::HUP)
}

/// Types into a console. A guest that does not read for long loses what is typed, as at any serial line.
async fn forward(console: &Console, bytes: Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    if let Err(error) = console.write(bytes).await {
        tracing::debug!(%error, "a visitor's typing was lost");
    }
}

/// Writes what a console says, at most `most` bytes.
async fn show_on(
    writer: &mut OwnedWriteHalf,
    desk: &Desk,
    console: &Console,
    mut most: u64,
) -> Result<(), Over> {
    while most > 0 {
        let piece = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
        match console.read_at_most(piece, Duration::MAX).await {
            Ok(bytes) if bytes.is_empty() => return Ok(()),
            Ok(bytes) => {
                write_on(writer, desk, &bytes).await?;
                most -= bytes.len() as u64;
            }
            Err(ConsoleError::Lagged { dropped }) => {
                tracing::warn!(name = desk.name, dropped, "a visitor reads its console too slowly");
                most = most.saturating_sub(dropped);
            }
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Writes all of `bytes`, for as long as the machine lives and a moment longer.
async fn write_on(writer: &mut OwnedWriteHalf, desk: &Desk, bytes: &[u8]) -> Result<(), Over> {
    let mut end = desk.end.subscribe();
    let over = async {
        drop(end.wait_for(Option::is_some).await);
        within(REST, "room for the rest", std::future::pending::<()>()).await
    };
    tokio::select! {
        biased;
        written = writer.write_all(bytes) => written.map_err(|_: io::Error| Over),
        _out_of_time = over => Err(Over),
    }
}

/// The last `most` bytes that a console has recorded, and how many came before them; it is read behind them then.
async fn last_recorded(console: &Console, most: usize) -> (Vec<u8>, u64) {
    let mut last = Vec::new();
    while let Ok(bytes @ [_, ..]) = console.read_at_most(PIECE.max(most), Duration::ZERO).await.as_deref() {
        last.extend(bytes);
        last.drain(..last.len().saturating_sub(most));
    }
    let omitted = console.bytes_seen().saturating_sub(last.len() as u64);
    (last, omitted)
}

/// What is known of the machine.
async fn facts(desk: &Desk, running: &Running) -> Facts {
    let client = running.monitor.as_ref().map(|monitor| &monitor.client);
    let state = match client {
        Some(client) => state_of(client, STATE).await,
        None => None,
    };
    let words = running.command_line.words();
    let console = |(name, console): &(String, Console)| ConsoleFacts {
        name: name.clone(),
        bytes: console.bytes_seen(),
        last_line: last_line(&console.tail(LAST_LINE).bytes),
    };
    Facts {
        name: desk.name.clone(),
        pid: running.process.pid(),
        owner: std::process::id(),
        binary: words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default(),
        version: client.and_then(|client| client.greeting()).map(|greeting| {
            let version = &greeting.version;
            format!("{}.{}.{}", version.major, version.minor, version.micro)
        }),
        state: state.unwrap_or_else(|| "unknown".into()),
        uptime_ms: milliseconds(running.process.started().elapsed()),
        consoles: running.consoles.iter().map(console).collect(),
        agent: running.agent.is_some(),
        work_folder: absolute(&running.work_folder).unwrap_or_else(|_| running.work_folder.clone()),
        log_file: running.log.path().to_owned(),
        command_line: running.command_line.to_string(),
        qmp: desk.folder.path().join(QMP),
    }
}

/// The last line with something on it, without what a terminal would obey.
fn last_line(bytes: &[u8]) -> String {
    let text = plain_text(bytes);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    last.map(|line| line.chars().take(LINE).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_what_a_person_would_read() {
        let check = |bytes: &[u8], line: &str| assert_eq!(last_line(bytes), line);

        check(b"one\r\ntwo\r\n\r\n", "two");
        check(b"\x1b[31mlogin: \x1b[0m", "login: ");
        check(b"50%\r100%\r\n", "100%");
        check(b"\xff\x07x", "\u{fffd}x");
        check(b"", "");
    }
}
