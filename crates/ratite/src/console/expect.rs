//! Waiting for something to appear on a console.

use std::time::Duration;

use ratite_qmp::within;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::console::Console;
use crate::console::ConsoleError;
use crate::console::LAST_WORDS;
use crate::console::standing::Hunt;
use crate::console::standing::Outcome;
use crate::console::standing::Told;
use crate::console::standing::Wait;
use crate::history::Candidate;
use crate::history::History;
use crate::history::Match;
use crate::pattern::Located;
use crate::pattern::Pattern;
use crate::pattern::Patterns;
use crate::runtime::aside;

/// How long what a guest said before it panicked may be on its way.
const AFTER_PANIC: Duration = Duration::from_millis(100);

impl Console {
    /// Waits until one of `patterns` appears, and takes everything up to its end. What follows stays for the next reader.
    ///
    /// Looks first at what has arrived and was not read yet. Takes a literal (`"login:"`), a [`Pattern`], an array of either,
    /// or [`Patterns`], some of which may mean a failure; [`Match::index`] tells which it was. Cancelling loses no byte. If
    /// bytes were dropped unread, the search goes on in what is left, and [`Match::dropped`] counts them.
    ///
    /// # Errors
    /// [`ConsoleError::TimedOut`]; [`ConsoleError::Ended`] when the stream ended without it; [`ConsoleError::GuestPanicked`]
    /// when QEMU tells so. Nothing is taken then. [`ConsoleError::Failure`] when a failure came first, which is taken.
    pub async fn expect(
        &self,
        patterns: impl Into<Patterns>,
        limit: Duration,
    ) -> Result<Match, ConsoleError> {
        let patterns: Patterns = patterns.into();
        let found = async {
            loop {
                if let Some(found) = self.found(&patterns).await?.take()? {
                    return Ok(found);
                }
            }
        };
        let outcome = self.within(limit, format!("{patterns} on the console"), found).await;
        self.with_cause(outcome).await
    }

    /// The same, but takes nothing: for those who can be interrupted between a match and its use. [`Found::take`] takes it,
    /// and tells then if it means a failure.
    ///
    /// # Errors
    /// As [`Console::expect`], but for failures.
    pub async fn find(&self, patterns: impl Into<Patterns>, limit: Duration) -> Result<Found, ConsoleError> {
        let patterns: Patterns = patterns.into();
        let outcome = self.within(limit, format!("{patterns} on the console"), self.found(&patterns)).await;
        self.with_cause(outcome).await
    }

    /// Types `text`, and waits until the guest has echoed it, which is taken with everything before it: what is expected next
    /// is then the guest's answer, and not what was typed.
    ///
    /// The echo may be broken by what editors of a line put into it: escape sequences, carriage returns, line feeds.
    /// `text` is best one line without its end, for [`Console::send_line`] to end it.
    ///
    /// # Errors
    /// As [`Console::write`] and [`Console::expect`]; the text has been typed, whether or not it was echoed.
    pub async fn send_echoed(&self, text: impl AsRef<str>, limit: Duration) -> Result<Match, ConsoleError> {
        let text = text.as_ref();
        let echo = Pattern::echo_of(text).map_err(|bad| ConsoleError::Search {
            pattern: format!("the echo of `{text}`"),
            source: bad.into(),
        })?;
        self.write(text).await?;
        self.expect(echo, limit).await
    }

    async fn found(&self, patterns: &Patterns) -> Result<Found, ConsoleError> {
        let candidate = self.candidate_before_a_panic(patterns).await?;
        // Every match is one of a pattern that was searched for.
        let pattern = patterns.get(candidate.index());
        let (candidate, place) = match pattern {
            Some(pattern) => located(pattern, candidate).await,
            None => (candidate, None),
        };
        Ok(Found { console: self.clone(), patterns: patterns.clone(), candidate, place })
    }

