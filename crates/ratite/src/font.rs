//! Fonts for screens of text: 256 glyphs in the order of code page 437. Pure.
//!
//! The three that the VGA's BIOS has are built in; `fonts/README.md` says where they are from.

use std::borrow::Cow;

/// A font for a screen of text: 256 glyphs of code page 437, each of some rows, each of eight pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Font {
    height: u8,
    rows: Cow<'static, [u8]>,
}

/// What stands on an empty screen.
pub(crate) const BLANK: char = ' ';

/// The most rows that a glyph of a VGA has.
const HIGHEST: usize = 32;

impl Font {
    /// A font of a guest's own: all rows of the first glyph, then all of the next, 256 times; a byte a row, the leftmost
    /// pixel in its highest bit. So it is loaded into a VGA, and so fonts without a head are kept in files.
    ///
    /// `None` unless there are as many rows for each glyph, from 1 to 32.
    #[must_use]
    pub fn new(rows: impl Into<Vec<u8>>) -> Option<Self> {
        let rows: Vec<u8> = rows.into();
        let height = rows.len() / 256;
        let fits = rows.len().is_multiple_of(256) && (1..=HIGHEST).contains(&height);
        Some(Self { height: u8::try_from(height).ok().filter(|_| fits)?, rows: rows.into() })
    }

    /// The fonts that the VGA's BIOS has, of 16, 14 and 8 rows.
    #[must_use]
    pub fn built_in() -> [Self; 3] {
        [
            Self { height: 16, rows: Cow::Borrowed(include_bytes!("../fonts/vga-8x16.bin")) },
            Self { height: 14, rows: Cow::Borrowed(include_bytes!("../fonts/vga-8x14.bin")) },
            Self { height: 8, rows: Cow::Borrowed(include_bytes!("../fonts/vga-8x8.bin")) },
        ]
    }

    /// How many rows a glyph has.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height.into()
    }

    /// The rows of a glyph.
    pub(crate) fn glyph(&self, code: u8) -> &[u8] {
        let height = usize::from(self.height);
        &self.rows[usize::from(code) * height..][..height]
    }

    /// The character that is drawn by these rows; of several, ASCII's.
    pub(crate) fn find(&self, rows: &[u8]) -> Option<u8> {
        let ascii = b' '..=b'~';
        ascii.chain(0..=u8::MAX).find(|&code| self.glyph(code) == rows)
    }
}

/// The character that a code stands for. The controls are the pictures that a screen shows for them.
pub(crate) fn character(code: u8) -> char {
    match code {
        0 | 0xff => BLANK,
        1..0x20 => nth(LOW, code - 1),
        0x7f => '⌂',
        0x80.. => nth(HIGH, code - 0x80),
        ascii => ascii.into(),
    }
}

/// Whether a VGA draws a code's last column once more where cells are nine pixels wide, so that lines have no gaps.
pub(crate) fn is_line_graphics(code: u8) -> bool {
    (0xb0..=0xdf).contains(&code)
}

fn nth(characters: &str, index: u8) -> char {
    characters.chars().nth(index.into()).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The codes from 0x01 to 0x1f.
const LOW: &str = "☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼";

/// The codes from 0x80 to 0xfe.
const HIGH: &str = "\
    ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_character() {
        let check = |code, expected| assert_eq!(character(code), expected, "{code:#x}");

        check(0x01, '☺');
        check(0x1f, '▼');
        check(b'A', 'A');
        check(0x81, 'ü');
        check(0xc4, '─');
        check(0xdb, '█');
        check(0xe1, 'ß');
        check(0xfe, '■');
        assert_eq!((LOW.chars().count(), HIGH.chars().count()), (31, 127));
    }

    #[test]
    fn a_font_has_256_glyphs_of_a_height() {
        assert_eq!(Font::new(vec![0; 4096]).map(|font| font.height()), Some(16));
        assert_eq!(Font::built_in().map(|font| font.height()), [16, 14, 8]);
        for wrong in [0, 1, 255, 257, 256 * 33] {
            assert_eq!(Font::new(vec![0; wrong]), None, "{wrong}");
        }
    }
}
