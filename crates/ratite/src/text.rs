//! What a person would read in the bytes of a console: the text without its escape sequences. Pure.
//!
//! A console's stream is text for a terminal: it moves the cursor, colours, erases, and writes over what it has written.
//! Here it becomes lines, each as it looks when it is complete. What is drawn all over a screen, such as a menu, is for
//! [`crate::Terminal`].

use avt::parser::EdScope;
use avt::parser::ElScope;
use avt::parser::Function;
use avt::parser::Parser;

/// The plain text of a whole piece of console output, with `\n` at the end of each line.
///
/// Escape sequences are gone, a carriage return goes back to the line's start and what follows overwrites it, a backspace
/// goes back by one. Other control characters than tabs are dropped, and what is not UTF-8 becomes `U+FFFD`.
///
/// ```
/// let bytes = b"\x1b[1;32mok\x1b[0m\r\n 10%\r100%\r\n";
/// assert_eq!(ratite::plain_text(bytes), "ok\n100%\n");
/// ```
#[must_use]
pub fn plain_text(bytes: impl AsRef<[u8]>) -> String {
    let mut text = PlainText::new();
    let mut lines = text.feed(bytes.as_ref());
    lines.extend(text.finish());
    lines.concat()
}

/// The same for a stream that comes in pieces, however they are cut. It keeps the line under way, of any length.
///
/// ```
/// let mut text = ratite::PlainText::new();
/// assert_eq!(text.feed(b"one\r\ntw\x1b["), ["one\n"]);
/// assert_eq!(text.feed(b"31mo"), [""; 0]);
/// assert_eq!(text.unfinished(), "two");
/// ```
#[derive(Debug, Default)]
pub struct PlainText {
    decoder: Decoder,
    parser: Parser,
    line: Line,
}

impl PlainText {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes, and returns the lines that they complete, each with its `\n`.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut complete = Vec::new();
        let Self { decoder, parser, line } = self;
        decoder.decode(bytes, |text| {
            for function in text.chars().filter_map(|character| parser.feed(character)) {
                complete.extend(line.obey(&function));
            }
        });
        complete
    }

    /// The line under way, as it looks so far.
    #[must_use]
    pub fn unfinished(&self) -> String {
        self.line.text()
    }

    /// The line under way, if there is one, when nothing more comes.
    #[must_use]
    pub fn finish(mut self) -> Option<String> {
        if self.decoder.is_within() {
            self.line.print(char::REPLACEMENT_CHARACTER);
        }
        let text = self.line.text();
        (!text.is_empty()).then_some(text)
    }
}

/// Where the line of any terminal ends. What a few bytes of a guest could make of a line ends there, too: a character repeated
/// 65535 times, the blanks before a place in a line that was erased.
const WIDEST: usize = 1000;

/// A line, and where in it the next character goes.
#[derive(Debug, Default)]
struct Line {
    characters: Vec<char>,
    column: usize,
    /// After a carriage return, which means nothing before a line feed.
    returned: bool,
}

impl Line {
    /// Does what a terminal would; the line with its end if that completes it.
    fn obey(&mut self, function: &Function) -> Option<String> {
        match function {
            Function::Cr => self.returned = true,
            Function::Lf | Function::Nel => return Some(self.end()),
            _ => self.edit(function),
        }
        None
    }

    fn edit(&mut self, function: &Function) {
        if std::mem::take(&mut self.returned) {
            self.column = 0;
        }
        let end = self.characters.len();
        match function {
            Function::Print(character) if character.is_control() => {}
            Function::Print(character) => self.print(*character),
            Function::Ht => self.print('\t'),
            Function::Rep(times) => {
                let last = self.column.checked_sub(1).and_then(|at| self.characters.get(at)).copied();
                let times = usize::from(*times).max(1).min(WIDEST.saturating_sub(self.column));
                last.into_iter().for_each(|last| (0..times).for_each(|_| self.print(last)));
            }
            Function::Bs => self.column = self.column.saturating_sub(1),
            Function::Cub(columns) => self.column = self.column.saturating_sub(usize::from(*columns).max(1)),
            // Only within what is there: where the screen ends is not known here.
            Function::Cuf(columns) => {
                let right = self.column + usize::from(*columns).max(1);
                self.column = right.min(end.max(self.column));
            }
            Function::Cha(column) => self.column = usize::from(*column).saturating_sub(1).min(end),
            Function::El(ElScope::ToRight) | Function::Ed(EdScope::Below) => {
                self.characters.truncate(self.column);
            }
            Function::El(ElScope::All) | Function::Ed(EdScope::All) => {
                self.characters.clear();
                self.column = self.column.min(WIDEST);
            }
            _ => {}
        }
    }

    fn print(&mut self, character: char) {
        while self.characters.len() < self.column {
            self.characters.push(' ');
        }
        match self.characters.get_mut(self.column) {
            Some(place) => *place = character,
            None => self.characters.push(character),
        }
        self.column += 1;
    }

