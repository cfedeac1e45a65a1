//! Why bytes are not a message, with the bytes.

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes are no UTF-8.
    #[error("byte {at} of a message is not UTF-8: `{excerpt}`")]
    NotUtf8 {
        /// The offset of the first offending byte within the message.
        at: usize,
        /// The bytes around it, escaped.
        excerpt: String,
    },
    /// The text is no JSON.
    #[error("a message is not JSON ({reason}): `{excerpt}`")]
    NotJson {
        /// The parser's word for it, with line and column.
        reason: String,
        /// The message's beginning, escaped.
        excerpt: String,
    },
    /// What arrived cannot begin a message, which is an object.
    #[error("a message does not begin with `{{`: `{excerpt}`")]
    NotAnObject {
        /// What arrived, escaped.
        excerpt: String,
    },
    /// It is JSON, but not what QMP says.
    #[error("a message is not QMP, {reason}: `{excerpt}`")]
    UnexpectedShape {
        /// What is wrong with it.
        reason: String,
        /// The message's beginning, escaped.
        excerpt: String,
    },
    /// It is QMP, but the value in it is not of the type that was asked for.
    #[error("the value is not of the type asked for, {reason}: `{excerpt}`")]
    UnexpectedType {
        /// What is wrong with it.
        reason: String,
        /// The value's beginning, escaped.
        excerpt: String,
    },
    /// It is longer than the limit.
    #[error("a message is longer than the limit of {limit} bytes")]
    TooLong {
        /// The limit in bytes, [`crate::Limits::message`].
        limit: usize,
    },
    /// It is nested more deeply than the limit.
    #[error("a message is nested more than {limit} levels deep")]
    TooDeep {
        /// The limit in levels, [`crate::Limits::depth`].
        limit: usize,
    },
    /// The connection ended in the middle of it.
    #[error("the connection ended within a message: `{excerpt}`")]
    Truncated {
        /// What had arrived of it, escaped.
        excerpt: String,
    },
}

impl Malformed {
    pub(crate) fn not_json(bytes: &[u8], error: &serde_json::Error) -> Self {
        Self::NotJson { reason: error.to_string(), excerpt: excerpt(bytes) }
    }

    pub(crate) fn shape(text: &str, reason: impl Into<String>) -> Self {
        Self::UnexpectedShape { reason: reason.into(), excerpt: excerpt(text.as_bytes()) }
    }
}

/// The beginning of `bytes`, escaped to printable ASCII; what is left out is counted.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 120;
    let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii().to_string();
    match bytes.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}… and {more} bytes more"),
    }
}
