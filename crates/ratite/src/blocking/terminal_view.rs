//! The twin of [`crate::TerminalView`].

use std::time::Duration;

use crate::blocking::Console;
use crate::blocking::wait::Background;
use crate::console::ConsoleError;
use crate::pattern::Pattern;
use crate::terminal::Terminal;

/// A console, drawn on a terminal; see [`crate::TerminalView`].
#[derive(Debug)]
pub struct TerminalView {
    inner: crate::terminal_view::TerminalView,
    background: Background,
}

impl Console {
    /// The console as it looks on a terminal; see [`crate::Console::terminal`].
    #[must_use]
    pub fn terminal(&self, columns: usize, rows: usize) -> TerminalView {
        let (console, background) = self.parts();
        TerminalView { inner: console.terminal(columns, rows), background: background.clone() }
    }
}

impl TerminalView {
    /// The terminal with all that has arrived up to now; see [`crate::TerminalView::now`].
    pub fn now(&mut self) -> &Terminal {
        self.inner.now()
    }

    /// Waits until `pattern` stands on the screen; see [`crate::TerminalView::wait_for`].
    ///
    /// # Errors
    /// As there.
    pub fn wait_for(
        &mut self,
        pattern: impl Into<Pattern>,
        limit: Duration,
    ) -> Result<&Terminal, ConsoleError> {
        self.background.wait("TerminalView::wait_for", self.inner.wait_for(pattern, limit))
    }

    /// Changes the terminal's size; see [`crate::TerminalView::resize`].
    pub fn resize(&mut self, columns: usize, rows: usize) {
        self.inner.resize(columns, rows);
    }

    /// How many bytes were dropped; see [`crate::TerminalView::dropped`].
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.inner.dropped()
    }
}
