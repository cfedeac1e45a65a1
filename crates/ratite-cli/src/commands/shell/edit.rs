//! The thread that edits lines at a terminal.
//!
//! The editor blocks while a line is written, so it has a thread of its own; another hands it what is to be printed
//! above the line. Whoever owns an [`Editing`] must [`Editing::leave`] it: a program that ends while a line is being
//! written would leave the terminal as the editor has set it.
//!
//! ```text
//! prompt ─► thread: raw terminal, line, terminal as before ─► typed
//! print  ─► thread: the editor takes it between two keys, and draws the line anew below it
//! ```

use std::borrow::Cow;
use std::io;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ratite::qmp::within;
use rustix::termios::LocalModes;
use rustix::termios::OptionalActions;
use rustix::termios::Termios;
use rustix::termios::tcgetattr;
use rustix::termios::tcsetattr;
use rustyline::Behavior;
use rustyline::ColorMode;
use rustyline::CompletionType;
use rustyline::Config;
use rustyline::Context;
use rustyline::Editor;
use rustyline::ExternalPrinter;
use rustyline::completion::Completer;
use rustyline::completion::Pair;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use tokio::sync::mpsc as channel;
use tokio::sync::oneshot;

use crate::commands::shell::session::Vocabulary;
use crate::language::Candidate;

/// What came of a line.
#[derive(Debug)]
pub(super) enum Typed {
    Line(String),
    /// Ctrl-C: the line is given up.
    Interrupted,
    /// Ctrl-D on an empty line.
    End,
    Failed(io::Error),
}

/// A line that is to be written.
#[derive(Debug)]
struct Prompt {
    text: &'static str,
    in_transaction: bool,
}

/// A terminal at which lines are edited.
#[derive(Debug)]
pub(super) struct Editing {
    prompts: mpsc::Sender<Prompt>,
    typed: channel::UnboundedReceiver<Typed>,
    /// Where to hand what is to be printed; a terminal that cannot move its cursor has none.
    printer: Option<mpsc::Sender<(String, oneshot::Sender<()>)>>,
    /// What is not known to be there yet.
    printing: Option<Printing>,
    drawn: Arc<Drawn>,
    /// The terminal as it was.
    before: Option<Termios>,
    /// How often the line had been drawn when the prompt was asked for, while there is one.
    waits_since: Option<u64>,
}

/// A text on its way to the terminal.
#[derive(Debug)]
struct Printing {
    text: String,
    done: oneshot::Receiver<()>,
}

/// How many lines the history holds.
const HISTORY: usize = 1024;

/// How long the editor may take to draw a line.
const DRAWING: Duration = Duration::from_secs(1);

impl Editing {
    /// Starts the threads. Lines are remembered in the file `history`, if there is one.
    pub(super) fn start(vocabulary: Vocabulary, history: Option<PathBuf>) -> io::Result<Self> {
        let before = tcgetattr(io::stdin()).ok();
        let drawn = Arc::new(Drawn::default());
        let mut editor = editor(vocabulary, drawn.clone()).map_err(into_io)?;
        if let Some(history) = &history {
            // There is none the first time; one that cannot be read is not worth an end.
            let _unread = editor.load_history(history);
        }
        let printer = match editor.create_external_printer() {
            Ok(printer) => Some(print_by(printer, drawn.clone())?),
            Err(_) => None,
        };
        let (prompts, inbox) = mpsc::channel();
        let (sender, typed) = channel::unbounded_channel();
        thread::Builder::new()
            .name("ratite-editor".into())
            .spawn(move || edit(editor, &inbox, &sender, history.as_ref()))?;
        Ok(Self { prompts, typed, printer, printing: None, drawn, before, waits_since: None })
    }

    /// Asks for a line.
    pub(super) fn prompt(&mut self, text: &'static str, in_transaction: bool) {
        self.waits_since = Some(self.drawn.times());
        // A thread that is gone shows when it is waited for.
        let _gone = self.prompts.send(Prompt { text, in_transaction });
    }

    /// Waits for what comes of the line, or (`None`) until what was to be printed is there. Cancelling loses nothing.
    pub(super) async fn news(&mut self) -> Option<Typed> {
        let typed = tokio::select! {
            biased;
            typed = self.typed.recv() => typed,
            () = finished(&mut self.printing) => {
                self.printing = None;
                return None;
            }
        };
        self.waits_since = None;
        typed.or_else(|| Some(Typed::Failed(io::Error::other("the thread that edits lines is gone"))))
    }

    /// Whether a line is being written, or has been: the editor has drawn it.
    pub(super) fn has_begun(&self) -> bool {
        self.waits_since.is_some_and(|since| self.drawn.times() > since)
    }

    /// Whether something can be printed above the line.
    pub(super) fn can_print(&self) -> bool {
        self.printer.is_some()
    }

    /// Whether what was to be printed is not there yet.
    pub(super) fn is_printing(&self) -> bool {
        self.printing.is_some()
    }

    /// Prints above the line that is being written.
    pub(super) fn print(&mut self, text: String) {
        let (sender, done) = oneshot::channel();
        if let Some(printer) = &self.printer {
            // A thread that is gone prints nothing, and has printed everything.
            let _gone = printer.send((text.clone(), sender));
            self.printing = Some(Printing { text, done });
        }
    }

