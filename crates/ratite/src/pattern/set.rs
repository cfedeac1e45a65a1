//! Several patterns that are looked for at once.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;

use crate::pattern::Pattern;
use crate::pattern::Search;
use crate::pattern::SearchError;
use crate::pattern::automaton::Automaton;

/// Several patterns that are looked for at once, in one pass over the stream; some may mean that it went wrong.
///
/// The first match in the stream counts. If several end with the same byte, it is that of the pattern that was named first,
/// and what is wanted comes before what means a failure. Anything that is a [`Pattern`] is also a set of one; arrays and
/// vectors are sets without failures. Cheap to clone; to compile a set takes a moment, so keep one that is used often.
///
/// ```
/// use ratite::{Pattern, Patterns};
///
/// let prompt = Patterns::any(["login: ", "# "]).failing_on(Pattern::linux_failures());
/// assert_eq!(prompt.to_string(), "`login: ` or `# `");
/// ```
#[derive(Clone)]
pub struct Patterns(Arc<Set>);

#[derive(Clone)]
struct Set {
    /// The wanted ones first.
    patterns: Vec<Pattern>,
    wanted: usize,
    /// Made when it is first needed.
    automaton: OnceLock<Result<Automaton, SearchError>>,
}

impl Patterns {
    /// Any one of `patterns`.
    pub fn any<I: IntoIterator<Item: Into<Pattern>>>(patterns: I) -> Self {
        let patterns: Vec<_> = patterns.into_iter().map(Into::into).collect();
        Self(Arc::new(Set { wanted: patterns.len(), patterns, automaton: OnceLock::new() }))
    }

    /// The same, but each of `failures` ends the search, too, as a failure.
    #[must_use]
    pub fn failing_on<I: IntoIterator<Item: Into<Pattern>>>(self, failures: I) -> Self {
        let mut patterns = self.0.patterns.clone();
        patterns.extend(failures.into_iter().map(Into::into));
        Self(Arc::new(Set { patterns, wanted: self.0.wanted, automaton: OnceLock::new() }))
    }

    /// How many patterns are wanted; the failures are counted on from there.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.0.wanted
    }

    /// The pattern at this place, the wanted ones first, each in the order in which it was named.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Pattern> {
        self.0.patterns.get(index)
    }

    /// Whether the pattern at this place means a failure.
    #[must_use]
    pub fn is_failure(&self, index: usize) -> bool {
        index >= self.0.wanted
    }

    /// Begins a search in a stream.
    ///
    /// # Errors
    /// [`SearchError`] when the patterns together are too large to be compiled: 16 MiB, though each by itself is not.
    pub fn search(&self) -> Result<Search, SearchError> {
        if let [only] = self.0.patterns.as_slice() {
            return Ok(only.search());
        }
        let compile = || {
            let expressions: Vec<_> = self.0.patterns.iter().map(Pattern::expression).collect();
            Automaton::of(&expressions).map_err(SearchError)
        };
        self.0.automaton.get_or_init(compile).clone().map(Search::of)
    }
}

impl<P: Into<Pattern>> From<P> for Patterns {
    fn from(pattern: P) -> Self {
        Self::any([pattern])
    }
}

impl<P: Into<Pattern>, const N: usize> From<[P; N]> for Patterns {
    fn from(patterns: [P; N]) -> Self {
        Self::any(patterns)
    }
}

impl<P: Into<Pattern>> From<Vec<P>> for Patterns {
    fn from(patterns: Vec<P>) -> Self {
        Self::any(patterns)
    }
}

impl From<&Patterns> for Patterns {
    fn from(patterns: &Patterns) -> Self {
        patterns.clone()
    }
}

impl fmt::Display for Patterns {
    /// What is wanted; failures are nothing that is waited for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.patterns[..self.0.wanted] {
            [] => f.write_str("a failure"),
            [only] => only.fmt(f),
            [first, others @ .., last] => {
                first.fmt(f)?;
                others.iter().try_for_each(|other| write!(f, ", {other}"))?;
                write!(f, " or {last}")
            }
        }
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wanted, failures) = self.0.patterns.split_at(self.0.wanted);
        f.debug_struct("Patterns").field("wanted", &wanted).field("failures", &failures).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which pattern matches first in a stream that comes byte by byte, and where it ends.
    #[track_caller]
    fn first(patterns: &Patterns, stream: &str) -> Option<(usize, usize)> {
        let mut search = patterns.search().unwrap();
        for (at, byte) in stream.bytes().enumerate() {
            if let Some(end) = search.feed(&[byte]).unwrap() {
                return Some((search.found().unwrap(), at + end));
            }
        }
        None
    }

    #[test]
    fn the_first_match_in_the_stream_counts() {
        let patterns = Patterns::any(["login:", "# "]).failing_on(["panic"]);

        assert_eq!(first(&patterns, "host login: # "), Some((0, 11)));
        assert_eq!(first(&patterns, "/ # login:"), Some((1, 4)));
        assert_eq!(first(&patterns, "a panic login:"), Some((2, 7)));
        assert_eq!(first(&patterns, "nothing"), None);
        assert!(patterns.is_failure(2) && !patterns.is_failure(1));
    }

    #[test]
    fn of_matches_with_the_same_end_the_first_that_was_named_counts() {
        let patterns = Patterns::any(["b", "ab"]);
        assert_eq!(first(&patterns, "ab"), Some((0, 2)));

        let patterns = Patterns::any(["ab"]).failing_on(["b"]);
        assert_eq!(first(&patterns, "ab"), Some((0, 2)));
    }

    #[test]
    fn nothing_matches_a_set_of_nothing() {
        let nothing: [Pattern; 0] = [];
        assert_eq!(first(&Patterns::any(nothing), "anything"), None);
    }

    #[test]
    fn a_set_that_is_too_large_says_so() {
        let large = Pattern::regex("(a{1000}){80}").unwrap();
        let patterns = Patterns::any(vec![large; 10]);

        assert!(patterns.search().is_err());
    }

    #[test]
    fn a_set_names_what_is_wanted() {
        assert_eq!(Patterns::any(["a", "b", "c"]).failing_on(["d"]).to_string(), "`a`, `b` or `c`");
        assert_eq!(Patterns::from("a").to_string(), "`a`");
    }
}