    fn end(&mut self) -> String {
        let text = self.text() + "\n";
        *self = Self::default();
        text
    }

    /// What was erased by going back and writing blanks over it is not there.
    fn text(&self) -> String {
        let written = match self.characters.get(self.column..) {
            Some(rest) if !self.returned && rest.iter().all(|character| *character == ' ') => self.column,
            _ => self.characters.len(),
        };
        self.characters[..written].iter().collect()
    }
}

/// UTF-8 that comes in pieces, in whose middle a character may be cut.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The beginning of a character, at most three bytes.
    begun: Vec<u8>,
}

impl Decoder {
    /// Hands the text of the next bytes to `take`, piece by piece; what is not UTF-8 as `U+FFFD`.
    pub(crate) fn decode(&mut self, bytes: &[u8], mut take: impl FnMut(&str)) {
        let mut joined = std::mem::take(&mut self.begun);
        joined.extend_from_slice(bytes);
        let mut chunks = joined.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            take(chunk.valid());
            if chunk.invalid().is_empty() {
                continue;
            }
            // Only at the end may more come that makes a character of it.
            if chunks.peek().is_none() && is_beginning(chunk.invalid()) {
                self.begun = chunk.invalid().to_vec();
            } else {
                take("\u{fffd}");
            }
        }
    }

    /// Whether a character has begun and is not complete.
    pub(crate) fn is_within(&self) -> bool {
        !self.begun.is_empty()
    }
}

/// Whether more bytes can make a character of these.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(plain_text(bytes), expected, "{}", bytes.escape_ascii());
    }

    #[test]
    fn escape_sequences_are_gone() {
        check(
            b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\x1b]8;;http://a\x1b\\y\x1b(B\x1b=\x1b[?2004hz",
            "red xyz",
        );
        check(b"guest# \x1b[6n", "guest# ");
        check(b"\x1b[38:2::1:2:3mtrue\x1b[m \x1bP1$r\x1b\\colour", "true colour");
    }

    #[test]
    fn lines_end_with_a_line_feed_however_many_returns_come_before_it() {
        check(b"a\r\nb\nc\r\r\nd  \r\n", "a\nb\nc\nd  \n");
        check(b"a\r\n\r\n", "a\n\n");
    }

    #[test]
    fn a_lone_return_goes_back_to_the_start_of_the_line() {
        check(b" 10%\r 50%\r100%\r\n", "100%\n");
        check(b"a long line\rshort\n", "shortg line\n");
        check(b"a long line\r\x1b[Kshort\n", "short\n");
        check(b"unfinished\r", "unfinished");
    }

    #[test]
    fn a_backspace_goes_back_by_one() {
        check(b"abc\x08\x08X\n", "aXc\n");
        check(b"typed\x08 \x08\x08 \x08\n", "typ\n");
        check(b"\x08\x08a\n", "a\n");
    }

    #[test]
    fn the_cursor_moves_within_the_line() {
        check(b"abcdef\x1b[4DXY\x1b[1Cz\n", "abXYez\n");
        check(b"abc\x1b[2Gx\x1b[999Cd\n", "axcd\n");
        check(b"abc\x1b[2K\rd\n", "d\n");
    }

    #[test]
    fn a_few_bytes_make_no_long_line() {
        check(b"a\x1b[b\x1b[3b\n", "aaaaa\n");
        assert_eq!(plain_text(b"=\x1b[65535b".repeat(1000)).len(), 1000 + 999);

        let far = [b"x".repeat(50_000).as_slice(), b"\x1b[2Ky"].concat();
        assert_eq!(plain_text(far).len(), 1001);
    }

    #[test]
    fn other_control_characters_are_dropped_and_tabs_stay() {
        check(b"a\x07\x00b\x0e\x0fc\td\x7f", "abc\td");
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        check(b"a\xff\xc3(b\xe2\x82", "a\u{fffd}\u{fffd}(b\u{fffd}");
        check("žluťoučký 日本 🦀\r\n".as_bytes(), "žluťoučký 日本 🦀\n");
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_the_text_is_the_same(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..12),
                    prop::sample::select(vec!["\x1b[3", "1m", "\r", "\n", "\x08", "é", "\x1b]0;t", "\x07", "\x1b[2K", "\x1b[5C"])
                        .prop_map(|text| text.as_bytes().to_vec()),
                ],
                0..20,
            ),
        ) {
            let mut text = PlainText::new();
            let mut lines = Vec::new();
            for byte in pieces.concat() {
                lines.extend(text.feed(&[byte]));
            }
            lines.extend(text.finish());

            let whole = plain_text(pieces.concat());

            prop_assert_eq!(lines.concat(), whole);
        }

        #[test]
        fn printable_lines_stay_as_they_are(text in "[ -~é\t]{0,30}(\n[ -~]{0,30}){0,5}") {
            prop_assert_eq!(plain_text(text.replace('\n', "\r\n")), text);
        }
    }
}
