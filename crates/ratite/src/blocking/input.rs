//! The twin of [`crate::Input`].

use std::time::Duration;

use crate::blocking::qmp::Client;
use crate::blocking::wait::Background;
use crate::input::Button;
use crate::input::InputError;
use crate::layout::Layout;

/// A machine's keyboard and mouse; see [`crate::Input`].
#[derive(Debug, Clone)]
pub struct Input {
    inner: crate::input::Input,
    background: Background,
}

impl Input {
    /// The keyboard and mouse of the machine at the other end of a session; see [`crate::Input::over`].
    #[must_use]
    pub fn over(client: &Client) -> Self {
        let (client, background) = client.parts();
        Self { inner: crate::input::Input::over(client), background }
    }

    /// How long keys and buttons are held; see [`crate::Input::hold`].
    #[must_use]
    pub fn hold(mut self, time: Duration) -> Self {
        self.inner = self.inner.hold(time);
        self
    }

    /// Presses and releases keys; see [`crate::Input::send_key`].
    ///
    /// # Errors
    /// As there.
    pub fn send_key(&self, keys: &str) -> Result<(), InputError> {
        self.background.wait("Input::send_key", self.inner.send_key(keys))
    }

    /// Types a text; see [`crate::Input::type_text`].
    ///
    /// # Errors
    /// As there.
    pub fn type_text(&self, text: &str, layout: Layout) -> Result<(), InputError> {
        self.background.wait("Input::type_text", self.inner.type_text(text, layout))
    }

    /// Moves the pointer to a place; see [`crate::Input::move_to`].
    ///
    /// # Errors
    /// As there.
    pub fn move_to(&self, x: f64, y: f64) -> Result<(), InputError> {
        self.background.wait("Input::move_to", self.inner.move_to(x, y))
    }

    /// Moves the pointer by a way; see [`crate::Input::move_by`].
    ///
    /// # Errors
    /// As there.
    pub fn move_by(&self, right: i32, down: i32) -> Result<(), InputError> {
        self.background.wait("Input::move_by", self.inner.move_by(right, down))
    }

    /// Presses and releases a button; see [`crate::Input::click`].
    ///
    /// # Errors
    /// As there.
    pub fn click(&self, button: Button) -> Result<(), InputError> {
        self.background.wait("Input::click", self.inner.click(button))
    }

    /// Presses a button and leaves it pressed; see [`crate::Input::press_button`].
    ///
    /// # Errors
    /// As there.
    pub fn press_button(&self, button: Button) -> Result<(), InputError> {
        self.background.wait("Input::press_button", self.inner.press_button(button))
    }

    /// Releases a button; see [`crate::Input::release_button`].
    ///
    /// # Errors
    /// As there.
    pub fn release_button(&self, button: Button) -> Result<(), InputError> {
        self.background.wait("Input::release_button", self.inner.release_button(button))
    }

    /// Turns the wheel; see [`crate::Input::scroll`].
    ///
    /// # Errors
    /// As there.
    pub fn scroll(&self, steps: i32) -> Result<(), InputError> {
        self.background.wait("Input::scroll", self.inner.scroll(steps))
    }
}