    /// Waits for a match, or for the guest's panic, if that comes first.
    async fn candidate_before_a_panic(&self, patterns: &Patterns) -> Result<Candidate, ConsoleError> {
        let mut candidate = std::pin::pin!(self.candidate(patterns));
        let panicked = async {
            match self.shared.fate.get() {
                Some(fate) => fate.panicked().await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            candidate = &mut candidate => return candidate,
            event = panicked => event,
        };
        let last = within(AFTER_PANIC, "match", candidate).await;
        last.unwrap_or_else(|_| Err(self.panicked(patterns, event)))
    }

    /// Waits until a match ends in what is unread; takes nothing.
    async fn candidate(&self, patterns: &Patterns) -> Result<Candidate, ConsoleError> {
        let gave_up = |source| ConsoleError::Search { pattern: patterns.to_string(), source };
        let begun = self.with_place(|state, place| state.history.begin(patterns, *place));
        let mut hunt = Box::new(Hunt { patterns: patterns.clone(), cursor: begun.map_err(gave_up)? });
        loop {
            let outcome;
            (hunt, outcome) = match self.hunt(hunt) {
                Hunted::Done(done) => done,
                Hunted::Waits(outcome) => {
                    let mut wait = Wait { shared: &self.shared, outcome };
                    (&mut wait.outcome).await.map_err(|_| self.has_ended_while(patterns))?
                }
            };
            match outcome {
                Outcome::Found(candidate) => return Ok(candidate),
                Outcome::GaveUp(error) => return Err(gave_up(error)),
                Outcome::NotYet => return Err(self.has_ended_while(patterns)),
                Outcome::Unfinished => tokio::task::yield_now().await,
            }
        }
    }

    /// Searches what is unread for a while. When there is nothing more, the search waits, unless the stream has ended.
    fn hunt(&self, mut hunt: Box<Hunt>) -> Hunted {
        self.with_place(|state, place| match hunt.go_on(&state.history, *place) {
            Outcome::NotYet if !state.ended => Hunted::Waits(state.standing.add(hunt, &self.place)),
            outcome => Hunted::Done((hunt, outcome)),
        })
    }

    /// Adds to an end of the stream why it ended, as far as the machine's fate tells. The limit is not for this: that the
    /// stream has ended is known, and how its process did is known in a moment.
    async fn with_cause<T>(&self, outcome: Result<T, ConsoleError>) -> Result<T, ConsoleError> {
        let (what, tail, fate) = match (outcome, self.shared.fate.get()) {
            (Err(ConsoleError::Ended { what, tail, .. }), Some(fate)) => (what, tail, fate),
            (outcome, _) => return outcome,
        };
        let exit = fate.exit().await;
        Err(match fate.panic() {
            Some(event) => ConsoleError::GuestPanicked { what, event, tail },
            None => ConsoleError::Ended { what, exit, tail },
        })
    }

    fn panicked(&self, patterns: &Patterns, event: Value) -> ConsoleError {
        ConsoleError::GuestPanicked { what: patterns.to_string(), event, tail: self.tail(LAST_WORDS) }
    }
}

/// What came of a search in what is there.
enum Hunted {
    Done(Told),
    /// It goes on with what comes.
    Waits(oneshot::Receiver<Told>),
}

/// A match that [`Console::find`] has found and not taken.
#[derive(Debug)]
pub struct Found {
    console: Console,
    patterns: Patterns,
    candidate: Candidate,
    place: Option<Located>,
}

impl Found {
    /// Which of the patterns it is a match of, by its place among them.
    #[must_use]
    pub fn index(&self) -> usize {
        self.candidate.index()
    }

    /// Takes the match with everything before it; `None` if somebody has read the console meanwhile.
    ///
    /// # Errors
    /// [`ConsoleError::Failure`] with what was taken, when it means a failure.
    pub fn take(self) -> Result<Option<Match>, ConsoleError> {
        let Self { console, patterns, candidate, place: located } = self;
        let taken = console.with_place(|_, place| History::take_match(candidate, located, place));
        let Some(found) = taken else { return Ok(None) };
        match patterns.get(found.index).filter(|_| patterns.is_failure(found.index)) {
            None => Ok(Some(found)),
            Some(failure) => Err(ConsoleError::Failure {
                pattern: failure.to_string(),
                what: patterns.to_string(),
                tail: console.tail(LAST_WORDS),
                found: Box::new(found),
            }),
        }
    }
}

/// Finds where in a candidate the match lies, which may take long for an odd pattern.
async fn located(pattern: &Pattern, candidate: Candidate) -> (Candidate, Option<Located>) {
    let pattern = pattern.clone();
    let slow = pattern.is_slow_for(candidate.len());
    let locate = move || {
        let located = candidate.locate(&pattern);
        (candidate, located)
    };
    if slow { aside(locate).await } else { locate() }
}
