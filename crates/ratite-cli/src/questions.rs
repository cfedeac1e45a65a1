//! What a guest asks of a terminal, taken out of what is shown where nobody reads the answer. Pure.
//!
//! A shell on a serial line asks where the cursor is, to learn how wide the terminal is. A terminal answers as if its user
//! typed: where no guest reads that, the next program does, and takes it for a command.

/// The longest sequence that is looked at; what is longer is shown as it is.
const LONGEST: usize = 64;

/// A filter for a stream that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    /// A sequence that has begun and may be a question, with its ESC.
    begun: Vec<u8>,
}

/// What a sequence is, as far as it has come.
enum Seen {
    Begun,
    Question,
    Other,
}

impl Questions {
    /// What of `bytes` is no question. A sequence that is not complete waits for its rest.
    pub(crate) fn without(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            match (self.begun.is_empty(), byte) {
                (true, ENQUIRY) => {}
                (true, ESCAPE) => self.begun.push(byte),
                (true, _) => shown.push(byte),
                (false, _) => self.go_on(byte, &mut shown),
            }
        }
        shown
    }

    /// A sequence that has begun and did not come to its end.
    pub(crate) fn rest(self) -> Vec<u8> {
        self.begun
    }

    fn go_on(&mut self, byte: u8, shown: &mut Vec<u8>) {
        // Another sequence begins, but for the ESC that ends a text.
        if byte == ESCAPE && !matches!(self.begun.get(1), Some(b']' | b'P')) {
            shown.append(&mut self.begun);
        }
        self.begun.push(byte);
        match seen(&self.begun) {
            Seen::Begun if self.begun.len() < LONGEST => {}
            Seen::Question => self.begun.clear(),
            Seen::Begun | Seen::Other => shown.append(&mut self.begun),
        }
    }
}

/// What asks a terminal for its name.
const ENQUIRY: u8 = 0x05;
const ESCAPE: u8 = 0x1b;

fn seen(sequence: &[u8]) -> Seen {
    match sequence {
        [ESCAPE] | [ESCAPE, b'[' | b']' | b'P'] => Seen::Begun,
        [ESCAPE, b'Z'] => Seen::Question,
        [ESCAPE, b'[', words @ .., last @ 0x40..=0x7e] => asked(is_question(words, *last)),
        [ESCAPE, b'[', ..] => Seen::Begun,
        // A setting, such as a colour: `?` in the place of its value asks for it.
        [ESCAPE, b']', words @ .., 0x07] | [ESCAPE, b']', words @ .., ESCAPE, b'\\'] => {
            asked(words.ends_with(b";?"))
        }
        [ESCAPE, b'P', words @ .., ESCAPE, b'\\'] => {
            asked(words.starts_with(b"$q") || words.starts_with(b"+q"))
        }
        [ESCAPE, b']' | b'P', ..] => Seen::Begun,
        _ => Seen::Other,
    }
}

fn asked(is_question: bool) -> Seen {
    if is_question { Seen::Question } else { Seen::Other }
}

/// Whether `ESC [ words last` has an answer.
fn is_question(words: &[u8], last: u8) -> bool {
    match (words, last) {
        // Its state, and where the cursor is; behind `>` a setting.
        ([b'>', ..], b'n') => false,
        (_, b'n') => true,
        // What it is; behind `?` the form of Linux's cursor.
        ([b'?', ..], b'c') => false,
        (_, b'c') => true,
        ([] | [b'0' | b'1'], b'x') => true,
        ([.., b'$'], b'p') | ([b'>', ..], b'q') | ([b'?', ..], b'u') => true,
        // The window: where it is, its size, its title.
        ([b'1', b'1' | b'3' | b'4' | b'5' | b'6' | b'8' | b'9', ..] | [b'2', b'0' | b'1', ..], b't') => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stream: &[u8], expected: &[u8]) {
        let whole = Questions::default().without(stream);
        let mut questions = Questions::default();
        let pieces: Vec<u8> = stream.iter().flat_map(|byte| questions.without(&[*byte])).collect();
        assert_eq!(
            (whole.as_slice(), pieces.as_slice()),
            (expected, expected),
            "{:?}",
            stream.escape_ascii()
        );
    }

    #[test]
    fn questions_are_left_out() {
        check(b"~ # \x1b[6nls", b"~ # ls");
        check(b"a\x1b[c\x1b[>0c\x1b[=c\x1b[5n\x1b[?6n\x05\x1bZb", b"ab");
        check(b"a\x1b[?2026$p\x1b[>0q\x1b[?u\x1b[18t\x1b[xb", b"ab");
        check(b"a\x1b]11;?\x07\x1b]10;?\x1b\\\x1bP$qm\x1b\\\x1bP+q544e\x1b\\b", b"ab");
    }

    #[test]
    fn all_else_is_as_it_was() {
        for stream in [
            &b"\x1b[1;31mred\x1b[0m\x1b[2J\x1b[?25l\x1b[?0c\x1b[>4n"[..],
            b"\x1b]0;a title\x07\x1b]8;;http://a?\x1b\\\x1bPq#0\x1b\\",
            b"\x1b\x1b[1m\x1b(0\x1b[3;4H\x1b[22;0t\x1b[!p\x1b[?1$x",
            "grüße\r\n".as_bytes(),
        ] {
            check(stream, stream);
        }
        let long = [b"\x1b]0;", &[b'x'; 2 * LONGEST][..], b"\x07"].concat();
        check(&long, &long);
    }
}
