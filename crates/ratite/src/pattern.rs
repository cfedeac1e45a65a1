//! What to look for in a stream of bytes, and the search itself. Pure.
//!
//! A [`Pattern`] is one thing to look for; [`Patterns`] are several at once, some of which mean that it went wrong. A [`Search`]
//! looks at each byte once, whatever pieces the stream comes in; nothing is scanned again when more arrives. It steps an
//! automaton over what may belong to a match, and passes over the rest at memory speed. Only when a match is known to end does an ordinary regex find where it began.

mod automaton;
mod linux;
mod search;
mod set;

use std::fmt;
use std::sync::Arc;

use regex_automata::Input;
use regex_automata::meta::Regex;

use automaton::Automaton;
use automaton::LARGEST;
use automaton::chain;
use automaton::syntax;
pub use search::Search;
pub(crate) use search::Stepped;
pub use set::Patterns;

/// What to look for: a literal, or a regular expression over bytes.
///
/// A search in a stream ends with the first byte that completes a match, so a pattern should end with something
/// definite: `\d+` is found at the first digit. `$` and `\b` take the end of what has arrived so far for the end.
///
/// Regular expressions have the syntax of the `regex` crate without Unicode classes, since a console carries bytes:
/// `.` is any byte but a line feed, `\w` is ASCII.
#[derive(Clone)]
pub struct Pattern(Arc<Compiled>);

struct Compiled {
    text: String,
    expression: String,
    automaton: Automaton,
    regex: Regex,
}

/// A text that is no regular expression, or one too large to compile.
#[derive(Debug, Clone, thiserror::Error)]
#[error("could not compile the pattern `{pattern}`: {reason}")]
pub struct BadPattern {
    pattern: String,
    reason: String,
}

/// Why a search had to be given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not search on: {0}")]
pub struct SearchError(String);

impl From<BadPattern> for SearchError {
    fn from(bad: BadPattern) -> Self {
        Self(bad.reason)
    }
}

impl Pattern {
    /// The most bytes that a literal may have: 256 KiB.
    pub const LONGEST_LITERAL: usize = 256 << 10;

    /// The exact text.
    ///
    /// # Panics
    /// When the text is longer than [`Pattern::LONGEST_LITERAL`].
    pub fn literal(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        assert!(text.len() <= Self::LONGEST_LITERAL, "a literal of {} bytes is too long", text.len());
        Self::compile(format!("`{}`", visible(text)), &escaped(text)).expect("a literal compiles")
    }

    /// A regular expression.
    ///
    /// # Errors
    /// [`BadPattern`] with the place of the mistake.
    pub fn regex(expression: impl AsRef<str>) -> Result<Self, BadPattern> {
        let expression = expression.as_ref();
        Self::compile(format!("/{expression}/"), expression)
            .map_err(|reason| BadPattern { pattern: expression.to_owned(), reason })
    }

    /// What a guest sends back when `text` is typed to it, as [`crate::Console::send_echoed`] waits for it. An editor of a line may
    /// break it where the line is full, and colour it.
    ///
    /// # Errors
    /// [`BadPattern`] when the text is too long to compile, some thousands of characters.
    pub fn echo_of(text: impl AsRef<str>) -> Result<Self, BadPattern> {
        let text = text.as_ref();
        let name = format!("the echo of `{text}`");
        if text.chars().nth(LONGEST_ECHO).is_some() {
            let reason = format!("it has more than {LONGEST_ECHO} characters");
            return Err(BadPattern { pattern: name, reason });
        }
        let characters: Vec<_> =
            text.chars().map(|character| escaped(character.encode_utf8(&mut [0; 4]))).collect();
        Self::compile(name.clone(), &characters.join(BETWEEN_ECHOES))
            .map_err(|reason| BadPattern { pattern: name, reason })
    }

    fn compile(text: String, expression: &str) -> Result<Self, String> {
        let automaton = Automaton::of(&[expression])?;
        let regex = Regex::builder()
            .configure(Regex::config().utf8_empty(false).nfa_size_limit(Some(LARGEST)))
            .syntax(syntax())
            .build(expression)
            .map_err(|error| chain(&error))?;
        Ok(Self(Arc::new(Compiled { text, expression: expression.to_owned(), automaton, regex })))
    }

    /// Begins a search in a stream.
    #[must_use]
    pub fn search(&self) -> Search {
        Search::of(self.0.automaton.clone())
    }

    fn expression(&self) -> &str {
        &self.0.expression
    }

    /// Where the match that ends at `end` in `bytes` lies, and what its groups hold; `None` when its beginning is not in
    /// `bytes` any more. What follows `end` is looked at only by what looks ahead, such as `\b`.
    pub(crate) fn locate(&self, bytes: &[u8], end: usize) -> Option<Located> {
        let mut captures = self.0.regex.create_captures();
        self.0.regex.captures(Input::new(bytes).range(..end), &mut captures);
        let whole = captures.get_match()?;
        let groups =
            captures.iter().skip(1).map(|span| span.map(|span| bytes[span.range()].to_vec())).collect();
        Some(Located { start: whole.start(), groups })
    }

    /// Whether [`Pattern::locate`] may take long for so many bytes: its worst case is the product of the two sizes.
    pub(crate) fn is_slow_for(&self, bytes: usize) -> bool {
        self.0.automaton.dfa.get_nfa().memory_usage().saturating_mul(bytes) > SLOW
    }
}

