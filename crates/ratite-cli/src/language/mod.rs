//! The language of `ratite cmd` and `ratite shell`: words, dotted keys and values, read by what QEMU says of its own
//! commands. All of it is pure.
//!
//! ```text
//! line ─► words ─► tree (dotted keys) ─► reader (the schema's types, or guesses) ─► Request
//! ```

mod complete;
mod literal;
mod mistake;
mod reader;
#[cfg(test)]
mod tests;
mod tree;
mod words;

pub(crate) use complete::Candidate;
pub(crate) use complete::Completion;
pub(crate) use complete::complete;
pub(crate) use mistake::Mistake;
pub(crate) use reader::Reader;
pub(crate) use reader::Request;
pub(crate) use words::Word;
pub(crate) use words::split;
