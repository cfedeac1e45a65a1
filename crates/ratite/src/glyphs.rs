//! Reads a screen of text by its glyphs: a picture is cut into cells, and each cell's pixels are looked up in a font. Pure.
//!
//! Exact: a cell is a character only if all of its pixels are that character's, in two colours. What is in no font is U+FFFD,
//! and never guessed at.

use std::collections::HashMap;

use crate::font::BLANK;
use crate::font::Font;
use crate::font::character;
use crate::font::is_line_graphics;
use crate::pattern::Pattern;
use crate::picture::Picture;

/// What a screen of text shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenText {
    columns: usize,
    cells: Vec<Cell>,
    cursor: Option<(usize, usize)>,
}

/// One character on a screen, with its colours as red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The character; U+FFFD for pixels that are in no font.
    pub character: char,
    /// The colour it is drawn in; that of a blank is its background.
    pub foreground: [u8; 3],
    /// The colour behind it.
    pub background: [u8; 3],
}

/// What stands for pixels that are in no font.
const UNKNOWN: char = char::REPLACEMENT_CHARACTER;

impl ScreenText {
    /// Reads a picture with the fonts of the VGA's BIOS: 8, 14 and 16 rows a glyph, 8, 9 or 16 pixels wide.
    ///
    /// `None` if the picture is no screen of text: if more than half of what is not blank in it is in no font. Text that a
    /// guest draws itself, such as Linux on a framebuffer, is read if its glyphs are those of the VGA.
    #[must_use]
    pub fn read(picture: &Picture) -> Option<Self> {
        Self::read_with(picture, &Font::built_in())
    }

    /// Reads a picture with other fonts, of guests that load their own.
    #[must_use]
    pub fn read_with(picture: &Picture, fonts: &[Font]) -> Option<Self> {
        let usual = usual_colour(picture);
        let grids = fonts.iter().flat_map(|font| WIDTHS.map(|width| Grid { picture, usual, font, width }));
        let mut best: Option<Self> = None;
        for text in grids.filter(Grid::fits).map(|grid| grid.read()) {
            if best.as_ref().is_none_or(|best| text.share_unknown() < best.share_unknown()) {
                best = Some(text);
            }
            // Nothing reads better. Of a blank screen, only the number of its lines is a matter of the font.
            if best.as_ref().is_some_and(|best| best.unknown() == 0) {
                break;
            }
        }
        best.filter(|best| best.unknown() * 2 <= best.drawn())
    }

    /// How many characters a line has.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many lines there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.cells.len() / self.columns
    }

    /// A character with its colours; both numbers from 0 on. `None` outside.
    #[must_use]
    pub fn cell(&self, column: usize, row: usize) -> Option<Cell> {
        let inside = column < self.columns && row < self.rows();
        inside.then(|| self.cells[row * self.columns + column])
    }

    /// Column and row of the cursor, both from 0 on, if it is there to be seen: it blinks, and a cursor of a whole cell looks
    /// like a blank.
    #[must_use]
    pub fn cursor(&self) -> Option<(usize, usize)> {
        self.cursor
    }

    /// The lines, from top to bottom, without the blanks at their ends.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let text = |cells: &[Cell]| cells.iter().map(|cell| cell.character).collect::<String>();
        self.cells.chunks(self.columns).map(|cells| text(cells).trim_end().to_owned()).collect()
    }

    /// All lines, each with a line feed behind it, but for the empty ones at the end.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.lines().join("\n");
        let text = lines.trim_end_matches('\n');
        if text.is_empty() { String::new() } else { format!("{text}\n") }
    }

    /// Whether `pattern` is in the text: in [`ScreenText::text`], or in the lines with all blanks at their ends.
    #[must_use]
    pub fn contains(&self, pattern: &Pattern) -> bool {
        let whole = self
            .cells
            .chunks(self.columns)
            .flat_map(|line| line.iter().map(|cell| cell.character).chain(['\n']));
        let is_in = |text: &str| pattern.locate(text.as_bytes(), text.len()).is_some();
        is_in(&self.text()) || is_in(&whole.collect::<String>())
    }

    /// How many cells are in no font.
    #[must_use]
    pub fn unknown(&self) -> usize {
        self.cells.iter().filter(|cell| cell.character == UNKNOWN).count()
    }

    /// How many thousandths of what is not blank are unknown.
    fn share_unknown(&self) -> usize {
        self.unknown() * 1000 / self.drawn().max(1)
    }

    /// How many cells are not blank.
    fn drawn(&self) -> usize {
        self.cells.iter().filter(|cell| cell.character != BLANK).count()
    }
}

