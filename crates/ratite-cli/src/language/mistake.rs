//! What is wrong with what somebody wrote, and what was probably meant.

use std::error::Error;
use std::fmt;

use ratite::qmp::nearest;

/// What is wrong with a line, found before anything was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// What is wrong, as one line that names the thing.
    pub(crate) what: String,
    /// What was probably meant, or may stand there.
    pub(crate) hint: Option<String>,
}

impl Mistake {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// Adds the word among `known` that `word` was probably meant to be, or all of them if they are few.
    pub(crate) fn among<'a>(self, word: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let mut known: Vec<&str> = known.collect();
        known.sort_unstable();
        known.dedup();
        let hint = match nearest(word, known.iter().copied()) {
            Some(nearest) => Some(format!("did you mean `{nearest}`?")),
            None if (1..=FEW).contains(&known.len()) => Some(format!("there is `{}`", known.join("`, `"))),
            None => None,
        };
        Self { hint, ..self }
    }
}

/// How many words are few enough to be listed.
const FEW: usize = 12;

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "{}; {hint}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl Error for Mistake {}
