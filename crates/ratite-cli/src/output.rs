//! stdout, which is data; whatever is talk goes to stderr, see `report`.
//!
//! [`Bytes`] carries a console: a thread of its own writes, because stdout may be read slowly or not at all. [`Screen`]
//! is for people: lines with a margin that says what they are.

use std::io;
use std::io::IsTerminal;
use std::io::Write;

use clap::builder::styling::AnsiColor;
use clap::builder::styling::Style;
use serde::Serialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

/// Writes text to stdout.
pub(crate) fn text(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

/// Writes a value to stdout, as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    text(&(serde_json::to_string(value)? + "\n"))
}

/// Bytes on their way to stdout. One piece is being written, and one may wait.
#[derive(Debug)]
pub(crate) struct Bytes {
    pieces: mpsc::Sender<Vec<u8>>,
    outcome: oneshot::Receiver<io::Result<()>>,
    reader: Option<AsyncFd<io::Stdout>>,
}

impl Bytes {
    /// Starts the thread that writes a console, which leaves a terminal tidy behind it.
    pub(crate) fn to_stdout() -> io::Result<Self> {
        Self::written_by(|inbox| match write_all(inbox)? {
            Some(last) => tidy_terminal(last),
            None => Ok(()),
        })
    }

    /// Starts the thread that writes text.
    pub(crate) fn text_to_stdout() -> io::Result<Self> {
        Self::written_by(|inbox| write_all(inbox).map(drop))
    }

    fn written_by(
        write: impl FnOnce(mpsc::Receiver<Vec<u8>>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (pieces, inbox) = mpsc::channel(1);
        let (outcome_sender, outcome) = oneshot::channel();
        std::thread::Builder::new().name("ratite-stdout".into()).spawn(move || {
            // Nobody waits for it when the program ends first.
            let _gone = outcome_sender.send(write(inbox));
        })?;
        Ok(Self { pieces, outcome, reader: watch_reader() })
    }

    /// Waits until a piece can be handed over; `None` once writing has failed.
    pub(crate) async fn room(&self) -> Option<mpsc::Permit<'_, Vec<u8>>> {
        self.pieces.reserve().await.ok()
    }

    /// Waits until nothing can be written any more: writing has failed, or nobody reads.
    pub(crate) async fn closed(&self) {
        let unread = async {
            match &self.reader {
                Some(reader) if reader.ready(Interest::ERROR).await.is_ok() => {}
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.pieces.closed() => {}
            () = unread => {}
        }
    }

    /// Why nothing can be written any more.
    pub(crate) async fn failure(self) -> io::Error {
        if !self.pieces.is_closed() {
            // The thread that writes has nothing to write, or is about to learn the same.
            return io::ErrorKind::BrokenPipe.into();
        }
        let outcome = self.outcome.await.unwrap_or(Ok(()));
        outcome.err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// What the system said when writing failed.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.pieces);
        self.outcome.await.unwrap_or_else(|_| Err(io::Error::other("the thread that writes is gone")))
    }
}

/// Something that tells when nobody reads stdout any more. A plain file has no reader, and cannot be watched.
#[expect(deprecated, reason = "sound for stdout, whose descriptor stays open; the replacement is `unsafe`")]
fn watch_reader() -> Option<AsyncFd<io::Stdout>> {
    AsyncFd::with_interest(io::stdout(), Interest::ERROR).ok()
}

/// Writes all that comes; the last byte of it.
fn write_all(mut pieces: mpsc::Receiver<Vec<u8>>) -> io::Result<Option<u8>> {
    let mut last = None;
    while let Some(piece) = pieces.blocking_recv() {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&piece)?;
        stdout.flush()?;
        last = piece.last().copied().or(last);
    }
    Ok(last)
}

/// Leaves a terminal that a console has written to with plain letters, line wrap, a visible cursor, and nothing before
/// the shell's prompt. Firmware and guests change all of these.
fn tidy_terminal(last: u8) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if !stdout.is_terminal() {
        return Ok(());
    }
    let line_end = if last == b'\n' { "" } else { "\r\n" };
    write!(stdout, "\x1b[0m\x1b[?7h\x1b[?25h{line_end}")?;
    stdout.flush()
}