/// How wide cells are: with the ninth column of the VGA's text modes, without it, and doubled in those of 40 columns.
const WIDTHS: [u32; 3] = [9, 8, 16];

/// A picture, cut into cells of a width for a font.
struct Grid<'a> {
    picture: &'a Picture,
    /// The colour that most of its pixels have.
    usual: [u8; 3],
    font: &'a Font,
    width: u32,
}

/// The pixels of a cell: which are of the one colour, and which of the other.
struct Inked {
    /// A bit a pixel, the leftmost highest; of a row, the lowest `width` bits count.
    rows: Vec<u16>,
    /// The colour of bits that are 0: that of the left upper pixel.
    zero: [u8; 3],
    /// The colour of bits that are 1; `None` if there is but one colour.
    one: Option<[u8; 3]>,
}

/// A cell that shows a character; `cursor` if there is one over it.
struct Reading {
    cell: Cell,
    cursor: bool,
}

impl Grid<'_> {
    fn columns(&self) -> u32 {
        self.picture.width() / self.width
    }

    fn rows(&self) -> u32 {
        self.picture.height() / self.font.height()
    }

    /// Text modes fill the screen; only what draws 8 pixels wide on any framebuffer leaves a rest.
    fn fits(&self) -> bool {
        let (width, height) = (self.picture.width(), self.picture.height());
        let whole = width.is_multiple_of(self.width) && height.is_multiple_of(self.font.height());
        self.columns() > 0 && self.rows() > 0 && (whole || self.width == 8)
    }

    fn read(&self) -> ScreenText {
        let places = (0..self.rows()).flat_map(|row| (0..self.columns()).map(move |column| (column, row)));
        let mut readings: Vec<Reading> = places.map(|(column, row)| self.read_cell(column, row)).collect();
        let columns = self.columns() as usize;
        let cursors: Vec<usize> = (0..readings.len()).filter(|&at| readings[at].cursor).collect();
        let cursor = match cursors[..] {
            [at] => Some((at % columns, at / columns)),
            // There is only one, so none of these is it.
            _ => {
                cursors.iter().for_each(|&at| readings[at].cell.character = UNKNOWN);
                None
            }
        };
        ScreenText { columns, cells: readings.into_iter().map(|reading| reading.cell).collect(), cursor }
    }

    fn read_cell(&self, column: u32, row: u32) -> Reading {
        let Some(inked) = self.inked(column, row) else {
            let colour = self.colour(column, row, 0, 0);
            let cell = Cell { character: UNKNOWN, foreground: colour, background: colour };
            return Reading { cell, cursor: false };
        };
        let Inked { rows, zero, one: Some(one) } = inked else {
            let cell = Cell { character: BLANK, foreground: inked.zero, background: inked.zero };
            return Reading { cell, cursor: false };
        };
        let inverse: Vec<u16> = rows.iter().map(|row| !row & self.mask()).collect();
        let mut ways = [(rows, one, zero), (inverse, zero, one)];
        // `▀` in white on black has the pixels of `▄` in black on white: the usual background decides, or else the darker.
        let is_unusual = |background: [u8; 3]| (background != self.usual, brightness(background));
        ways.sort_by_key(|&(_, _, background)| is_unusual(background));
        let read = |character: Option<char>, way: &(Vec<u16>, [u8; 3], [u8; 3]), cursor| {
            let cell = Cell { character: character?, foreground: way.1, background: way.2 };
            Some(Reading { cell, cursor })
        };
        let plain = || ways.iter().find_map(|way| read(self.look_up(&way.0), way, false));
        let below_cursor = || ways.iter().find_map(|way| read(self.look_below_cursor(&way.0), way, true));
        let [_, (_, foreground, background)] = &ways;
        let unknown = Cell { character: UNKNOWN, foreground: *background, background: *foreground };
        plain().or_else(below_cursor).unwrap_or(Reading { cell: unknown, cursor: false })
    }

    fn colour(&self, column: u32, row: u32, x: u32, y: u32) -> [u8; 3] {
        let (x, y) = (column * self.width + x, row * self.font.height() + y);
        self.picture.pixel(x, y).expect("a cell lies in the picture")
    }

    fn mask(&self) -> u16 {
        u16::MAX >> (16 - self.width)
    }

    /// The pixels of a cell; `None` if they have more than two colours.
    fn inked(&self, column: u32, row: u32) -> Option<Inked> {
        let zero = self.colour(column, row, 0, 0);
        let mut one = None;
        let mut rows = Vec::with_capacity(self.font.height() as usize);
        for y in 0..self.font.height() {
            let mut bits = 0;
            for x in 0..self.width {
                let colour = self.colour(column, row, x, y);
                let is_one = colour != zero;
                if is_one && *one.get_or_insert(colour) != colour {
                    return None;
                }
                bits = bits << 1 | u16::from(is_one);
            }
            rows.push(bits);
        }
        Some(Inked { rows, zero, one })
    }

    /// The character that is drawn by exactly these pixels.
    fn look_up(&self, rows: &[u16]) -> Option<char> {
        let glyph: Option<Vec<u8>> = rows.iter().map(|&row| self.glyph_row(row)).collect();
        let code = self.font.find(&glyph?)?;
        self.is_drawn_as(code, rows, |_| true).then(|| character(code))
    }

    /// The same below a cursor: of rows that are all drawn, some that touch each other may hide what is below. One character
    /// has to fit, or a blank.
    fn look_below_cursor(&self, rows: &[u16]) -> Option<char> {
        let is_full = |at: usize| rows[at] == self.mask();
        let mut fitting = Vec::new();
        for start in (0..rows.len()).filter(|&at| is_full(at)) {
            let ends = (start..rows.len()).take_while(|&at| is_full(at));
            for end in ends {
                let is_seen = |at: usize| !(start..=end).contains(&at);
                fitting.extend(
                    (0..=u8::MAX).filter(|&code| self.is_drawn_as(code, rows, is_seen)).map(character),
                );
            }
        }
        fitting.sort_unstable();
        fitting.dedup();
        match fitting[..] {
            [only] => Some(only),
            _ => fitting.contains(&BLANK).then_some(BLANK),
        }
    }

    /// Whether the rows that are `seen` are those of a character.
    fn is_drawn_as(&self, code: u8, rows: &[u16], seen: impl Fn(usize) -> bool) -> bool {
        let glyph = self.font.glyph(code);
        (0..rows.len()).filter(|&at| seen(at)).all(|at| self.widened(code, glyph[at]).contains(&rows[at]))
    }

    /// What a row of a glyph looks like in a cell of this width. The ninth column is blank; of line graphics it repeats the
    /// eighth, unless the guest has turned that off.
    fn widened(&self, code: u8, row: u8) -> [u16; 2] {
        let plain = u16::from(row);
        match self.width {
            9 if is_line_graphics(code) => [plain << 1 | plain & 1, plain << 1],
            9 => [plain << 1; 2],
            16 => [(0..8).fold(0, |wide, bit| wide | ((plain >> bit & 1) * 3) << (2 * bit)); 2],
            _ => [plain; 2],
        }
    }

    /// The row of a glyph that a row of a cell may be.
    fn glyph_row(&self, row: u16) -> Option<u8> {
        let narrow = match self.width {
            9 => row >> 1,
            16 => (0..8).fold(0, |narrow, bit| narrow | (row >> (2 * bit) & 1) << bit),
            _ => row,
        };
        u8::try_from(narrow).ok()
    }
}

