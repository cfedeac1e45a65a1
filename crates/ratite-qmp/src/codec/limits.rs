//! How much of a peer's output is taken.

use crate::json::DEFAULT_DEPTH;

/// How much of a peer's output is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message in bytes; 64 MiB by default, never 4 GiB or more. A longer one ends the connection.
    pub message: usize,
    /// The deepest nesting that is turned into values; 2048 levels by default (QEMU itself stops at 1024). A reply
    /// nested more deeply fails its command; its raw text can still be had. Never more than 4096, since a value's depth
    /// costs stack when it is dropped.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message: 64 << 20, depth: DEFAULT_DEPTH }
    }
}