/// Lines for people, each behind a margin that names what it is about.
///
/// ```text
/// console │ ratite guest ready
///         │ > echo hello
/// ```
#[derive(Debug)]
pub(crate) struct Screen<W> {
    writer: W,
    paint: Paint,
    /// What the last margin says; the next line with the same says nothing.
    margin: &'static str,
    line_is_open: bool,
}

impl Screen<io::Stdout> {
    /// The screen on stdout.
    pub(crate) fn on_stdout() -> Self {
        Self::new(io::stdout(), Paint::of(&io::stdout()))
    }
}

impl<W: Write> Screen<W> {
    fn new(writer: W, paint: Paint) -> Self {
        Self { writer, paint, margin: "", line_is_open: false }
    }

    /// A line of its own.
    pub(crate) fn line(&mut self, margin: &'static str, text: impl AsRef<str>) -> io::Result<()> {
        self.close_line()?;
        self.begin_line(margin)?;
        writeln!(self.writer, "{}", text.as_ref())
    }

    /// What has come from a console, in pieces that need not be lines.
    pub(crate) fn console(&mut self, margin: &'static str, bytes: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(bytes);
        for line in text.split_inclusive('\n') {
            if !self.line_is_open {
                self.begin_line(margin)?;
            }
            let visible = line.trim_end_matches(['\r', '\n']);
            let shown = visible.replace(|character: char| character.is_control(), "·");
            write!(self.writer, "{}", self.paint.bold(&shown))?;
            self.line_is_open = true;
            if line.ends_with('\n') {
                self.close_line()?;
            }
        }
        self.writer.flush()
    }

    /// Ends a line of a console that the guest has not ended.
    pub(crate) fn close_line(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.line_is_open) {
            true => writeln!(self.writer),
            false => Ok(()),
        }
    }

    fn begin_line(&mut self, margin: &'static str) -> io::Result<()> {
        let shown = if margin == self.margin { "" } else { margin };
        self.margin = margin;
        let shown = self.paint.cyan(&format!("{shown:>8}"));
        write!(self.writer, "{shown} {} ", self.paint.dim("│"))
    }

    /// How to paint what goes into a line.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }
}

/// Colours, where somebody can see them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// No colours.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self { on: false };

    /// Colours for a terminal, unless the environment says `NO_COLOR` (<https://no-color.org>).
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { on: stream.is_terminal() && !unwanted }
    }

    /// Whether there are any.
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.styled(Style::new().bold(), text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.styled(Style::new().dimmed(), text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.styled(AnsiColor::Red.on_default().bold(), text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.styled(AnsiColor::Green.on_default(), text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.styled(AnsiColor::Cyan.on_default(), text)
    }

    fn styled(self, style: Style, text: &str) -> String {
        match self.on && !text.is_empty() {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(draw: impl FnOnce(&mut Screen<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut written = Vec::new();
        draw(&mut Screen::new(&mut written, Paint::NONE)).unwrap();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn a_margin_is_said_once() {
        let text = shown(|screen| {
            screen.line("qmp", "one")?;
            screen.line("qmp", "two")?;
            screen.line("event", "three")
        });

        assert_eq!(text, "     qmp │ one\n         │ two\n   event │ three\n");
    }

    #[test]
    fn pieces_of_a_console_make_lines() {
        let text = shown(|screen| {
            screen.console("console", b"rea")?;
            screen.console("console", b"dy\r\n> \x07")?;
            screen.line("qmp", "one")
        });

        assert_eq!(text, " console │ ready\n         │ > ·\n     qmp │ one\n");
    }

    #[test]
    fn there_are_no_colours_where_nobody_sees_them() {
        assert_eq!(Paint::NONE.red("x"), "x");
        assert_eq!(Paint { on: true }.cyan("x"), "\u{1b}[36mx\u{1b}[0m");
    }
}
