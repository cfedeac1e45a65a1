//! How a driver comes to a shell: by logging in, or because there is one already.

use std::time::Duration;

use ratite_qmp::within;

use crate::console::Console;
use crate::shell::SETTLED;
use crate::shell::Shell;
use crate::shell::ShellError;
use crate::shell::login::Login;
use crate::shell::login::Prompts;
use crate::shell::seen::Seen;

/// What a login has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The guest is to ask who logs in.
    Name,
    /// It knows who, and may ask for the password.
    Named,
    /// It has the password.
    Answered,
}

/// How long what looks like a prompt has to stand there.
const PROMPT: Duration = Duration::from_millis(100);

/// How long a guest may think about a password without saying anything: wrong ones cost up to 3 s on the common systems.
const THINKING: Duration = Duration::from_secs(5);

impl Shell {
    /// Takes the shell that runs on `console`, or is about to.
    ///
    /// Looks first at what the console has brought already; without a prompt there it waits for one. When the guest falls silent
    /// for 2 s it presses Enter, and then has whoever is there answer. A restored guest that was frozen at a prompt answers at once.
    ///
    /// # Errors
    /// [`ShellError::LoginWanted`] if there is a login prompt instead; [`ShellError::TimedOut`] if nobody has answered within
    /// `limit`; [`ShellError::Ended`].
    pub async fn attach(console: &Console, limit: Duration) -> Result<Self, ShellError> {
        let mut shell = Self::new(console.reader(), Prompts::common());
        let mut seen = Seen::default();
        let attached = within(limit, "shell on the console", shell.find(&mut seen)).await;
        finished(attached, &seen, "a shell", None)?;
        Ok(shell)
    }

    /// Logs in on `console`, and takes the shell.
    ///
    /// Looks first at what the console has brought already; when the guest asks nothing and falls silent for 2 s, it presses
    /// Enter.
    ///
    /// # Errors
    /// [`ShellError::Refused`] at once when the guest says so, asks again who logs in, or wants a password and has got none;
    /// [`ShellError::TimedOut`] after `limit`; [`ShellError::Ended`]; [`ShellError::Untypable`] for a name or a password of several
    /// lines.
    pub async fn login(console: &Console, login: &Login, limit: Duration) -> Result<Self, ShellError> {
        for (what, text) in
            [("the user's name", Some(&login.user)), ("the password", login.password.as_ref())]
        {
            if text.is_some_and(|text| text.contains(|character: char| character.is_control())) {
                return Err(ShellError::Untypable { what: what.into(), character: "control character" });
            }
        }
        let mut shell = Self::new(console.reader(), login.prompts.clone());
        let mut seen = Seen::default();
        let what = format!("shell after the login of `{}`", login.user);
        let entered = within(limit, &what, shell.enter(login, &mut seen)).await;
        finished(entered, &seen, &format!("a {what}"), login.password.as_deref())?;
        Ok(shell)
    }

    /// Waits for a shell that is there without a login.
    async fn find(&mut self, seen: &mut Seen) -> Result<(), ShellError> {
        let mut pressed = false;
        loop {
            let line = seen.last_line();
            let prompted = self.prompts.is_shell(&line);
            let patience = match prompted {
                // A guest that was frozen at a prompt has had its time to say more.
                true if self.console.is_as_frozen() => Duration::ZERO,
                true => PROMPT,
                false => 2 * SETTLED,
            };
            if self.read_more(seen, patience).await? {
                continue;
            }
            if self.prompts.asks_who(&line) {
                return Err(ShellError::LoginWanted { prompt: line });
            }
            if !prompted && !pressed {
                pressed = true;
                self.console.write("\n").await?;
            } else if self.probe(seen).await? {
                return Ok(());
            }
        }
    }

    /// Answers what the guest asks, until its shell answers.
    async fn enter(&mut self, login: &Login, seen: &mut Seen) -> Result<(), ShellError> {
        let mut stage = Stage::Name;
        loop {
            let line = seen.last_line();
            if stage == Stage::Name {
                if self.prompts.asks_who(&line) {
                    self.answer(&login.user, seen).await?;
                    stage = Stage::Named;
                } else if !self.read_more(seen, 2 * SETTLED).await? {
                    self.answer("", seen).await?;
                }
                continue;
            }
            let refusal = seen.lines().into_iter().find(|line| self.prompts.refuses(line));
            if let Some(said) = refusal.or_else(|| self.prompts.asks_who(&line).then(|| line.clone())) {
                return Err(ShellError::Refused { user: login.user.clone(), said });
            }
            if self.prompts.asks_for_password(&line) {
                // Guests stop their echo behind the prompt. Who types at once has the password on the console.
                if self.read_more(seen, PROMPT).await? {
                    continue;
                }
                let (Stage::Named, Some(password)) = (stage, &login.password) else {
                    return Err(ShellError::Refused { user: login.user.clone(), said: line });
                };
                self.answer(password, seen).await?;
                stage = Stage::Answered;
                continue;
            }
            let patience = if self.prompts.is_shell(&line) { PROMPT } else { THINKING };
            if !self.read_more(seen, patience).await? && self.probe(seen).await? {
                return Ok(());
            }
        }
    }

    /// Types a line. What came before it is over.
    async fn answer(&self, text: &str, seen: &mut Seen) -> Result<(), ShellError> {
        *seen = Seen::default();
        Ok(self.console.write(format!("{text}\n")).await?)
    }
}

/// The error with what the console said, but for the password.
fn finished(
    outcome: Result<Result<(), ShellError>, ratite_qmp::TimedOut>,
    seen: &Seen,
    what: &str,
    password: Option<&str>,
) -> Result<(), ShellError> {
    let error = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.at_the_end(what, seen.text()),
        Err(wait) => ShellError::TimedOut { wait, output: seen.text() },
    };
    Err(match password {
        Some(password) if !password.is_empty() => error.without(password),
        _ => error,
    })
}
