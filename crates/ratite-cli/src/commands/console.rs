//! `ratite console`: this terminal becomes a guest's.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::io::IsTerminal;
use std::time::Duration;

use ratite::qmp::Socket;
use ratite::qmp::within;
use rustix::process::Signal as Posix;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadHalf;
use tokio::io::WriteHalf;
use tokio::signal::unix;
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;

use crate::args::Console;
use crate::modes::Modes;
use crate::output::Bytes;
use crate::questions::Questions;
use crate::report;
use crate::report::Failure;
use crate::signals::Signals;
use crate::target::Target;
use crate::target::failure;
use crate::target::remote;
use crate::terminal::RawTerminal;
use crate::terminal::typed;

/// What ctrl-] is on the wire: the key that detaches.
const ESCAPE: u8 = 0x1d;

/// How much of what was said before comes first on a terminal.
const REPLAY: usize = 4 << 10;

/// How much is moved at once.
const PIECE: usize = 64 << 10;

/// How much may be typed ahead of a guest that does not read.
const TYPED_AHEAD: usize = 64 << 10;

/// How long what is left may take to be written, when there is no time to wait for it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long an address may take to be connected to.
const CONNECTING: Duration = Duration::from_secs(30);

/// How being attached ended.
enum End {
    Detached,
    /// The console ended, and with it the machine.
    Console,
    /// Nothing can be written to stdout any more.
    Unwritable,
}

/// Attaches to a console until the user detaches, or it ends.
pub(crate) async fn console(console: &Console, signals: &mut Signals) -> Result<(), Failure> {
    let Line { socket, what, recorded } = tokio::select! {
        biased;
        signal = signals.next() => return Err(Failure::Signal { signal, source: None }),
        connected = connect(console) => connected?,
    };
    let output = Bytes::to_stdout().map_err(Failure::System)?;
    let mut stops = unix::signal(SignalKind::from_raw(Posix::TSTP.as_raw())).map_err(Failure::System)?;
    let keys = typed().map_err(Failure::System)?;
    let terminal = RawTerminal::enter().map_err(Failure::System)?;
    if terminal.is_some() {
        report::remark(&format!("attached to {what}; ctrl-] detaches\r"));
    }

    let (reader, writer) = tokio::io::split(socket);
    let mut modes = Modes::default();
    let end = tokio::select! {
        biased;
        signal = signals.next() => Err(Failure::Signal { signal, source: None }),
        end = type_into(writer, keys, terminal.is_some()) => Ok(end),
        end = show(reader, recorded, &output, &mut modes) => Ok(end),
        () = output.closed() => Ok(End::Unwritable),
        never = step_aside(&mut stops, terminal.as_ref()) => match never {},
    };
    if matches!(end, Ok(End::Unwritable)) {
        return Err(Failure::output(output.failure().await));
    }
    // A terminal that takes nothing any more must not keep its user from having it back.
    let limit = if terminal.is_some() || end.is_err() { LAST_WORDS } else { Duration::MAX };
    let last_words = tokio::select! {
        last_words = within(limit, "room on stdout", finish(output, &modes)) => last_words.unwrap_or(Ok(())),
        signal = signals.next() => Err(Failure::Signal { signal, source: None }),
    };
    drop(terminal);
    match end? {
        End::Detached => report::remark("detached; the machine runs on"),
        _ if io::stdin().is_terminal() => report::remark("the console has ended"),
        _ => {}
    }
    last_words
}

/// The stream of a console.
struct Line {
    socket: Socket,
    /// What it is called.
    what: String,
    /// How many bytes come first that are for show: whoever asked something in them does not wait for an answer any more.
    recorded: u64,
}

async fn connect(console: &Console) -> Result<Line, Failure> {
    match &console.target {
        Target::Name(name) => {
            let replay = console.replay.unwrap_or(if io::stdin().is_terminal() { REPLAY } else { 0 });
            let attached = remote(name).await?.console(console.console.as_deref(), replay).await;
            let attached = attached.map_err(failure)?;
            let what = format!("`{name}`, console `{}`", attached.name);
            let recorded = attached.recorded;
            let socket = Socket::try_from(attached.stream).map_err(Failure::System)?;
            Ok(Line { socket, what, recorded })
        }
        Target::Address(_) if console.console.is_some() => Err(Failure::Usage {
            problem: "an address is that of one console".into(),
            hint: "leave out the console's name".into(),
        }),
        Target::Address(address) => {
            let socket = within(CONNECTING, "connection", Socket::connect(address)).await;
            let failed = |source: Box<dyn Error + Send + Sync>| Failure::Conversation {
                doing: format!("connect to {address}"),
                source,
                exit: None,
            };
            let socket =
                socket.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))?;
            Ok(Line { socket, what: address.to_string(), recorded: 0 })
        }
    }
}

