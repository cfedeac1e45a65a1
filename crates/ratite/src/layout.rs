//! Keyboard layouts: which keys type a text in a guest that has the layout. Pure.
//!
//! QEMU's keys are places of a US keyboard; what a place types is the guest's affair. So the layout has to be the guest's.

use std::fmt;
use std::str::FromStr;

use crate::keys::Keys;

/// The layout of the keyboard that a guest believes it has. By default that of the USA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Layout {
    /// `us`: the USA's.
    #[default]
    Us,
    /// `uk` or `gb`: the United Kingdom's.
    Uk,
    /// `de`: Germany's.
    De,
    /// `fr`: France's.
    Fr,
}

/// A text that is no layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no keyboard layout is called `{0}`; there are us, uk, de and fr")]
pub struct UnknownLayout(pub String);

/// A character that a layout cannot type; nothing of its text was typed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "could not type {character:?}, character {place} of the text, with the keyboard layout {layout}{why}"
)]
pub struct Untypable {
    /// The character.
    pub character: char,
    /// Which of the text's it is, from 1 on.
    pub place: usize,
    /// The layout.
    pub layout: Layout,
    why: &'static str,
}

impl Layout {
    /// The keys that type `text`, a combination for each character. A line feed is the return key, and a tabulator its key.
    ///
    /// # Errors
    /// [`Untypable`] with the first character that has no key. Accents that wait for a letter (dead keys) have none.
    pub fn keys(self, text: &str) -> Result<Vec<Keys>, Untypable> {
        let typed = |(index, character)| {
            self.key(character).ok_or_else(|| Untypable {
                character,
                place: index + 1,
                layout: self,
                why: if self.dead().contains(character) { ", where its key waits for a letter" } else { "" },
            })
        };
        text.chars().enumerate().map(typed).collect()
    }

    fn key(self, character: char) -> Option<Keys> {
        match character {
            ' ' => return Some(Keys::of(&["spc"])),
            '\n' => return Some(Keys::of(&["ret"])),
            '\t' => return Some(Keys::of(&["tab"])),
            NONE => return None,
            _ => {}
        }
        self.levels().iter().find_map(|(held, rows)| {
            let places = PLACES.iter().flat_map(|row| row.iter());
            let characters = rows.iter().flat_map(|row| row.chars());
            let (code, _) = places.zip(characters).find(|(_, typed)| *typed == character)?;
            Some(Keys::of(&held.iter().chain([code]).copied().collect::<Vec<_>>()))
        })
    }

    /// What the places type, for each set of keys that are held meanwhile; [`NONE`] where that is nothing, or a dead key.
    fn levels(self) -> &'static [Level] {
        match self {
            Self::Us => US,
            Self::Uk => UK,
            Self::De => DE,
            Self::Fr => FR,
        }
    }

    /// The characters that are dead keys, at least in some systems.
    fn dead(self) -> &'static str {
        match self {
            Self::Us | Self::Uk => "",
            Self::De => "^´`",
            Self::Fr => "¨~`",
        }
    }
}

impl FromStr for Layout {
    type Err = UnknownLayout;

    fn from_str(name: &str) -> Result<Self, UnknownLayout> {
        match name {
            "us" => Ok(Self::Us),
            "uk" | "gb" => Ok(Self::Uk),
            "de" => Ok(Self::De),
            "fr" => Ok(Self::Fr),
            other => Err(UnknownLayout(other.to_owned())),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Us => "us",
            Self::Uk => "uk",
            Self::De => "de",
            Self::Fr => "fr",
        })
    }
}

