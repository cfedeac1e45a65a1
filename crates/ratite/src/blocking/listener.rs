//! The twin of [`ratite_qmp::Listener`].

use std::io;
use std::time::Duration;

use ratite_qmp::Event;
use ratite_qmp::EventFilter;
use ratite_qmp::ListenError;
use ratite_qmp::Subscription;

use crate::blocking::wait::Background;

/// A reader of events with a queue of its own; see [`ratite_qmp::Listener`].
#[derive(Debug)]
pub struct Listener {
    inner: ratite_qmp::Listener,
    background: Background,
}

impl Listener {
    pub(super) fn new(inner: ratite_qmp::Listener, background: Background) -> Self {
        Self { inner, background }
    }

    /// A listener, and the half that feeds it; see [`ratite_qmp::Listener::with_capacity`].
    ///
    /// # Errors
    /// When the background threads cannot be started.
    pub fn with_capacity(filter: EventFilter, capacity: usize) -> io::Result<(Self, Subscription)> {
        let (inner, subscription) = ratite_qmp::Listener::with_capacity(filter, capacity);
        Ok((Self::new(inner, Background::start()?), subscription))
    }

    /// Takes the oldest event; see [`ratite_qmp::Listener::next`].
    ///
    /// # Errors
    /// As there.
    pub fn next(&self, limit: Duration) -> Result<Event, ListenError> {
        // What is there is had without a wait, which would cost more: a runtime to enter, and to drive. Within an async one,
        // the call is wrong also when it happens not to wait.
        if !Background::may_be_within_a_runtime()
            && let Some(found) = self.inner.try_next().transpose()
        {
            return found;
        }
        self.background.wait("Listener::next", self.inner.next(limit))
    }

    /// Takes the oldest event if there is one; see [`ratite_qmp::Listener::try_next`].
    ///
    /// # Errors
    /// As there.
    pub fn try_next(&self) -> Result<Option<Event>, ListenError> {
        self.inner.try_next()
    }

    /// Takes the oldest event that `filter` takes; see [`ratite_qmp::Listener::next_matching`].
    ///
    /// # Errors
    /// As there.
    pub fn next_matching(&self, filter: &EventFilter, limit: Duration) -> Result<Event, ListenError> {
        self.background.wait("Listener::next_matching", self.inner.next_matching(filter, limit))
    }

    /// Takes the oldest event that `filter` takes, if there is one; see [`ratite_qmp::Listener::try_next_matching`].
    ///
    /// # Errors
    /// As there.
    pub fn try_next_matching(&self, filter: &EventFilter) -> Result<Option<Event>, ListenError> {
        self.inner.try_next_matching(filter)
    }

    /// Waits until there is an event that `filter` takes; see [`ratite_qmp::Listener::ready`].
    ///
    /// # Errors
    /// As there.
    pub fn ready(&self, filter: &EventFilter, limit: Duration) -> Result<(), ListenError> {
        self.background.wait("Listener::ready", self.inner.ready(filter, limit))
    }

    /// Takes all events that are there; see [`ratite_qmp::Listener::take_all`].
    #[must_use]
    pub fn take_all(&self) -> Vec<Event> {
        self.inner.take_all()
    }

    /// How many events wait to be read; see [`ratite_qmp::Listener::len`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether no event waits to be read; see [`ratite_qmp::Listener::is_empty`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// How many events were dropped; see [`ratite_qmp::Listener::dropped`].
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.inner.dropped()
    }
}
