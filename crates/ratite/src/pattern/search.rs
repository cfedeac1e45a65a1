//! A search under way.

use std::fmt;

use regex_automata::Anchored;
use regex_automata::Span;
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::Cache;
use regex_automata::util::start;

use crate::pattern::SearchError;
use crate::pattern::automaton::Automaton;

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
    automaton: Automaton,
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

/// How far a search came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stepped {
    Hit(Hit),
    /// There is no match in so many bytes; not all, where they were dear.
    Over(usize),
}

/// How many steps that may be dear are taken at once: for each, the automaton may have to think about a large pattern.
const DEAR_STEPS: usize = 256;

impl Search {
    pub(super) fn of(automaton: Automaton) -> Self {
        let cache = automaton.dfa.create_cache();
        Self { automaton, cache, state: None, found: None }
    }

    /// Looks at the next bytes of the stream; the offset in `bytes` behind the byte that completes a match.
    ///
    /// After a match the search is over: begin another.
    ///
    /// # Errors
    /// [`SearchError`] when the automaton gives up on these bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, SearchError> {
        let hit = match self.step_over(bytes)? {
            Some(hit) => Some(hit),
            None => self.match_at_end()?.map(|index| Hit { end: bytes.len(), index }),
        };
        self.found = hit.map(|hit| hit.index);
        Ok(hit.map(|hit| hit.end))
    }

    fn step_over(&mut self, bytes: &[u8]) -> Result<Option<Hit>, SearchError> {
        let mut over = 0;
        while over < bytes.len() {
            match self.step(&bytes[over..])? {
                Stepped::Hit(hit) => return Ok(Some(Hit { end: over + hit.end, ..hit })),
                Stepped::Over(count) => over += count,
            }
        }
        Ok(None)
    }

    /// Which of [`crate::Patterns`] has matched, by its place among them, once [`Search::feed`] has told of a match. If several end
    /// with the same byte it is the first of them.
    #[must_use]
    pub fn found(&self) -> Option<usize> {
        self.found
    }

    /// Looks at the next bytes, behind which there is more already.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Stepped, SearchError> {
        let mut skips = true;
        let mut state = self.state()?;
        let mut at = 0;
        for _ in 0..DEAR_STEPS {
            if skips && state.is_start() {
                let begin = self.next_begin(bytes, at);
                skips = begin.is_some();
                // What begins in the last few bytes may go on in the next piece.
                let begin =
                    begin.unwrap_or_else(|| at.max(bytes.len().saturating_sub(self.automaton.carry())));
                if begin > at {
                    at = begin;
                    state = self.start(Some(bytes[at - 1]))?;
                }
            }
            (state, at) = self.glide(state, bytes, at);
            let Some(byte) = bytes.get(at) else { break };
            state = self.automaton.dfa.next_state(&mut self.cache, state, *byte).map_err(gave_up)?;
            // The automaton tells a match one byte late: this one is behind the match.
            if state.is_match() {
                return Ok(Stepped::Hit(Hit { end: at, index: self.first_match(state) }));
            }
            if state.is_quit() {
                return Err(SearchError("the pattern cannot be searched in these bytes".into()));
            }
            // Nothing that follows can be a match.
            at = if state.is_dead() { bytes.len() } else { at + 1 };
        }
        self.state = Some(state);
        Ok(Stepped::Over(at))
    }

    /// Where from `at` on a match may begin that shows its first few bytes; if there is no way to tell, `at`.
    fn next_begin(&self, bytes: &[u8], at: usize) -> Option<usize> {
        match &self.automaton.prefilter {
            Some(prefilter) => prefilter.find(bytes, Span::from(at..bytes.len())).map(|span| span.start),
            None => Some(at),
        }
    }

    /// Steps from `at` on for as long as nothing has to be thought about.
    fn glide(&self, mut state: LazyStateID, bytes: &[u8], mut at: usize) -> (LazyStateID, usize) {
        if state.is_tagged() {
            return (state, at);
        }
        while let Some(byte) = bytes.get(at) {
            let next = self.automaton.dfa.next_state_untagged(&self.cache, state, *byte);
            if next.is_tagged() {
                break;
            }
            state = next;
            at += 1;
        }
        (state, at)
    }

    /// What a match that ends behind the last byte is a match of, as long as nothing follows.
    pub(crate) fn match_at_end(&mut self) -> Result<Option<usize>, SearchError> {
        let state = self.state()?;
        let clears = self.cache.clear_count();
        let end = self.automaton.dfa.next_eoi_state(&mut self.cache, state).map_err(gave_up)?;
        if self.cache.clear_count() != clears {
            // What was saved means another state now.
            return Err(SearchError("the pattern is too large to be searched in a stream".into()));
        }
        Ok(end.is_match().then(|| self.first_match(end)))
    }

    fn first_match(&self, state: LazyStateID) -> usize {
        let matches = 0..self.automaton.dfa.match_len(&self.cache, state);
        let patterns =
            matches.map(|number| self.automaton.dfa.match_pattern(&self.cache, state, number).as_usize());
        patterns.min().unwrap_or_default()
    }

    fn state(&mut self) -> Result<LazyStateID, SearchError> {
        match self.state {
            Some(state) => Ok(state),
            None => self.start(None),
        }
    }

    /// The state in which a match may begin behind `last`, or with the stream.
    fn start(&mut self, last: Option<u8>) -> Result<LazyStateID, SearchError> {
        let unanchored = start::Config::new().anchored(Anchored::No).look_behind(last);
        self.automaton.dfa.start_state(&mut self.cache, &unanchored).map_err(gave_up)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first match in a stream that comes in `pieces`, of which many bytes are passed over or none.
    fn first(automaton: Automaton, pieces: &[&[u8]]) -> Option<Hit> {
        let mut search = Search::of(automaton);
        let mut seen = 0;
        for piece in pieces {
            if let Some(end) = search.feed(piece).unwrap() {
                return Some(Hit { end: seen + end, index: search.found().unwrap() });
            }
            seen += piece.len();
        }
        None
    }

    #[test]
    fn expressions_that_begin_with_few_texts_pass_over_the_rest() {
        for expressions in [&["login: "][..], &["login: ", "# "], &["kernel (bug|oops)", "panic"]] {
            assert!(Automaton::of(expressions).unwrap().prefilter.is_some(), "{expressions:?}");
        }
        assert!(Automaton::of(&[r"\d+"]).unwrap().prefilter.is_none());
    }

    #[test]
    fn nothing_that_follows_the_only_place_for_a_match_costs_anything() {
        let mut search = Search::of(Automaton::of(&["^a"]).unwrap());

        assert_eq!(search.step(&[b'b'; 100_000]), Ok(Stepped::Over(100_000)));
    }

    proptest! {
        #[test]
        fn what_is_passed_over_is_no_match(
            stream in prop::collection::vec(prop::sample::select(&b"ablog: \n"[..]), 0..200),
            expressions in prop::sample::subsequence(
                vec!["log:", "a", "bb", r"\bab", r"a\b", "(?m)^lo", "^a", "(al|bo)g", "lo+l", "g: $", "aaaa|gg"], 1..4),
            cuts in prop::collection::vec(1_usize..60, 1..20),
        ) {
            let automaton = Automaton::of(&expressions).unwrap();
            let plain = Automaton { prefilter: None, ..automaton.clone() };
            let mut pieces: Vec<&[u8]> = Vec::new();
            let (mut rest, mut cut) = (stream.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(rest.len().min(*cut.next().unwrap()));
                pieces.push(head);
                rest = tail;
            }
            prop_assert_eq!(first(automaton, &pieces), first(plain, &pieces));
        }
    }
}