    /// Gives the terminal back as it was, below the line that was being written, if there is one. Returns what could not
    /// be printed: an editor that asks whether to list all candidates prints nothing else.
    pub(super) async fn leave(mut self) -> Option<String> {
        if self.is_printing() && within(DRAWING, "", finished(&mut self.printing)).await.is_ok() {
            self.printing = None;
        }
        self.restore().await;
        self.printing.map(|printing| printing.text)
    }

    async fn restore(&mut self) {
        let Some(since) = self.waits_since else { return };
        // The editor first sets the terminal and then draws: from there on it leaves the settings alone.
        let drawn = self.drawn.clone();
        let is_drawn = tokio::task::spawn_blocking(move || drawn.wait_beyond(since, DRAWING));
        tokio::select! {
            _drawn_or_late = is_drawn => {}
            _typed = self.typed.recv() => return,
        }
        if let Some(before) = &self.before {
            // A terminal that is gone needs nothing.
            let _gone = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, before);
        }
        let _gone = rustix::io::write(io::stdout(), b"\n");
    }
}

/// Waits until something is printed that is being printed; without that, for ever.
async fn finished(printing: &mut Option<Printing>) {
    match printing {
        Some(printing) => drop((&mut printing.done).await),
        None => std::future::pending().await,
    }
}

/// Reads a line for each prompt, until nobody asks any more.
fn edit(
    mut editor: Editor<Helper, FileHistory>,
    prompts: &mpsc::Receiver<Prompt>,
    typed: &channel::UnboundedSender<Typed>,
    history: Option<&PathBuf>,
) {
    while let Ok(prompt) = prompts.recv() {
        if let Some(helper) = editor.helper_mut() {
            helper.in_transaction = prompt.in_transaction;
        }
        let came = match editor.readline(prompt.text) {
            Ok(line) => {
                remember(&mut editor, &line, history);
                Typed::Line(line)
            }
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => Typed::Interrupted,
            Err(ReadlineError::Eof) => Typed::End,
            Err(error) => Typed::Failed(into_io(error)),
        };
        if typed.send(came).is_err() {
            return;
        }
    }
}

fn remember(editor: &mut Editor<Helper, FileHistory>, line: &str, history: Option<&PathBuf>) {
    let is_new = !line.trim().is_empty() && editor.add_history_entry(line).unwrap_or_default();
    if let (true, Some(history)) = (is_new, history) {
        // A history that cannot be written is not worth an end.
        let _unwritten = editor.append_history(history);
    }
}

fn editor(vocabulary: Vocabulary, drawn: Arc<Drawn>) -> rustyline::Result<Editor<Helper, FileHistory>> {
    let is_terminal = io::stdout().is_terminal();
    let config = Config::builder()
        .max_history_size(HISTORY)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        // Lines that are pasted are lines that are typed.
        .bracketed_paste(false)
        // Without it, nothing would tell that a line has been drawn.
        .color_mode(ColorMode::Forced)
        .behavior(if is_terminal { Behavior::Stdio } else { Behavior::PreferTerm })
        .build();
    let remembered = FileHistory::with_config(&config);
    let mut editor = Editor::with_history(config, remembered)?;
    editor.set_helper(Some(Helper { vocabulary, in_transaction: false, drawn }));
    Ok(editor)
}

/// Starts the thread that prints above the line.
fn print_by(
    mut printer: impl ExternalPrinter + Send + 'static,
    drawn: Arc<Drawn>,
) -> io::Result<mpsc::Sender<(String, oneshot::Sender<()>)>> {
    let (sender, inbox) = mpsc::channel::<(String, oneshot::Sender<()>)>();
    thread::Builder::new().name("ratite-printer".into()).spawn(move || {
        while let Ok((text, done)) = inbox.recv() {
            let times = drawn.times();
            if printer.print(text).is_ok() && drawn.is_raw() {
                // It is there once the line has been drawn anew, however long the editor asks something else.
                drawn.wait_beyond(times, Duration::MAX);
            }
            // Nobody waits for it when the shell is left.
            let _left = done.send(());
        }
    })?;
    Ok(sender)
}

/// How often the editor has drawn its line.
#[derive(Debug, Default)]
struct Drawn {
    times: Mutex<u64>,
    again: Condvar,
}

impl Drawn {
    fn times(&self) -> u64 {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self) {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.again.notify_all();
    }

    /// Waits until the line has been drawn more often than so many times, at most for `limit`.
    fn wait_beyond(&self, times: u64, limit: Duration) {
        let drawn = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let _drawn_or_late = self.again.wait_timeout_while(drawn, limit, |drawn| *drawn <= times);
    }

    /// Whether a line is being written, by what the terminal says.
    fn is_raw(&self) -> bool {
        let local = tcgetattr(io::stdin()).map(|termios| termios.local_modes);
        local.is_ok_and(|modes| !modes.contains(LocalModes::ICANON))
    }
}

/// What the editor asks while a line is written.
struct Helper {
    vocabulary: Vocabulary,
    in_transaction: bool,
    drawn: Arc<Drawn>,
}

impl rustyline::Helper for Helper {}

impl Completer for Helper {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let completion = self.vocabulary.complete(&line[..at], self.in_transaction);
        let pair = |candidate: Candidate| Pair { display: candidate.shown, replacement: candidate.text };
        Ok((completion.start, completion.candidates.into_iter().map(pair).collect()))
    }
}

impl Hinter for Helper {
    type Hint = String;
}

impl Highlighter for Helper {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        self.drawn.note();
        Cow::Borrowed(prompt)
    }
}

impl Validator for Helper {}

fn into_io(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        ReadlineError::Errno(error) => error.into(),
        error => io::Error::other(error),
    }
}
