//! The twin of [`crate::Shell`].

use std::time::Duration;

use crate::blocking::Console;
use crate::blocking::wait::Background;
use crate::shell::Login;
use crate::shell::ShellError;
use crate::shell::ShellOutput;

/// A shell in a guest; see [`crate::Shell`].
#[derive(Debug)]
pub struct Shell {
    inner: crate::shell::Shell,
    background: Background,
}

impl Shell {
    /// Takes the shell that runs on `console`, or is about to; see [`crate::Shell::attach`].
    ///
    /// # Errors
    /// As there.
    pub fn attach(console: &Console, limit: Duration) -> Result<Self, ShellError> {
        let (console, background) = console.parts();
        let inner = background.wait("Shell::attach", crate::shell::Shell::attach(console, limit))?;
        Ok(Self { inner, background: background.clone() })
    }

    /// Logs in on `console`, and takes the shell; see [`crate::Shell::login`].
    ///
    /// # Errors
    /// As there.
    pub fn login(console: &Console, login: &Login, limit: Duration) -> Result<Self, ShellError> {
        let (console, background) = console.parts();
        let inner = background.wait("Shell::login", crate::shell::Shell::login(console, login, limit))?;
        Ok(Self { inner, background: background.clone() })
    }

    /// Runs `command` and waits for its end; see [`crate::Shell::run`].
    ///
    /// # Errors
    /// As there.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<ShellOutput, ShellError> {
        self.background.wait("Shell::run", self.inner.run(command, limit))
    }

    /// The same, but a status other than 0 is an error; see [`crate::Shell::check`].
    ///
    /// # Errors
    /// As there.
    pub fn check(&mut self, command: &str, limit: Duration) -> Result<ShellOutput, ShellError> {
        self.background.wait("Shell::check", self.inner.check(command, limit))
    }

    /// Ends what runs, with Ctrl-C; see [`crate::Shell::interrupt`].
    ///
    /// # Errors
    /// As there.
    pub fn interrupt(&mut self, limit: Duration) -> Result<(), ShellError> {
        self.background.wait("Shell::interrupt", self.inner.interrupt(limit))
    }

    /// The console that the shell is on; see [`crate::Shell::console`].
    #[must_use]
    pub fn console(&self) -> Console {
        Console::new(self.inner.console().clone(), self.background.clone())
    }
}