/// The keys that are held, and what the places of [`PLACES`] type then.
type Level = (&'static [&'static str], [&'static str; 4]);

/// A place that types nothing that is wanted.
const NONE: char = '∅';

/// The places of a keyboard that type characters, in four rows; the last row begins with the key that US keyboards lack.
const PLACES: [&[&str]; 4] = [
    &["grave_accent", "1", "2", "3", "4", "5", "6", "7", "8", "9", "0", "minus", "equal"],
    &["q", "w", "e", "r", "t", "y", "u", "i", "o", "p", "bracket_left", "bracket_right"],
    &["a", "s", "d", "f", "g", "h", "j", "k", "l", "semicolon", "apostrophe", "backslash"],
    &["less", "z", "x", "c", "v", "b", "n", "m", "comma", "dot", "slash"],
];

const SHIFT: &[&str] = &["shift"];
const ALTGR: &[&str] = &["alt_r"];

const US: &[Level] = &[
    (&[], ["`1234567890-=", "qwertyuiop[]", "asdfghjkl;'\\", "∅zxcvbnm,./"]),
    (SHIFT, ["~!@#$%^&*()_+", "QWERTYUIOP{}", "ASDFGHJKL:\"|", "∅ZXCVBNM<>?"]),
];

const UK: &[Level] = &[
    (&[], ["`1234567890-=", "qwertyuiop[]", "asdfghjkl;'#", "\\zxcvbnm,./"]),
    (SHIFT, ["¬!\"£$%^&*()_+", "QWERTYUIOP{}", "ASDFGHJKL:@~", "|ZXCVBNM<>?"]),
    (ALTGR, ["¦∅∅∅€∅∅∅∅∅∅∅∅", "∅∅é∅∅∅úíó∅∅∅", "á∅∅∅∅∅∅∅∅∅∅∅", "∅∅∅∅∅∅∅∅∅∅∅"]),
];

const DE: &[Level] = &[
    (&[], ["∅1234567890ß∅", "qwertzuiopü+", "asdfghjklöä#", "<yxcvbnm,.-"]),
    (SHIFT, ["°!\"§$%&/()=?∅", "QWERTZUIOPÜ*", "ASDFGHJKLÖÄ'", ">YXCVBNM;:_"]),
    (ALTGR, ["∅∅²³∅∅∅{[]}\\∅", "@∅€∅∅∅∅∅∅∅∅~", "∅∅∅∅∅∅∅∅∅∅∅∅", "|∅∅∅∅∅∅µ∅∅∅"]),
];

const FR: &[Level] = &[
    (&[], ["²&é\"'(-è_çà)=", "azertyuiop∅$", "qsdfghjklmù*", "<wxcvbn,;:!"]),
    (SHIFT, ["∅1234567890°+", "AZERTYUIOP∅£", "QSDFGHJKLM%µ", ">WXCVBN?./§"]),
    (ALTGR, ["∅∅∅#{[|∅\\^@]}", "∅∅€∅∅∅∅∅∅∅∅¤", "∅∅∅∅∅∅∅∅∅∅∅∅", "∅∅∅∅∅∅∅∅∅∅∅"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Layout; 4] = [Layout::Us, Layout::Uk, Layout::De, Layout::Fr];

    #[track_caller]
    fn check(layout: Layout, text: &str, expected: &str) {
        let keys = layout.keys(text).unwrap();
        assert_eq!(
            keys.iter().map(Keys::to_string).collect::<Vec<_>>().join(" "),
            expected,
            "{layout}: {text}"
        );
    }

    #[test]
    fn every_layout_has_a_character_for_each_place() {
        for layout in ALL {
            for (held, rows) in layout.levels() {
                let lengths = rows.map(|row| row.chars().count());
                assert_eq!(lengths, PLACES.map(<[_]>::len), "{layout} {held:?}");
            }
        }
    }

    #[test]
    fn every_layout_types_ascii_but_for_its_dead_keys() {
        for layout in ALL {
            let untypable: String =
                (' '..='~').filter(|&character| layout.key(character).is_none()).collect();
            let expected = match layout {
                Layout::Us | Layout::Uk => "",
                Layout::De => "^`",
                Layout::Fr => "`~",
            };
            assert_eq!(untypable, expected, "{layout}");
        }
    }

    #[test]
    fn a_text_is_typed_by_the_keys_of_its_layout() {
        check(Layout::Us, "ls -la | wc\n", "l s spc minus l a spc shift-backslash spc w c ret");
        check(Layout::Uk, "\"#@£", "shift-2 backslash shift-apostrophe shift-3");
        check(Layout::De, "Yz/|@ß", "shift-z y shift-7 alt_r-less alt_r-q minus");
        check(Layout::Fr, "aZ1.\\m", "q shift-w shift-1 shift-comma alt_r-8 semicolon");
        check(Layout::De, "\t", "tab");
    }

    #[test]
    fn a_character_without_a_key_is_named_with_its_place() {
        let error = Layout::Us.keys("grün").unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not type 'ü', character 3 of the text, with the keyboard layout us"
        );
        let error = Layout::De.keys("a^").unwrap_err();
        assert!(error.to_string().ends_with("layout de, where its key waits for a letter"), "{error}");
        assert!(Layout::De.keys("∅").is_err());
    }

    #[test]
    fn layouts_have_names() {
        for layout in ALL {
            assert_eq!(layout.to_string().parse(), Ok(layout));
        }
        assert_eq!("gb".parse(), Ok(Layout::Uk));
        assert_eq!(
            "xx".parse::<Layout>().unwrap_err().to_string(),
            "no keyboard layout is called `xx`; there are us, uk, de and fr"
        );
    }
}
