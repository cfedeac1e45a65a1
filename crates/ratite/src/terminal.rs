//! A terminal that nobody sees: what a guest has drawn with escape sequences, as lines of text. Pure.

use std::fmt;

use avt::parser::Function;
use avt::parser::Parser;

use crate::text::Decoder;

/// A terminal of so many columns and rows, as an xterm would show it: fed with bytes, read as text.
///
/// It draws what boot loaders, firmware menus, editors and shells draw: cursor movement, scrolling, erasing, line graphics,
/// the alternate screen. It answers no questions. What has scrolled out at the top is gone.
///
/// ```
/// let mut terminal = ratite::Terminal::new(20, 3);
/// terminal.feed(b"\x1b[2;5HBoot menu\x1b[1;1H*");
/// assert_eq!(terminal.lines(), ["*", "    Boot menu", ""]);
/// assert_eq!(terminal.cursor(), Some((1, 0)));
/// ```
pub struct Terminal {
    decoder: Decoder,
    parser: Parser,
    drawn: avt::Terminal,
}

/// The most columns, and the most rows; the memory grows with their product.
const LARGEST: usize = 1000;

fn within_bounds(size: usize) -> usize {
    size.clamp(1, LARGEST)
}

impl Terminal {
    /// An empty one. Of each size 1 to 1000 is possible, and what is beyond becomes the nearest that is.
    #[must_use]
    pub fn new(columns: usize, rows: usize) -> Self {
        let drawn = avt::Terminal::new(within_bounds(columns), within_bounds(rows));
        Self {
            decoder: Decoder::default(),
            parser: Parser::default(),
            drawn: drawn.expect("neither is zero"),
        }
    }

    /// Draws what these bytes say; a character or an escape sequence may be cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Self { decoder, parser, drawn } = self;
        let (columns, rows) = drawn.size();
        let screenful = u16::try_from(columns * rows).unwrap_or(u16::MAX);
        decoder.decode(bytes, |text| {
            // DEL draws nothing.
            for function in text.chars().filter(|c| *c != '\x7f').filter_map(|c| parser.feed(c)) {
                drawn.execute(match function {
                    // Six bytes would draw 65535 characters.
                    Function::Rep(times) => Function::Rep(times.min(screenful)),
                    function => function,
                });
            }
        });
    }

    /// Changes the size, and moves what is drawn as an xterm would.
    pub fn resize(&mut self, columns: usize, rows: usize) {
        self.drawn.resize(within_bounds(columns), within_bounds(rows));
    }

    /// How many columns and rows it has.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.drawn.size()
    }

    /// Its rows from the top, each without the blanks at its end.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let rows = self.drawn.screen().visible_lines();
        rows.map(|row| row.text().trim_end().to_owned()).collect()
    }

    /// The same as one text: the rows down to the last that is not empty, with `\n` between them.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines().join("\n").trim_end_matches('\n').to_owned()
    }

    /// The column and the row of the cursor, counted from 0; `None` while it is hidden.
    #[must_use]
    pub fn cursor(&self) -> Option<(usize, usize)> {
        self.drawn.cursor().position()
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").field("size", &self.size()).field("lines", &self.lines()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_drawn_anywhere_is_read_in_its_place() {
        let mut terminal = Terminal::new(10, 3);

        terminal.feed(b"\x1b[2J\x1b[3;2Hlast\x1b[1;1Hfirst");

        assert_eq!(terminal.lines(), ["first", "", " last"]);
        assert_eq!(terminal.text(), "first\n\n last");
        assert_eq!(terminal.cursor(), Some((5, 0)));
    }

    #[test]
    fn what_does_not_fit_wraps_and_scrolls() {
        let mut terminal = Terminal::new(4, 2);

        terminal.feed(b"abcdefghij");

        assert_eq!(terminal.lines(), ["efgh", "ij"]);
    }

    #[test]
    fn characters_and_sequences_may_be_cut_anywhere() {
        let mut terminal = Terminal::new(10, 1);

        for byte in "é\x1b[1mß\x1b[5G漢".as_bytes() {
            terminal.feed(&[*byte]);
        }

        assert_eq!(terminal.lines(), ["éß  漢"]);
    }

    #[test]
    fn frames_of_line_graphics_are_drawn_and_the_cursor_hides() {
        let mut terminal = Terminal::new(5, 1);

        terminal.feed(b"\x1b(0lqqk\x1b(B\x1b[?25l");

        assert_eq!((terminal.lines(), terminal.cursor()), (vec!["┌──┐".to_owned()], None));
    }

    #[test]
    fn a_character_is_repeated_for_a_screenful_at_most() {
        let mut terminal = Terminal::new(4, 2);

        terminal.feed(b"a\x1b[2b");
        assert_eq!(terminal.lines(), ["aaa", ""]);

        terminal.feed(b"\x1b[65535b");
        assert_eq!(
            (terminal.lines(), terminal.cursor()),
            (vec!["aaaa".into(), "aaa".to_owned()], Some((3, 1)))
        );
    }

    #[test]
    fn odd_sizes_become_possible_ones() {
        let mut terminal = Terminal::new(0, usize::MAX);
        assert_eq!(terminal.size(), (1, 1000));

        terminal.resize(usize::MAX, 0);

        assert_eq!(terminal.size(), (1000, 1));
    }

    fn sequence() -> impl Strategy<Value = Vec<u8>> {
        let csi =
            ("[0-9;:?]{0,12}", "[@-~]").prop_map(|(words, end)| format!("\x1b[{words}{end}").into_bytes());
        let text = "[a-zé漢\u{301}]{0,40}".prop_map(String::into_bytes);
        let escape = "\x1b[ -~]{1,3}".prop_map(String::into_bytes);
        let control = prop::collection::vec(0_u8..0x20, 0..6);
        prop_oneof![csi, text, escape, control, prop::collection::vec(any::<u8>(), 0..40)]
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_size_make_it_panic(
            steps in prop::collection::vec((sequence(), prop::option::weighted(0.2, (0_usize..60, 0_usize..60))), 0..60),
        ) {
            let mut terminal = Terminal::new(13, 7);
            for (bytes, size) in steps {
                terminal.feed(&bytes);
                if let Some((columns, rows)) = size {
                    terminal.resize(columns, rows);
                }
            }
            prop_assert_eq!(terminal.lines().len(), terminal.size().1);
        }
    }
}