fn brightness(colour: [u8; 3]) -> u32 {
    colour.into_iter().map(u32::from).sum()
}

/// The colour that most pixels have.
fn usual_colour(picture: &Picture) -> [u8; 3] {
    let mut counts: HashMap<[u8; 3], usize> = HashMap::new();
    for pixel in picture.rgb().chunks_exact(3) {
        *counts.entry([pixel[0], pixel[1], pixel[2]]).or_default() += 1;
    }
    // Of two that are as many, always the same one.
    counts.into_iter().max_by_key(|&(colour, count)| (count, colour)).map_or([0; 3], |(colour, _)| colour)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHITE: [u8; 3] = [168; 3];
    const BLACK: [u8; 3] = [0; 3];
    const BLUE: [u8; 3] = [0, 0, 168];

    /// What a guest has put on its screen: a code and two colours a cell.
    struct Drawn {
        columns: u32,
        width: u32,
        font: Font,
        cells: Vec<(u8, [u8; 3], [u8; 3])>,
        /// Which cell has the cursor, and in which rows of it.
        cursor: Option<(usize, std::ops::RangeInclusive<u32>)>,
    }

    fn drawn(columns: u32, width: u32, font: Font, text: &[u8]) -> Drawn {
        Drawn {
            columns,
            width,
            font,
            cells: text.iter().map(|&code| (code, WHITE, BLACK)).collect(),
            cursor: None,
        }
    }

    impl Drawn {
        /// Draws as QEMU does.
        fn picture(&self) -> Picture {
            let (width, height) = (self.width, self.font.height());
            let rows = self.cells.len() as u32 / self.columns;
            let mut rgb = Vec::new();
            for y in 0..rows * height {
                for x in 0..self.columns * width {
                    let at = (y / height * self.columns + x / width) as usize;
                    let (code, foreground, background) = self.cells[at];
                    let (column, row) = (x % width, y % height);
                    let bits = self.font.glyph(code)[row as usize];
                    let on = match (width, column) {
                        (9, 8) => bits & 1 == 1 && (0xb0..=0xdf).contains(&code),
                        (16, _) => bits << (column / 2) & 0x80 != 0,
                        _ => bits << column & 0x80 != 0,
                    };
                    let cursor =
                        self.cursor.as_ref().is_some_and(|(cell, rows)| *cell == at && rows.contains(&row));
                    rgb.extend(if on || cursor { foreground } else { background });
                }
            }
            Picture::from_rgb(self.columns * width, rows * height, rgb).unwrap()
        }
    }

    fn read(drawn: &Drawn) -> ScreenText {
        ScreenText::read(&drawn.picture()).unwrap()
    }

    fn vga_16() -> Font {
        Font::built_in()[0].clone()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn whatever_is_drawn_is_read(
            codes in proptest::collection::vec(any::<u8>(), 40),
            width in proptest::sample::select(&WIDTHS[..]),
            font in 0..3usize,
        ) {
            // Cells of a single glyph's inverse would be as well the other one.
            let codes: Vec<u8> = codes.into_iter().filter(|code| !matches!(code, 0x08 | 0x0a | 0xdb | 0xdd | 0xde | 0xdc | 0xdf | 0x07 | 0x09)).collect();
            let mut text = codes.clone();
            text.resize(160, b' ');
            let font = Font::built_in()[font].clone();

            let read = ScreenText::read_with(&drawn(40, width, font.clone(), &text).picture(), &[font]).unwrap();

            let (read, expected) = (read.text(), codes.iter().map(|&code| character(code)).collect::<String>());
            prop_assert_eq!(read.trim_end(), expected.trim_end());
        }
    }

    #[test]
    fn every_glyph_of_the_fonts_is_read_in_its_place() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for font in Font::built_in() {
            for width in WIDTHS {
                let mut drawn = drawn(32, width, font.clone(), &all);
                drawn.cells.extend([(b' ', WHITE, BLACK); 256]);

                let text = ScreenText::read_with(&drawn.picture(), std::slice::from_ref(&font)).unwrap();

                for code in 0..=u8::MAX {
                    let read = text.cell(usize::from(code) % 32, usize::from(code) / 32).unwrap().character;
                    // One colour is a blank, be it drawn or not.
                    let expected = if code == 0xdb { BLANK } else { character(code) };
                    assert_eq!(read, expected, "{code:#x}, {width} wide");
                }
            }
        }
    }

    #[test]
    fn the_geometry_is_found_by_what_can_be_read() {
        let check = |columns, rows: usize, width, font: Font| {
            let mut text = b"A:\\>dir /w".to_vec();
            text.resize(columns * rows, b' ');
            let text = read(&drawn(u32::try_from(columns).unwrap(), width, font, &text));
            assert_eq!((text.columns(), text.rows()), (columns, rows), "{width} wide");
            assert_eq!(text.text(), "A:\\>dir /w\n");
        };
        let [vga_16, vga_14, vga_8] = Font::built_in();

        check(80, 25, 9, vga_16.clone());
        check(80, 25, 8, vga_16.clone());
        check(40, 25, 16, vga_16);
        check(80, 28, 9, vga_14);
        check(80, 50, 9, vga_8);
    }

    #[test]
    fn colours_are_told_and_do_not_hide_the_text() {
        let mut drawn = drawn(4, 9, vga_16(), b"ab  cd  ef  ");
        drawn.cells[0] = (b'a', BLUE, WHITE);

        let text = read(&drawn);

        assert_eq!(text.lines(), ["ab", "cd", "ef"]);
        assert!(["ab\ncd", "ab  \ncd", "ef "].iter().all(|shown| text.contains(&Pattern::literal(shown))));
        assert!(!text.contains(&Pattern::literal("abcd")));
        assert_eq!(text.cell(0, 0), Some(Cell { character: 'a', foreground: BLUE, background: WHITE }));
        assert_eq!(text.cell(1, 0), Some(Cell { character: 'b', foreground: WHITE, background: BLACK }));
        assert_eq!(text.cell(4, 0), None);
    }

    #[test]
    fn a_cursor_hides_nothing_that_can_be_told() {
        let check = |code: u8, rows, expected| {
            let mut drawn = drawn(4, 9, vga_16(), &[b'x', code, b' ', b'y', b' ', b' ', b' ', b' ']);
            drawn.cursor = Some((1, rows));
            let text = read(&drawn);
            let seen = text.cell(1, 0).map(|cell| cell.character);
            assert_eq!((seen, text.cursor()), (Some(expected), Some((1, 0))), "{:?}", text.lines());
        };

        check(b' ', 14..=15, ' ');
        check(b' ', 13..=14, ' ');
        check(b'a', 13..=14, 'a');
        check(b'_', 14..=15, '_');
        check(b'#', 0..=3, '#');
    }

    #[test]
    fn what_is_in_no_font_is_unknown_and_a_picture_is_no_text() {
        let mut drawn = drawn(4, 8, vga_16(), b"text here   ");
        let picture = drawn.picture();
        let mut rgb = picture.rgb().to_vec();
        // A pixel that no `t` has.
        rgb[0] ^= 0xff;
        let spoilt = Picture::from_rgb(picture.width(), picture.height(), rgb).unwrap();
        let noise: Vec<u8> =
            (0..320 * 200 * 3_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();

        let text = ScreenText::read(&spoilt).unwrap();

        assert_eq!((text.lines()[0].as_str(), text.unknown()), ("\u{fffd}ext", 1));
        assert_eq!(ScreenText::read(&Picture::from_rgb(320, 200, noise).unwrap()), None);
        drawn.cells.iter_mut().for_each(|cell| cell.0 = b' ');
        assert_eq!(read(&drawn).text(), "");
    }
}