/// What may be between two characters of an echo: control sequences (ECMA-48), and the blank and line ends of a line that is full.
const BETWEEN_ECHOES: &str = r"(?:\x1b\[[0-?]*[ -/]*[@-~]|(?: ?\r\n?)|\n)*";

/// The most characters whose echo is waited for: a pattern of more takes seconds to compile. A terminal's line has 4096.
const LONGEST_ECHO: usize = 8192;

/// Some milliseconds of an automaton's worst case.
const SLOW: usize = 16 << 20;

/// Where a match lies.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) start: usize,
    pub(crate) groups: Vec<Option<Vec<u8>>>,
}

/// The text with all that means something in a regular expression escaped.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        // Not every punctuation: `\<` and `\>` are the borders of a word.
        if r"\.+*?()|[]{}^$#&-~".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// The text on one line: what controls a terminal is escaped.
fn visible(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

impl From<&str> for Pattern {
    /// The exact text.
    fn from(text: &str) -> Self {
        Self::literal(text)
    }
}

impl From<&Pattern> for Pattern {
    fn from(pattern: &Pattern) -> Self {
        pattern.clone()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.0.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The offset behind the first match in a stream that comes in `pieces`.
    fn find(pattern: &Pattern, pieces: &[&[u8]]) -> Option<usize> {
        let mut search = pattern.search();
        let mut seen = 0;
        for piece in pieces {
            if let Some(at) = search.feed(piece).unwrap() {
                return Some(seen + at);
            }
            seen += piece.len();
        }
        None
    }

    #[test]
    fn a_match_is_found_across_pieces_and_at_their_ends() {
        let pattern = Pattern::literal("login:");

        assert_eq!(find(&pattern, &[b"x lo", b"gi", b"n:"]), Some(8));
        assert_eq!(find(&pattern, &[b"login:", b" "]), Some(6));
        assert_eq!(find(&pattern, &[b"login", b";"]), None);
    }

    #[test]
    fn a_literal_means_itself() {
        for text in ["> ", "<a>", "a.b", "[x]", "$ ", "^", "é", "#!\\", "a|b*+?{}()-&~"] {
            let stream = format!("zz{text}zz");
            assert_eq!(find(&Pattern::literal(text), &[stream.as_bytes()]), Some(2 + text.len()), "{text}");
        }
        assert_eq!(find(&Pattern::literal("a.b"), &[b"axb"]), None);
    }

    #[test]
    fn a_match_ends_with_the_first_byte_that_completes_it() {
        let pattern = Pattern::regex(r"(\d+)x?").unwrap();

        assert_eq!(find(&pattern, &[b"ab", b"12x"]), Some(3));
    }

    #[test]
    fn the_longest_literal_compiles() {
        Pattern::literal("é".repeat(Pattern::LONGEST_LITERAL / 2));
    }

    #[test]
    fn groups_are_told() {
        let pattern = Pattern::regex(r"eth(\d): (up|down)(!)?").unwrap();

        let located = pattern.locate(b"...eth7: down", 13).unwrap();

        assert_eq!(located.start, 3);
        assert_eq!(located.groups, [Some(b"7".to_vec()), Some(b"down".to_vec()), None]);
    }

    #[test]
    fn bytes_that_are_no_text_are_searched_like_others() {
        assert_eq!(find(&Pattern::regex(r"\xff.\x00").unwrap(), &[b"\xfe\xff", b"\x80\x00"]), Some(4));
    }

    #[test]
    fn an_echo_may_be_broken_by_an_editor_of_the_line() {
        let echo = Pattern::echo_of("ls /x").unwrap();

        assert_eq!(find(&echo, &[b"# ls /x"]), Some(7));
        assert_eq!(find(&echo, &[b"# ls \r", b"\n/x"]), Some(9));
        assert_eq!(find(&echo, &[b"# l\x1b[1ms\x1b[0m /x"]), Some(15));
        assert_eq!(find(&echo, &[b"# ls/x"]), None);
    }

    #[test]
    fn an_echo_that_is_too_long_is_refused_before_it_costs_anything() {
        assert!(Pattern::echo_of("e".repeat(4096)).is_ok());

        let error = Pattern::echo_of("é".repeat(10_000_000)).unwrap_err();

        assert_eq!(error.reason, "it has more than 8192 characters");
    }

    #[test]
    fn a_pattern_that_would_take_all_memory_is_refused() {
        assert!(Pattern::regex("((a{1000}){1000}){1000}").is_err());
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let error = Pattern::regex("a(b").unwrap_err().to_string();

        assert!(error.contains("`a(b`") && error.contains("unclosed group"), "{error}");
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_the_match_is_the_same(
            stream in "[ab\n]{0,40}",
            expression in prop::sample::select(vec!["ab", "a+b", "b.a", "(a|bb)b", "^a", "a\nb", "ba{2}"]),
            cuts in prop::collection::vec(1_usize..5, 1..20),
        ) {
            let pattern = Pattern::regex(expression).unwrap();
            let whole = find(&pattern, &[stream.as_bytes()]);
            let mut pieces: Vec<&[u8]> = Vec::new();
            let (mut rest, mut cut) = (stream.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(rest.len().min(*cut.next().unwrap()));
                pieces.push(head);
                rest = tail;
            }
            prop_assert_eq!(find(&pattern, &pieces), whole);
        }
    }
}
