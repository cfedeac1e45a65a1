//! The marks by which a command's output is told from all else on a console. Pure.
//!
//! The guest prints them; what is typed to have them printed never looks like one, so that neither the terminal's echo nor
//! the shell's own trace (`set -x`) can be taken for one. Whoever does not know the token cannot print one by chance.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// The marks of one session.
#[derive(Debug)]
pub(super) struct Marks {
    token: String,
}

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Where it begins and ends in the bytes.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Which command it belongs to.
    pub(super) number: u64,
    pub(super) kind: Kind,
}

/// What a mark stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A shell has answered.
    Probe,
    /// It has taken so many pieces of a long command.
    Piece(usize),
    /// Behind this is the command's output.
    Begin,
    /// Before this is the command's output, and this is its status.
    End(i32),
    /// The shell waits for a command again. It is the one that the session began with, or not.
    Idle { status: i32, same: bool },
}

/// A look at bytes from some place on.
enum Look {
    Mark(Mark),
    /// It may be one when more has come.
    Unfinished,
    No,
}

impl Marks {
    /// With a token that nobody can know.
    pub(super) fn new() -> Self {
        // Keyed by the system's randomness.
        Self { token: format!("{:016x}", RandomState::new().hash_one(0)) }
    }

    /// Makes the shell one of this session, and has it answer.
    pub(super) fn type_probe(&self, number: u64) -> String {
        let token = &self.token;
        format!(" ratite_session={token}; printf '<%s\\n' '{token}:{number}:p>'\n")
    }

    /// Adds a piece, which is quoted, to a long command, or begins it.
    pub(super) fn type_piece(&self, number: u64, index: usize, quoted: &str) -> String {
        let token = &self.token;
        let before = if index == 0 { "" } else { "$ratite_command" };
        format!(" ratite_command={before}{quoted}; printf '<%s\\n' '{token}:{number}:c:{index}>'\n")
    }

    /// Runs the command that `word` becomes in the shell.
    ///
    /// `command` keeps a mistake in the command from ending what follows it on the line, in the shells that follow POSIX.
    pub(super) fn type_command(&self, number: u64, word: &str) -> String {
        let token = &self.token;
        format!(
            " ratite_status=; printf '<%s\\n' '{token}:{number}:b>'; command eval {word}; ratite_status=$?; \
             printf '<%s\\n' \"{token}:{number}:e:$ratite_status>\"\n"
        )
    }

    /// Asks a shell that waits again, though no end was seen, for the status of the command before.
    pub(super) fn type_question(&self, number: u64) -> String {
        let token = &self.token;
        format!(" printf '<%s\\n' \"{token}:{number}:i:${{ratite_status:-$?}}:$ratite_session>\"\n")
    }

    /// The next mark of this session from `*from` on; then `from` is behind it, or where the next may begin.
    ///
    /// A mark in whose middle the kernel has printed its messages counts as whole.
    pub(super) fn next(&self, bytes: &[u8], from: &mut usize) -> Option<Mark> {
        while let Some(found) = memchr::memchr(b'<', &bytes[*from..]) {
            let start = *from + found;
            match self.at(bytes, start) {
                Look::Mark(mark) => {
                    *from = mark.end;
                    return Some(mark);
                }
                Look::Unfinished => {
                    *from = start;
                    return None;
                }
                Look::No => *from = start + 1,
            }
        }
        *from = bytes.len();
        None
    }

    /// Whether there is a mark at `start`.
    fn at(&self, bytes: &[u8], start: usize) -> Look {
        let token = self.token.as_bytes();
        let mut text = Vec::new();
        let mut at = start + 1;
        // No further: all would be looked at again with each piece that comes.
        let (bytes, end) = match bytes.get(..start + FARTHEST) {
            Some(bytes) => (bytes, Look::No),
            None => (bytes, Look::Unfinished),
        };
        loop {
            match message(&bytes[at..]) {
                Message::Through(length) => {
                    at += length;
                    continue;
                }
                Message::Unfinished => return end,
                Message::None => {}
            }
            match bytes.get(at) {
                None => return end,
                Some(b'>') if text.len() > token.len() => {
                    let Some((number, kind)) = self.read(&text) else { return Look::No };
                    return Look::Mark(Mark { start, end: at + 1, number, kind });
                }
                Some(byte) if token.get(text.len()).is_none_or(|wanted| wanted == byte) => text.push(*byte),
                Some(_) => return Look::No,
            }
            if text.len() > LONGEST {
                return Look::No;
            }
            at += 1;
        }
    }

