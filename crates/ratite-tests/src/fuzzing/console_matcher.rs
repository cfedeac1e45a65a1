//! A search in a stream that comes in pieces, against an ordinary matcher that is asked about every prefix.
//!
//! An input is: cuts; `l` for a literal or `r` for a regular expression, up to a NUL; the stream.
//!
//! A search ends at the first offset where some match ends. What a pattern sees of the byte behind (for `$` and `\b`) is
//! that byte if it is there; at the end of a piece, where nothing has followed yet, the end of the stream.

use ratite::Pattern;
use regex_automata::Input;
use regex_automata::nfa::thompson;
use regex_automata::nfa::thompson::pikevm::Cache;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::util::syntax;

use crate::fuzzing::pieces::Cuts;

/// Checks that a search ends where the first match does.
///
/// # Panics
/// When a promise is broken.
pub fn console_matcher(data: &[u8]) {
    let (cuts, rest) = Cuts::take(data);
    let Some(nul) = rest.iter().position(|byte| *byte == 0) else { return };
    let (pattern, stream) = (&rest[..nul], &rest[nul + 1..]);
    let Ok(pattern) = str::from_utf8(pattern) else { return };
    // The naive way is quadratic in the stream.
    let stream = &stream[..stream.len().min(300)];
    match pattern.split_at_checked(1) {
        Some(("l", text)) => check_literal(text, stream, &cuts),
        Some(("r", expression)) if expression.len() <= 60 => check_regex(expression, stream, &cuts),
        _ => {}
    }
}

fn check_literal(text: &str, stream: &[u8], cuts: &Cuts) {
    let found = search(&Pattern::literal(text), stream, cuts);

    let starts = 0..=stream.len();
    let first = starts.into_iter().find(|start| stream[*start..].starts_with(text.as_bytes()));
    // Nothing is searched until the first piece comes.
    let expected = first.filter(|_| !stream.is_empty()).map(|start| start + text.len());
    assert_eq!(found, expected, "the literal {text:?} in {}", stream.escape_ascii());
}

fn check_regex(expression: &str, stream: &[u8], cuts: &Cuts) {
    let pattern = match Pattern::regex(expression) {
        Ok(pattern) => pattern,
        Err(bad) => {
            assert!(bad.to_string().contains(expression), "{bad}");
            return;
        }
    };
    let Some(mut naive) = Naive::new(expression) else { panic!("{expression:?} compiles only once") };

    let found = search(&pattern, stream, cuts);

    if naive.steps(stream) < MOST_STEPS {
        let expected = naive.first_end(stream, cuts);
        assert_eq!(found, expected, "/{expression}/ in {}", stream.escape_ascii());
    }
}

fn search(pattern: &Pattern, stream: &[u8], cuts: &Cuts) -> Option<usize> {
    let mut search = pattern.search();
    let mut seen = 0;
    for piece in cuts.pieces(stream) {
        let found = search.feed(piece).expect("no byte is beyond this automaton");
        if let Some(at) = found {
            assert!(at <= piece.len(), "a match behind what was fed");
            return Some(seen + at);
        }
        seen += piece.len();
    }
    None
}

/// What the naive way is given: half a second.
const MOST_STEPS: usize = 20_000_000;

/// The slow matcher, which has no states to confuse.
struct Naive {
    matcher: PikeVM,
    cache: Cache,
}

impl Naive {
    fn new(expression: &str) -> Option<Self> {
        let matcher = PikeVM::builder()
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(thompson::Config::new().utf8(false))
            .build(expression)
            .ok()?;
        let cache = matcher.create_cache();
        Some(Self { matcher, cache })
    }

    /// How often it looks at a state at most.
    fn steps(&self, stream: &[u8]) -> usize {
        self.matcher.get_nfa().states().len() * stream.len().pow(2)
    }

    /// The first offset where a match ends: one by one, with what follows in sight, and at each cut without.
    fn first_end(&mut self, stream: &[u8], cuts: &Cuts) -> Option<usize> {
        let mut begin = 0;
        for piece in cuts.pieces(stream) {
            let end = begin + piece.len();
            for at in begin..end {
                if self.has_match(&stream[..=at], at) {
                    return Some(at);
                }
            }
            if self.has_match(&stream[..end], end) {
                return Some(end);
            }
            begin = end;
        }
        None
    }

    /// Whether a match ends within the first `end` bytes.
    fn has_match(&mut self, bytes: &[u8], end: usize) -> bool {
        let input = Input::new(bytes).span(0..end).earliest(true);
        self.matcher.is_match(&mut self.cache, input)
    }
}
