//! The names of keys, and combinations of them such as `ctrl-alt-f1`. Pure.

use std::fmt;
use std::str::FromStr;

use ratite_qmp::nearest;

/// Keys that are pressed one after the other, and released in the other order: `ctrl-alt-delete`.
///
/// Written with a `-` or a `+` between keys. The names are those of QEMU's keys, which stand for the places of a US keyboard;
/// capitals do not matter. Punctuation stands for its key (`ctrl-/`), and usual names are taken, too: `enter` and `return`,
/// `escape`, `del`, `ins`, `space`, `control`, `altgr`, `win`, `super`, `meta`, `pageup`, `pagedown`, `prtsc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<&'static str>);

/// A text that names no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not read the keys `{keys}`: {reason}")]
pub struct BadKeys {
    /// The text.
    pub keys: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Keys {
    /// Keys by QEMU's own names.
    pub(crate) fn of(codes: &[&'static str]) -> Self {
        Self(codes.to_vec())
    }

    /// QEMU's names of the keys, in the order in which they are pressed.
    #[must_use]
    pub fn codes(&self) -> &[&'static str] {
        &self.0
    }
}

impl FromStr for Keys {
    type Err = BadKeys;

    fn from_str(keys: &str) -> Result<Self, BadKeys> {
        let fault = |reason| BadKeys { keys: keys.to_owned(), reason };
        let mut codes = Vec::new();
        for word in words(keys) {
            let code = code(word).map_err(fault)?;
            if codes.contains(&code) {
                return Err(fault(format!("`{word}` is in it twice")));
            }
            codes.push(code);
        }
        match codes.len() {
            0 => Err(fault("it names none".into())),
            1..=MOST => Ok(Self(codes)),
            _ => Err(fault(format!("at most {MOST} can be pressed at once"))),
        }
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("-"))
    }
}

/// The fingers of two hands.
const MOST: usize = 10;

/// The words between `-` and `+`. One of them where a key should be is that key.
fn words(keys: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = keys;
    while !rest.is_empty() {
        let end = rest.char_indices().skip(1).find(|(_, character)| matches!(character, '-' | '+'));
        let (word, behind) = end.map_or((rest, ""), |(end, _)| (&rest[..end], &rest[end + 1..]));
        words.push(word);
        if behind.is_empty() && end.is_some() {
            words.push("");
        }
        rest = behind;
    }
    words
}

fn code(word: &str) -> Result<&'static str, String> {
    if word.is_empty() {
        return Err("a key is missing in it; the key `-` is called `minus`".into());
    }
    let name = word.to_lowercase();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, code)| *code);
    let known = alias.or_else(|| CODES.split(' ').find(|code| *code == name));
    known.ok_or_else(|| format!("no key is called `{word}`{}", perhaps(&name)))
}

/// What may have been meant, as the end of a sentence.
fn perhaps(name: &str) -> String {
    let names = CODES.split(' ').chain(ALIASES.iter().map(|(alias, _)| *alias));
    // A single character is as near to everything.
    let names = names.filter(|known| known.chars().count() > 1);
    nearest(name, names).map_or_else(String::new, |known| format!(", perhaps `{known}`"))
}

/// What people call keys, and QEMU's names.
const ALIASES: &[(&str, &str)] = &[
    ("enter", "ret"),
    ("return", "ret"),
    ("escape", "esc"),
    ("del", "delete"),
    ("ins", "insert"),
    ("space", "spc"),
    (" ", "spc"),
    ("control", "ctrl"),
    ("altgr", "alt_r"),
    ("win", "meta_l"),
    ("windows", "meta_l"),
    ("super", "meta_l"),
    ("meta", "meta_l"),
    ("cmd", "meta_l"),
    ("pageup", "pgup"),
    ("page_up", "pgup"),
    ("pagedown", "pgdn"),
    ("page_down", "pgdn"),
    ("capslock", "caps_lock"),
    ("numlock", "num_lock"),
    ("scrolllock", "scroll_lock"),
    ("prtsc", "print"),
    ("printscreen", "print"),
    ("bksp", "backspace"),
    ("-", "minus"),
    ("+", "kp_add"),
    ("=", "equal"),
    ("[", "bracket_left"),
    ("]", "bracket_right"),
    (";", "semicolon"),
    ("'", "apostrophe"),
    ("`", "grave_accent"),
    ("\\", "backslash"),
    (",", "comma"),
    (".", "dot"),
    ("/", "slash"),
    ("*", "asterisk"),
];