    /// What stands between the brackets.
    fn read(&self, text: &[u8]) -> Option<(u64, Kind)> {
        let words = std::str::from_utf8(text).ok()?.strip_prefix(&self.token)?.strip_prefix(':')?;
        let mut words = words.split(':');
        let number = words.next()?.parse().ok()?;
        let kind = match words.next()? {
            "p" => Kind::Probe,
            "c" => Kind::Piece(words.next()?.parse().ok()?),
            "b" => Kind::Begin,
            "e" => Kind::End(words.next()?.parse().ok()?),
            "i" => Kind::Idle { status: words.next()?.parse().ok()?, same: words.next()? == self.token },
            _ => return None,
        };
        words.next().is_none().then_some((number, kind))
    }
}

/// How far the messages of the kernel may stretch a mark.
const FARTHEST: usize = 16 << 10;

/// More than a mark has: twice the token and some numbers.
const LONGEST: usize = 128;

/// Whether the kernel speaks here, as in `[   12.345678] random: crng init done`.
enum Message {
    Through(usize),
    Unfinished,
    None,
}

fn message(bytes: &[u8]) -> Message {
    if bytes.first() != Some(&b'[') {
        return Message::None;
    }
    let stamp = &bytes[1..];
    let length = stamp.iter().take_while(|byte| matches!(byte, b' ' | b'.' | b'0'..=b'9')).count();
    match (stamp.get(length), memchr::memchr(b'\n', bytes)) {
        (Some(b']'), Some(end)) if stamp[..length].contains(&b'.') => Message::Through(end + 1),
        (Some(b']'), None) | (None, _) => Message::Unfinished,
        _ => Message::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        Marks { token: "t0k".into() }
    }

    fn all(bytes: &[u8]) -> Vec<(u64, Kind)> {
        let mut from = 0;
        std::iter::from_fn(|| marks().next(bytes, &mut from)).map(|mark| (mark.number, mark.kind)).collect()
    }

    #[test]
    fn what_is_typed_is_no_mark() {
        let marks = marks();
        for typed in [
            marks.type_probe(1),
            marks.type_piece(1, 0, "'x'"),
            marks.type_command(1, "'true'"),
            marks.type_question(1),
        ] {
            assert_eq!(all(typed.as_bytes()), []);
        }
    }

    #[test]
    fn marks_are_found_within_anything() {
        let stream = b"x<<t0k:3:b>\r\na<t0k:3:z>b<c<t0k:3:e:127>\r\n<t0k:4:p><t0k:4:c:9>";

        let expected = [(3, Kind::Begin), (3, Kind::End(127)), (4, Kind::Probe), (4, Kind::Piece(9))];
        assert_eq!(all(stream), expected);
    }

    #[test]
    fn a_shell_that_waits_tells_whether_it_is_the_same() {
        let expected =
            [(1, Kind::Idle { status: 2, same: true }), (2, Kind::Idle { status: 0, same: false })];
        assert_eq!(all(b"<t0k:1:i:2:t0k>\r\n<t0k:2:i:0:>\r\n"), expected);
    }

    #[test]
    fn messages_of_the_kernel_may_come_in_its_middle() {
        let stream = b"a<t0[    1.234567] usb 1-1: new\r\n[   12.5] x\r\nk:1:[ 3.0] y\r\ne:0>";

        assert_eq!(all(stream), [(1, Kind::End(0))]);
    }

    #[test]
    fn what_may_become_a_mark_is_looked_at_again() {
        let whole = b"ab<t0k:7:[ 1.5] m\r\ne:5>c";
        for cut in 3..whole.len() - 1 {
            let mut from = 0;
            assert_eq!(marks().next(&whole[..cut], &mut from), None, "{cut}");
            assert_eq!(from, 2);
            let expected = Mark { start: 2, end: whole.len() - 1, number: 7, kind: Kind::End(5) };
            assert_eq!(marks().next(whole, &mut from), Some(expected));
        }
    }

    #[test]
    fn what_never_becomes_a_mark_is_not_looked_at_for_ever() {
        let marks = marks();
        for endless in ["<[ 1.0] x", "<[ 1.0] x\n[ 1.0] y\n"] {
            let bytes = [endless.as_bytes(), &b"[ 1.0] z\n".repeat(10_000)].concat();
            let mut from = 0;

            assert_eq!(marks.next(&bytes, &mut from), None);

            assert_eq!(from, bytes.len(), "{endless:?}");
        }
        let spread = [b"<t0k:1:".as_slice(), &b"[ 1.0] z\n".repeat(1000), b"e:0>"].concat();
        assert_eq!(all(&spread), [(1, Kind::End(0))]);
    }

    #[test]
    fn two_sessions_do_not_share_their_marks() {
        assert_ne!(Marks::new().token, Marks::new().token);
    }
}
