//! What a guest has made of the terminal with escape sequences, and how that is undone. Pure.

use std::collections::BTreeSet;

/// The modes of a terminal that a shell does not expect, by their numbers in DECSET: cursor keys of an application, the
/// alternate screen, the mouse, and marks around what is pasted.
const UNEXPECTED: [u16; 11] = [1, 47, 1000, 1002, 1003, 1004, 1006, 1015, 1047, 1049, 2004];

/// The longest sequence that is looked at.
const LONGEST: usize = 32;

/// What was switched on and not off again, in a stream that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Modes {
    on: BTreeSet<u16>,
    keypad: bool,
    line_drawing: bool,
    scroll_region: bool,
    /// A sequence that has begun, without its ESC.
    begun: Option<Vec<u8>>,
}

impl Modes {
    /// Looks at what is written to the terminal.
    pub(crate) fn watch(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match &mut self.begun {
                _ if byte == 0x1b => self.begun = Some(Vec::new()),
                None => {}
                Some(begun) => {
                    begun.push(byte);
                    let goes_on = match begun.as_slice() {
                        [b'[' | b'('] => true,
                        [b'[', .., last] => !(0x40..=0x7e).contains(last) && begun.len() < LONGEST,
                        _ => false,
                    };
                    if !goes_on && let Some(sequence) = self.begun.take() {
                        self.obey(&sequence);
                    }
                }
            }
        }
    }

    fn obey(&mut self, sequence: &[u8]) {
        match sequence {
            b"=" => self.keypad = true,
            b">" => self.keypad = false,
            // A reset.
            b"c" => *self = Self::default(),
            [b'(', set] => self.line_drawing = *set == b'0',
            [b'[', b'?', numbers @ .., end @ (b'h' | b'l')] => {
                let numbers = str::from_utf8(numbers).unwrap_or_default().split(';');
                for number in numbers.filter_map(|number| number.parse().ok()) {
                    match end {
                        b'h' if UNEXPECTED.contains(&number) => drop(self.on.insert(number)),
                        _ => drop(self.on.remove(&number)),
                    }
                }
            }
            [b'[', b'r'] => self.scroll_region = false,
            [b'[', b'0'..=b'9', .., b'r'] => self.scroll_region = true,
            _ => {}
        }
    }

    /// What puts the terminal back.
    pub(crate) fn mend(&self) -> Vec<u8> {
        let mut text: String = self.on.iter().map(|number| format!("\x1b[?{number}l")).collect();
        if self.keypad {
            text += "\x1b>";
        }
        if self.line_drawing {
            text += "\x1b(B";
        }
        if self.scroll_region {
            // The sequence moves the cursor, too.
            text += "\x1b7\x1b[r\x1b8";
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &[u8], mended: &str) {
        let mut modes = Modes::default();
        // As it comes in the worst case.
        written.iter().for_each(|byte| modes.watch(&[*byte]));
        assert_eq!(String::from_utf8(modes.mend()).unwrap(), mended);
    }

    #[test]
    fn what_was_switched_on_is_switched_off() {
        check(b"login: \x1b[31mred\x1b[0m", "");
        check(b"\x1b[?1049h\x1b[?1;2004h\x1b=", "\x1b[?1l\x1b[?1049l\x1b[?2004l\x1b>");
        check(b"\x1b[?1049h\x1b[?1049l\x1b[?25h", "");
        check(b"\x1b[2;24r\x1b(0", "\x1b(B\x1b7\x1b[r\x1b8");
        check(b"\x1b[?1000h\x1bc", "");
        check(b"\x1b[?99999999999999999999999999999999999999999999h", "");
    }
}
