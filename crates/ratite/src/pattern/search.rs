//! A search under way.

use std::fmt;

use regex_automata::Anchored;
use regex_automata::Input;
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::Cache;
use regex_automata::hybrid::dfa::DFA;

use crate::pattern::SearchError;

/// A search under way: it has seen some of a stream and waits for more.
///
/// ```
/// let pattern = ratite::Pattern::literal("login:");
/// let mut search = pattern.search();
/// assert_eq!(search.feed(b"host lo")?, None);
/// assert_eq!(search.feed(b"gin: ")?, Some(4));
/// # Ok::<(), ratite::SearchError>(())
/// ```
pub struct Search {
    dfa: DFA,
    cache: Cache,
    state: Option<LazyStateID>,
    found: Option<usize>,
}

/// Where a match ends, and what it is a match of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    /// The offset behind its last byte.
    pub(crate) end: usize,
    /// Which of the patterns it is, by its place among them.
    pub(crate) index: usize,
}

impl Search {
    pub(crate) fn of(dfa: DFA) -> Self {
        let cache = dfa.create_cache();
        Self { dfa, cache, state: None, found: None }
    }

    /// Looks at the next bytes of the stream; the offset in `bytes` behind the byte that completes a match.
    ///
    /// After a match the search is over: begin another.
    ///
    /// # Errors
    /// [`SearchError`] when the automaton gives up on these bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, SearchError> {
        let hit = match self.step(bytes)? {
            Some(hit) => Some(hit),
            None => self.match_at_end()?.map(|index| Hit { end: bytes.len(), index }),
        };
        self.found = hit.map(|hit| hit.index);
        Ok(hit.map(|hit| hit.end))
    }

    /// Which of [`crate::Patterns`] has matched, by its place among them, once [`Search::feed`] has told of a match. If several end
    /// with the same byte it is the first of them.
    #[must_use]
    pub fn found(&self) -> Option<usize> {
        self.found
    }

    /// Looks at the next bytes, behind which there is more already.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Option<Hit>, SearchError> {
        let mut state = self.state()?;
        for (at, byte) in bytes.iter().enumerate() {
            state = self.dfa.next_state(&mut self.cache, state, *byte).map_err(gave_up)?;
            if state.is_tagged() {
                // The automaton tells a match one byte late: this one is behind the match.
                if state.is_match() {
                    return Ok(Some(Hit { end: at, index: self.first_match(state) }));
                }
                if state.is_quit() {
                    return Err(SearchError("the pattern cannot be searched in these bytes".into()));
                }
            }
        }
        self.state = Some(state);
        Ok(None)
    }

    /// What a match that ends behind the last byte is a match of, as long as nothing follows.
    pub(crate) fn match_at_end(&mut self) -> Result<Option<usize>, SearchError> {
        let state = self.state()?;
        let clears = self.cache.clear_count();
        let end = self.dfa.next_eoi_state(&mut self.cache, state).map_err(gave_up)?;
        if self.cache.clear_count() != clears {
            // What was saved means another state now.
            return Err(SearchError("the pattern is too large to be searched in a stream".into()));
        }
        Ok(end.is_match().then(|| self.first_match(end)))
    }

    fn first_match(&self, state: LazyStateID) -> usize {
        let matches = 0..self.dfa.match_len(&self.cache, state);
        let patterns = matches.map(|number| self.dfa.match_pattern(&self.cache, state, number).as_usize());
        patterns.min().unwrap_or_default()
    }

    fn state(&mut self) -> Result<LazyStateID, SearchError> {
        let unanchored = Input::new(b"").anchored(Anchored::No);
        match self.state {
            Some(state) => Ok(state),
            None => self.dfa.start_state_forward(&mut self.cache, &unanchored).map_err(gave_up),
        }
    }
}

fn gave_up(error: impl fmt::Display) -> SearchError {
    SearchError(error.to_string())
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search").field("found", &self.found).finish_non_exhaustive()
    }
}
