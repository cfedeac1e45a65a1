//! The progress line: what goes on, for how long, and the console's last line, at the bottom of a terminal's stderr.
//!
//! For a person who sees nothing else: it is drawn only where stderr is a terminal and the console goes elsewhere. It is
//! drawn over and over in one place, and [`clear`] removes it before anything else is said there.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use ratite::Console;
use ratite::Machine;
use ratite::plain_text;
use rustix::termios::tcgetwinsize;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::output::Paint;

/// How often it is drawn.
const EVERY: Duration = Duration::from_millis(100);

/// How many columns stay free: two for the `^C` that a terminal shows, and one since a full row may begin another.
const SPARE: usize = 3;

/// How much of the console is looked at for its last line.
const TAIL: usize = 1 << 10;

/// How many columns the line at the bottom of the terminal has; 0 if there is none.
static DRAWN: Mutex<usize> = Mutex::new(0);

/// Whether anybody would see it, beside a console that is shown on stdout or not.
pub(crate) fn is_wanted(console_is_shown: bool) -> bool {
    let is_talkative = std::env::var_os("RATITE_LOG").is_some_and(|level| !level.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    let is_shown_here = console_is_shown && io::stdout().is_terminal();
    io::stderr().is_terminal() && !is_shown_here && !is_talkative && !is_dumb
}

/// Removes the line, if it is there, to make room for something else.
pub(crate) fn clear() {
    let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    if *drawn > 0 {
        // A terminal that is gone needs no tidying.
        let _gone = io::stderr().lock().write_all(over(*drawn, columns()).as_bytes());
        *drawn = 0;
    }
}

/// A progress line, if it is wanted. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Progress(Option<Drawing>);

#[derive(Debug)]
struct Drawing {
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    began: Instant,
    phase: String,
    limit: Option<Duration>,
    machine: Option<Arc<Machine>>,
}

impl Progress {
    /// Begins to draw, where somebody would see it.
    pub(crate) fn begin(is_wanted: bool, limit: Option<Duration>) -> Self {
        if !is_wanted {
            return Self(None);
        }
        let state = State { began: Instant::now(), phase: "beginning".into(), limit, machine: None };
        let state = Arc::new(Mutex::new(state));
        let drawn = state.clone();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                draw(&drawn.lock().unwrap_or_else(PoisonError::into_inner));
            }
        });
        Self(Some(Drawing { state, task }))
    }

    /// What goes on from now on.
    pub(crate) fn phase(&self, phase: impl Into<String>) {
        self.change(|state| state.phase = phase.into());
    }

    /// Whose console is shown from now on.
    pub(crate) fn follow(&self, machine: &Arc<Machine>) {
        self.change(|state| state.machine = Some(machine.clone()));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Some(Drawing { state, .. }) = &self.0 {
            change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(drawing) = &self.0 {
            drawing.task.abort();
            clear();
        }
    }
}

fn draw(state: &State) {
    let console = state.machine.as_ref().and_then(|machine| machine.console());
    let last = console.map(last_line).unwrap_or_default();
    let columns = columns();
    let line = line(&state.phase, state.began.elapsed(), state.limit, &last, columns);
    let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    let paint = Paint::of(&io::stderr());
    let text = format!("{}{}", over(*drawn, columns), paint.dim(&line));
    // A terminal that is gone shows nothing.
    let _gone = io::stderr().lock().write_all(text.as_bytes());
    *drawn = line.chars().count();
}

/// `booting 12 s of 60 s │ the console's last line`, in one row.
fn line(phase: &str, time: Duration, limit: Option<Duration>, last: &str, columns: usize) -> String {
    let limit = limit.map(|limit| format!(" of {} s", limit.as_secs_f64().ceil())).unwrap_or_default();
    let mut line = format!("{phase} {} s{limit}", time.as_secs());
    if !last.is_empty() {
        line += &format!(" │ {last}");
    }
    let room = columns.saturating_sub(SPARE);
    match line.char_indices().nth(room) {
        None => line,
        Some(_) => line.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// The last line of a console that says something, without what a terminal would obey, and in letters that are one
/// column wide.
fn last_line(console: &Console) -> String {
    last_line_of(&console.tail(TAIL).bytes)
}

fn last_line_of(bytes: &[u8]) -> String {
    let text = plain_text(bytes);
    let last = text.lines().rev().map(str::trim_end).find(|line| !line.is_empty());
    last.unwrap_or_default().chars().map(narrow).collect()
}

fn narrow(character: char) -> char {
    match character {
        '\t' => ' ',
        ' '..='~' | '\u{a1}'..='\u{2ff}' => character,
        _ => '·',
    }
}

/// What removes a line of so many columns, also when the terminal has become narrower and broken it into several rows.
fn over(drawn: usize, columns: usize) -> String {
    match drawn.saturating_sub(1) / columns.max(1) {
        0 => "\r\x1b[J".into(),
        rows => format!("\r\x1b[{rows}A\x1b[J"),
    }
}

/// How wide the terminal is; 80 columns if it does not tell.
fn columns() -> usize {
    let size = tcgetwinsize(io::stderr()).ok().map(|size| usize::from(size.ws_col));
    size.filter(|columns| *columns > 0).unwrap_or(80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_last_that_says_something() {
        let check = |console: &[u8], expected| assert_eq!(last_line_of(console), expected);

        check(b"one\r\n\x1b[32m[ ok ]\x1b[0m two\r\n\r\n  \r\n", "[ ok ] two");
        check(b"10%\r20%", "20%");
        check("\u{597d} \u{fc}\x07".as_bytes(), "· ü");
        check(b"", "");
    }

    #[test]
    fn the_line_fits_into_one_row() {
        let shown = |columns| line("running", Duration::from_millis(1900), None, "0123456789", columns);

        assert_eq!(shown(80), "running 1 s │ 0123456789");
        assert_eq!(shown(27), "running 1 s │ 0123456789");
        assert_eq!(shown(26), "running 1 s │ 01234567…");
        assert_eq!(shown(1), "…");
        let limited = line("running", Duration::ZERO, Some(Duration::from_secs(60)), "", 80);
        assert_eq!(limited, "running 0 s of 60 s");
    }

    #[test]
    fn a_line_that_the_terminal_has_broken_is_removed_whole() {
        assert_eq!(over(79, 80), "\r\x1b[J");
        assert_eq!(over(79, 40), "\r\x1b[1A\x1b[J");
        assert_eq!(over(81, 40), "\r\x1b[2A\x1b[J");
        assert_eq!(over(0, 0), "\r\x1b[J");
    }
}
