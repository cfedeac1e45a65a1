//! What steps over a stream, and what tells where it need not step.

use std::error::Error;

use regex_automata::MatchKind;
use regex_automata::hybrid::dfa::DFA;
use regex_automata::nfa::thompson;
use regex_automata::util::prefilter::Prefilter;
use regex_automata::util::syntax;

/// Tells where in a stream any of some expressions ends. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Automaton {
    pub(super) dfa: DFA,
    /// Finds where a match may begin, many times as fast as the automaton steps; not every expression has such a beginning.
    pub(super) prefilter: Option<Prefilter>,
}

/// The most memory that a search's automaton may take; ordinary patterns need some kilobytes of it.
const CACHE: usize = 16 << 20;

/// The most memory that a compiled pattern may take: without it, `((a{1000}){1000}){1000}` takes all there is.
pub(super) const LARGEST: usize = 16 << 20;

impl Automaton {
    pub(super) fn of(expressions: &[&str]) -> Result<Self, String> {
        // What is no expression is refused below.
        let prefilter = syntax::parse_many_with(expressions, &syntax())
            .ok()
            .and_then(|parsed| Prefilter::from_hirs_prefix(MatchKind::LeftmostFirst, &parsed))
            .filter(is_worth_it);
        let config = DFA::config()
            .match_kind(MatchKind::All)
            .cache_capacity(CACHE)
            .specialize_start_states(prefilter.is_some());
        let dfa = DFA::builder()
            .configure(config)
            .syntax(syntax())
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(LARGEST)))
            .build_many(expressions)
            .map_err(|error| chain(&error))?;
        Ok(Self { dfa, prefilter })
    }

    /// How many of the last bytes the prefilter may pass over though a match begins there.
    pub(super) fn carry(&self) -> usize {
        self.prefilter.as_ref().map_or(0, |prefilter| prefilter.max_needle_len().saturating_sub(1))
    }
}

/// One that looks for single bytes of a set steps over them no faster than an automaton.
fn is_worth_it(prefilter: &Prefilter) -> bool {
    prefilter.is_fast() || prefilter.max_needle_len() > 1
}

pub(super) fn syntax() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false)
}

/// An error with its causes; regex-automata tells the interesting part in a source.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
