//! The answer to a command, as it arrived.

mod kept;

use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::command::CommandError;
use crate::envelope::Envelope;
use crate::json::DEFAULT_DEPTH;
use crate::json::from_text;
use crate::malformed::Malformed;
use crate::malformed::excerpt;
use crate::reply::kept::Kept;

/// The answer to a command, as it arrived.
#[derive(Clone)]
pub struct Reply {
    text: Kept,
    id: ReplyId,
    outcome: Outcome,
    depth_limit: usize,
}

/// Whose reply a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyId {
    Ours(u64),
    Foreign,
    Absent,
}

#[derive(Debug, Clone)]
enum Outcome {
    Return(Range<usize>),
    Error(Box<CommandError>),
    Malformed(Malformed),
}

impl Reply {
    /// The reply in `text`, whose envelope was read.
    pub(crate) fn parse(text: &str, envelope: &Envelope) -> Result<Self, Malformed> {
        let id = envelope.id.of(text);
        let (result, error) = (envelope.result, envelope.error.of(text));
        let id = match id {
            None => ReplyId::Absent,
            Some(id) => id.parse().map_or(ReplyId::Foreign, ReplyId::Ours),
        };
        let outcome = match (error, result) {
            // An error counts even beside a "return", as in QEMU's own client.
            (Some(error), _) => match CommandError::parse(text, error) {
                Ok(error) => Outcome::Error(Box::new(error)),
                // It is about a command of ours, and there is no telling which: nobody's reply can be relied on any more.
                Err(malformed) if id == ReplyId::Absent => return Err(malformed),
                Err(malformed) => Outcome::Malformed(malformed),
            },
            (None, result) if result.is_there() => Outcome::Return(result.range()),
            (None, _) => Outcome::Malformed(Malformed::shape(text, "it has neither `return` nor `error`")),
        };
        Ok(Self { text: text.into(), id, outcome, depth_limit: DEFAULT_DEPTH })
    }

    pub(crate) fn id(&self) -> ReplyId {
        self.id
    }

    pub(crate) fn with_depth_limit(mut self, limit: usize) -> Self {
        self.depth_limit = limit;
        self
    }

    /// The whole message, with its `id`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn returned(&self) -> Result<&str, ReplyError> {
        match &self.outcome {
            Outcome::Return(range) => Ok(&self.text[range.clone()]),
            Outcome::Error(error) => Err(ReplyError::Refused((**error).clone())),
            Outcome::Malformed(malformed) => Err(ReplyError::Malformed(malformed.clone())),
        }
    }

    /// The same for who needs nothing else of it.
    pub(crate) fn into_returned(self) -> Result<String, ReplyError> {
        match self.outcome {
            Outcome::Return(range) => Ok(self.text.into_part(range)),
            Outcome::Error(error) => Err(ReplyError::Refused(*error)),
            Outcome::Malformed(malformed) => Err(ReplyError::Malformed(malformed)),
        }
    }

    /// The JSON text of `return`, if the command succeeded.
    #[must_use]
    pub fn return_text(&self) -> Option<&str> {
        self.returned().ok()
    }

    /// What QEMU said instead of succeeding, if it did not.
    #[must_use]
    pub fn error(&self) -> Option<&CommandError> {
        match &self.outcome {
            Outcome::Error(error) => Some(error),
            Outcome::Return(_) | Outcome::Malformed(_) => None,
        }
    }

    /// The whole message as a value, `return` or `error` and `id` included.
    ///
    /// # Errors
    /// [`Malformed`] when it is nested more deeply than the connection's limit, or holds a string that is no Unicode
    /// (a lone surrogate).
    pub fn message(&self) -> Result<Value, Malformed> {
        from_text(&self.text, self.depth_limit)
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, ReplyError> {
        from_text(self.returned()?, self.depth_limit).map_err(ReplyError::Malformed)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply").field(&format_args!("{}", excerpt(self.text.as_bytes()))).finish()
    }
}

impl fmt::Display for Reply {
    /// The whole message as it arrived.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a reply yields no value.
#[derive(Debug)]
pub(crate) enum ReplyError {
    Refused(CommandError),
    Malformed(Malformed),
}
