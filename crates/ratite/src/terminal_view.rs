//! A console as a person at a terminal sees it: its bytes, drawn.
//!
//! Owns a reader of the console's record. Draws when it is looked at, and knows no time.

use std::time::Duration;

use ratite_qmp::within;

use crate::console::Console;
use crate::console::ConsoleError;
use crate::pattern::Pattern;
use crate::terminal::Terminal;

/// A console, drawn on a [`Terminal`]: made by [`Console::terminal`].
///
/// It has a place of its own in the console's record, so nobody else misses what it takes.
#[derive(Debug)]
pub struct TerminalView {
    console: Console,
    terminal: Terminal,
    anything: Pattern,
    /// What was taken and is not drawn yet.
    undrawn: Vec<u8>,
    dropped: u64,
}

/// How much is drawn between two looks at the screen.
const STROKE: usize = 128;

impl Console {
    /// The console as it looks on a terminal of so many columns and rows (80 and 25 are usual), from the oldest byte that is
    /// still recorded on.
    #[must_use]
    pub fn terminal(&self, columns: usize, rows: usize) -> TerminalView {
        TerminalView {
            console: self.reader(),
            terminal: Terminal::new(columns, rows),
            anything: Pattern::regex("(?s).").expect("it is an expression"),
            undrawn: Vec::new(),
            dropped: 0,
        }
    }
}

impl TerminalView {
    /// The terminal with all that has arrived up to now.
    pub fn now(&mut self) -> &Terminal {
        self.take();
        self.terminal.feed(&std::mem::take(&mut self.undrawn));
        &self.terminal
    }

    /// Waits until `pattern` stands on the screen, and returns the screen.
    ///
    /// The pattern is looked for in [`Terminal::text`], so it can span lines, and sees neither escape sequences nor the order in
    /// which they drew. The screen is looked at after every 128 bytes that have come: what is there for a moment only may be
    /// missed. Cancelling loses nothing.
    ///
    /// # Errors
    /// [`ConsoleError::TimedOut`]; [`ConsoleError::Ended`] when the console ended without it, [`ConsoleError::GuestPanicked`] when
    /// the guest has panicked.
    pub async fn wait_for(
        &mut self,
        pattern: impl Into<Pattern>,
        limit: Duration,
    ) -> Result<&Terminal, ConsoleError> {
        let pattern = pattern.into();
        let what = format!("{pattern} on the screen");
        let shown = async {
            while !self.draw_until(&pattern).await? {
                // Returns with the machine's end too.
                let _found = self.console.find(&self.anything, Duration::MAX).await?;
                self.take();
            }
            Ok(())
        };
        match within(limit, &what, shown).await {
            Ok(Ok(())) => Ok(&self.terminal),
            Ok(Err(ConsoleError::Ended { exit, tail, .. })) => Err(ConsoleError::Ended { what, exit, tail }),
            Ok(Err(ConsoleError::GuestPanicked { event, tail, .. })) => {
                Err(ConsoleError::GuestPanicked { what, event, tail })
            }
            Ok(Err(error)) => Err(error),
            Err(timed_out) => {
                let tail = self.console.tail(LAST_WORDS);
                Err(ConsoleError::TimedOut { what: timed_out.what, limit, tail })
            }
        }
    }

    /// Changes the terminal's size, and moves what is drawn as an xterm would. The guest learns nothing of it.
    pub fn resize(&mut self, columns: usize, rows: usize) {
        self.now();
        self.terminal.resize(columns, rows);
    }

    /// How many bytes were dropped, because nobody looked in time: what they would have drawn is missing.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn take(&mut self) {
        loop {
            match self.console.take() {
                Ok(bytes) => break self.undrawn.extend(bytes),
                Err(ConsoleError::Lagged { dropped }) => self.dropped += dropped,
                // Nothing else goes wrong without waiting.
                Err(_) => break,
            }
        }
    }

    /// Draws until the pattern is there; false when all is drawn without it. Others have their turn between two strokes, and so
    /// has the limit: a large screen takes its time.
    async fn draw_until(&mut self, pattern: &Pattern) -> Result<bool, ConsoleError> {
        self.take();
        loop {
            let gave_up = |source| ConsoleError::Search { pattern: pattern.to_string(), source };
            if pattern.search().feed(self.terminal.text().as_bytes()).map_err(gave_up)?.is_some() {
                return Ok(true);
            }
            if self.undrawn.is_empty() {
                return Ok(false);
            }
            let stroke = self.undrawn.drain(..STROKE.min(self.undrawn.len()));
            self.terminal.feed(&stroke.collect::<Vec<u8>>());
            tokio::task::yield_now().await;
        }
    }
}

/// How much of the console an error carries.
const LAST_WORDS: usize = 2 << 10;