/// Sends what is typed. Returns only when the user detaches; the console's end is seen where it is read.
async fn type_into(
    mut writer: WriteHalf<Socket>,
    mut keys: mpsc::Receiver<Vec<u8>>,
    is_terminal: bool,
) -> End {
    let mut ahead = VecDeque::new();
    let mut has_ended = false;
    loop {
        if has_ended && ahead.is_empty() {
            // The other side ends the console when it has all.
            let _gone = writer.shutdown().await;
            return std::future::pending().await;
        }
        let has_room = ahead.len() < TYPED_AHEAD;
        tokio::select! {
            biased;
            // A guest that does not read must not keep the user from detaching.
            typed = keys.recv(), if !has_ended && (is_terminal || has_room) => match typed {
                Some(bytes) => {
                    let escape = bytes.iter().position(|byte| is_terminal && *byte == ESCAPE);
                    if has_room {
                        ahead.extend(&bytes[..escape.unwrap_or(bytes.len())]);
                    }
                    if escape.is_some() {
                        let rest = writer.write_all(ahead.make_contiguous());
                        let _unread = within(LAST_WORDS, "room for what was typed", rest).await;
                        return End::Detached;
                    }
                }
                // The terminal is gone.
                None if is_terminal => return End::Detached,
                None => has_ended = true,
            },
            written = writer.write(ahead.as_slices().0), if !ahead.is_empty() => match written {
                Ok(count @ 1..) => drop(ahead.drain(..count)),
                Ok(0) | Err(_) => return std::future::pending().await,
            },
        }
    }
}

/// Shows what the guest writes, up to the console's end.
async fn show(mut reader: ReadHalf<Socket>, mut recorded: u64, output: &Bytes, modes: &mut Modes) -> End {
    let mut piece = vec![0; PIECE];
    let mut questions = io::stdout().is_terminal().then(Questions::default);
    // A reset is how the end of a killed program looks from here.
    while let Ok(count @ 1..) = reader.read(&mut piece).await {
        modes.watch(&piece[..count]);
        let (old, new) = piece[..count].split_at(count.min(usize::try_from(recorded).unwrap_or(count)));
        recorded -= old.len() as u64;
        let mut shown = questions.as_mut().map_or_else(|| old.to_vec(), |questions| questions.without(old));
        if recorded == 0 {
            shown.extend(questions.take().map(Questions::rest).unwrap_or_default());
        }
        shown.extend(new);
        match output.room().await {
            Some(room) => room.send(shown),
            None => return End::Unwritable,
        }
    }
    End::Console
}

/// Writes what is left to be written, and what puts a terminal back.
async fn finish(output: Bytes, modes: &Modes) -> Result<(), Failure> {
    let mended = modes.mend();
    if io::stdout().is_terminal()
        && !mended.is_empty()
        && let Some(room) = output.room().await
    {
        room.send(mended);
    }
    output.finish().await.map_err(Failure::output)
}

/// Gives the terminal back for as long as the program is stopped (`kill -TSTP`; ctrl-Z goes to the guest).
async fn step_aside(stops: &mut unix::Signal, terminal: Option<&RawTerminal>) -> Infallible {
    loop {
        if stops.recv().await.is_none() {
            return std::future::pending().await;
        }
        terminal.map(RawTerminal::restore);
        // The signal stops one thread after the other, and this one is not the first.
        let goes_on = unix::signal(SignalKind::from_raw(Posix::CONT.as_raw()));
        let stopped = rustix::process::kill_process(rustix::process::getpid(), Posix::STOP);
        if let (Ok(mut goes_on), Ok(())) = (goes_on, stopped) {
            goes_on.recv().await;
        }
        if let Some(terminal) = terminal {
            // Gone with its window, perhaps; then there is a hangup, too.
            let _gone = terminal.again();
        }
    }
}