/// QEMU's names of keys (`QKeyCode`), up to QEMU 11. One that an older QEMU lacks, it refuses by name.
const CODES: &str = "\
    shift shift_r alt alt_r ctrl ctrl_r menu esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab q w e r t y u i o p \
    bracket_left bracket_right ret a s d f g h j k l semicolon apostrophe grave_accent backslash z x c v b n m \
    comma dot slash asterisk spc caps_lock f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 num_lock scroll_lock kp_divide \
    kp_multiply kp_subtract kp_add kp_enter kp_decimal sysrq kp_0 kp_1 kp_2 kp_3 kp_4 kp_5 kp_6 kp_7 kp_8 kp_9 \
    less f11 f12 print home pgup pgdn end left up down right insert delete stop again props undo front copy open \
    paste find cut lf help meta_l meta_r compose pause ro hiragana henkan yen muhenkan katakanahiragana kp_comma \
    kp_equals power sleep wake audionext audioprev audiostop audioplay audiomute volumeup volumedown mediaselect \
    mail calculator computer ac_home ac_back ac_forward ac_refresh ac_bookmarks lang1 lang2 f13 f14 f15 f16 f17 \
    f18 f19 f20 f21 f22 f23 f24";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(keys: &str, expected: &[&str]) {
        assert_eq!(keys.parse::<Keys>().unwrap().codes(), expected, "{keys}");
    }

    #[track_caller]
    fn check_refused(keys: &str, expected: &str) {
        let error = keys.parse::<Keys>().unwrap_err();
        assert_eq!(error.to_string(), format!("could not read the keys `{keys}`: {expected}"));
    }

    #[test]
    fn combinations_are_read_as_people_write_them() {
        check("ctrl-alt-f1", &["ctrl", "alt", "f1"]);
        check("Ctrl+Alt+Del", &["ctrl", "alt", "delete"]);
        check("enter", &["ret"]);
        check("win-r", &["meta_l", "r"]);
        check("ctrl--", &["ctrl", "minus"]);
        check("-", &["minus"]);
        check("shift-/", &["shift", "slash"]);
        check("A", &["a"]);
        check("bracket_left", &["bracket_left"]);
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_nearest() {
        check_refused("", "it names none");
        check_refused("ctrl-altt-f1", "no key is called `altt`, perhaps `alt`");
        check_refused("ctl-c", "no key is called `ctl`, perhaps `ctrl`");
        check_refused("entr", "no key is called `entr`, perhaps `enter`");
        check_refused("f99", "no key is called `f99`, perhaps `f19`");
        check_refused("ß", "no key is called `ß`");
        check_refused("xyzzyx", "no key is called `xyzzyx`");
        check_refused("ctrl-", "a key is missing in it; the key `-` is called `minus`");
        check_refused("a-control-ctrl", "`ctrl` is in it twice");
        check_refused("1-2-3-4-5-6-7-8-9-0-a", "at most 10 can be pressed at once");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(codes in proptest::sample::subsequence(CODES.split(' ').collect::<Vec<_>>(), 1..5)) {
            let keys = Keys(codes);

            prop_assert_eq!(keys.to_string().parse(), Ok(keys));
        }

        #[test]
        fn any_text_is_keys_or_refused(text in "\\PC{0,20}") {
            let _told = text.parse::<Keys>();
        }
    }
}
