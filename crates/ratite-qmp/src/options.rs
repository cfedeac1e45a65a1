//! How a session is to be run: plain data, given once when it begins.

use std::time::Duration;

use crate::codec::Limits;
use crate::listener::Subscription;
use crate::transcript::Transcript;

/// How a session is to be run.
///
/// ```
/// use ratite_qmp::{EventFilter, Listener, Options};
/// use std::time::Duration;
///
/// let (shutdowns, subscription) = Listener::new(EventFilter::named("SHUTDOWN"));
/// let options = Options::default()
///     .connect_limit(Duration::from_secs(5))
///     .subscribe(subscription);
/// # drop((shutdowns, options));
/// ```
#[derive(Debug)]
pub struct Options {
    pub(crate) limits: Limits,
    pub(crate) connect_limit: Duration,
    pub(crate) command_limit: Duration,
    pub(crate) capabilities: Vec<String>,
    pub(crate) foreseen: Option<Vec<String>>,
    pub(crate) handshake: bool,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) transcript: Option<Transcript>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            connect_limit: Duration::from_secs(30),
            command_limit: Duration::from_secs(60),
            capabilities: vec!["oob".into()],
            foreseen: None,
            handshake: true,
            subscriptions: Vec::new(),
            transcript: None,
        }
    }
}

impl Options {
    /// Bounds what the peer may send.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Bounds connecting, greeting and negotiation together; 30 s by default.
    #[must_use]
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.connect_limit = limit;
        self
    }

    /// Bounds each command that says nothing else; 60 s by default. [`Duration::MAX`] waits for ever.
    #[must_use]
    pub fn command_limit(mut self, limit: Duration) -> Self {
        self.command_limit = limit;
        self
    }

    /// The capabilities to ask for; `oob` by default. What the peer does not offer is left out.
    #[must_use]
    pub fn capabilities<I: IntoIterator<Item: Into<String>>>(mut self, capabilities: I) -> Self {
        self.capabilities = capabilities.into_iter().map(Into::into).collect();
        self
    }

    /// What the peer will offer, where that is known: it is negotiated before its greeting comes, which saves a round trip. A peer
    /// that turns out to offer less is asked again.
    #[must_use]
    pub fn foreseen<I: IntoIterator<Item: Into<String>>>(mut self, offered: I) -> Self {
        self.foreseen = Some(offered.into_iter().map(Into::into).collect());
        self
    }

    /// Sends and expects commands and replies at once, without greeting and negotiation, as the QEMU guest agent
    /// wants it.
    #[must_use]
    pub fn without_handshake(mut self) -> Self {
        self.handshake = false;
        self
    }

    /// Feeds a listener from the first message on, before anything is sent.
    #[must_use]
    pub fn subscribe(mut self, subscription: Subscription) -> Self {
        self.subscriptions.push(subscription);
        self
    }

    /// Shows every message to `transcript`.
    #[must_use]
    pub fn transcript(mut self, transcript: Transcript) -> Self {
        self.transcript = Some(transcript);
        self
    }
}
