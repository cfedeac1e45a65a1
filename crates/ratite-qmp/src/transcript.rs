//! Every message in both directions, for whoever wants to watch.
//!
//! Without a subscriber a connection does no work for this.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From this side to the peer.
    Sent,
    /// From the peer to this side.
    Received,
}

/// One message as it went over the wire.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TranscriptEntry<'a> {
    /// Which way it went.
    pub direction: Direction,
    /// When it was handed to the socket, or complete on this side; monotonic.
    pub at: Instant,
    /// The message without its line end.
    pub text: &'a str,
}

/// A subscriber to every message of a connection.
///
/// It is called by the connection's own task, in the order of the wire, so it has to be quick: hand the text on and
/// return. If it panics, the connection ends.
#[derive(Clone)]
pub struct Transcript(Arc<dyn Fn(TranscriptEntry<'_>) + Send + Sync>);

impl Transcript {
    /// Calls `subscriber` for each message.
    pub fn new(subscriber: impl Fn(TranscriptEntry<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(subscriber))
    }

    pub(crate) fn note(&self, direction: Direction, text: &str) {
        (self.0)(TranscriptEntry { direction, at: Instant::now(), text });
    }
}

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transcript")
    }
}
