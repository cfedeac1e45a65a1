//! The twin of [`crate::Screen`].

use std::time::Duration;

use crate::blocking::qmp::Client;
use crate::blocking::wait::Background;
use crate::glyphs::ScreenText;
use crate::pattern::Pattern;
use crate::picture::Picture;
use crate::picture::Tolerance;
use crate::screen::ScreenError;

/// A machine's screen; see [`crate::Screen`].
#[derive(Debug, Clone)]
pub struct Screen {
    inner: crate::screen::Screen,
    background: Background,
}

impl Screen {
    /// The screen of the machine at the other end of a session; see [`crate::Screen::over`].
    #[must_use]
    pub fn over(client: &Client) -> Self {
        let (client, background) = client.parts();
        Self { inner: crate::screen::Screen::over(client), background }
    }

    /// The screen of a graphics card; see [`crate::Screen::device`].
    #[must_use]
    pub fn device(mut self, id: impl Into<String>) -> Self {
        self.inner = self.inner.device(id);
        self
    }

    /// Which of a card's screens; see [`crate::Screen::head`].
    #[must_use]
    pub fn head(mut self, head: u32) -> Self {
        self.inner = self.inner.head(head);
        self
    }

    /// How often waits take a picture; see [`crate::Screen::every`].
    #[must_use]
    pub fn every(mut self, pause: Duration) -> Self {
        self.inner = self.inner.every(pause);
        self
    }

    /// Takes a picture; see [`crate::Screen::screenshot`].
    ///
    /// # Errors
    /// As there.
    pub fn screenshot(&self, limit: Duration) -> Result<Picture, ScreenError> {
        self.background.wait("Screen::screenshot", self.inner.screenshot(limit))
    }

    /// Takes a picture as a PNG; see [`crate::Screen::screenshot_png`].
    ///
    /// # Errors
    /// As there.
    pub fn screenshot_png(&self, limit: Duration) -> Result<Vec<u8>, ScreenError> {
        self.background.wait("Screen::screenshot_png", self.inner.screenshot_png(limit))
    }

    /// Waits until the screen no longer looks like `before`; see [`crate::Screen::changed_from`].
    ///
    /// # Errors
    /// As there.
    pub fn changed_from(
        &self,
        before: &Picture,
        tolerance: &Tolerance,
        limit: Duration,
    ) -> Result<Picture, ScreenError> {
        self.background.wait("Screen::changed_from", self.inner.changed_from(before, tolerance, limit))
    }

    /// Waits until the screen has stayed as it is for `time`; see [`crate::Screen::still`].
    ///
    /// # Errors
    /// As there.
    pub fn still(
        &self,
        time: Duration,
        tolerance: &Tolerance,
        limit: Duration,
    ) -> Result<Picture, ScreenError> {
        self.background.wait("Screen::still", self.inner.still(time, tolerance, limit))
    }

    /// Waits until the screen looks like `reference`; see [`crate::Screen::looks_like`].
    ///
    /// # Errors
    /// As there.
    pub fn looks_like(
        &self,
        reference: &Picture,
        tolerance: &Tolerance,
        limit: Duration,
    ) -> Result<Picture, ScreenError> {
        self.background.wait("Screen::looks_like", self.inner.looks_like(reference, tolerance, limit))
    }

    /// Reads the text that the screen shows now; see [`crate::Screen::text`].
    ///
    /// # Errors
    /// As there.
    pub fn text(&self, limit: Duration) -> Result<ScreenText, ScreenError> {
        self.background.wait("Screen::text", self.inner.text(limit))
    }

    /// Waits until `pattern` is on the screen; see [`crate::Screen::wait_text`].
    ///
    /// # Errors
    /// As there.
    pub fn wait_text(&self, pattern: impl Into<Pattern>, limit: Duration) -> Result<ScreenText, ScreenError> {
        self.background.wait("Screen::wait_text", self.inner.wait_text(pattern, limit))
    }
}
