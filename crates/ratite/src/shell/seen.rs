//! What a console has brought since a certain moment. Pure.

use crate::pattern::Pattern;
use crate::shell::marks::Kind;
use crate::shell::marks::Mark;
use crate::shell::marks::Marks;
use crate::text::plain_text;

/// The bytes since a certain moment, and how far they are searched.
#[derive(Debug, Default)]
pub(super) struct Seen {
    bytes: Vec<u8>,
    searched: usize,
    /// Where the mark before the output of the command ends, once that is known.
    begin: Option<usize>,
    /// How many bytes were lost.
    pub(super) dropped: u64,
    /// How many of them were here, and went to make room.
    gone: usize,
}

/// How much of an output is kept, its end: a guest may print without end.
pub(super) const MOST: usize = 64 << 20;

/// How much more there may be, so that room is not made for each piece.
const SLACK: usize = 16 << 20;

/// How much of an output an error has.
const TOLD: usize = 1 << 20;

/// Longer than what a guest says about a login.
const LINES: usize = 16 << 10;

/// Longer than any prompt.
const LINE: usize = 4096;

impl Seen {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > MOST + SLACK {
            self.forget();
        }
    }

    /// Makes room. What may become a mark stays: it is much shorter than what is kept.
    fn forget(&mut self) {
        let count = self.bytes.len() - MOST;
        self.bytes.drain(..count);
        self.searched = self.searched.saturating_sub(count);
        self.begin = self.begin.map(|begin| begin.saturating_sub(count));
        self.gone += count;
        self.dropped += count as u64;
    }

    /// The same place, as long as it is known by where it is in all that has come.
    pub(super) fn place_of(&self, at: usize) -> usize {
        self.gone + at
    }

    /// Where such a place is now.
    pub(super) fn at_place(&self, place: usize) -> usize {
        place.saturating_sub(self.gone)
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next mark that belongs to this command.
    pub(super) fn next(&mut self, marks: &Marks, number: u64) -> Option<Mark> {
        loop {
            let mark = marks.next(&self.bytes, &mut self.searched)?;
            if mark.number != number {
                continue;
            }
            if mark.kind == Kind::Begin {
                self.begin = Some(mark.end);
            }
            return Some(mark);
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begin.is_some()
    }

    /// What the command has printed, up to `end`.
    pub(super) fn output(&self, end: usize) -> &[u8] {
        self.bytes.get(self.start()..end).unwrap_or_default()
    }

    /// The same as plain text, as far as it has come, for an error: at most its last mebibyte.
    pub(super) fn text(&self) -> String {
        self.recent(TOLD)
    }

    /// The end of it, as plain text of at most so many bytes.
    fn recent(&self, most: usize) -> String {
        let output = self.output(self.len());
        plain_text(&output[output.len().saturating_sub(most)..])
    }

    /// The line under way, of what the command has printed, as plain text.
    pub(super) fn last_line(&self) -> String {
        plain_text(&self.bytes[self.last_line_start()..])
    }

    /// Where it begins.
    pub(super) fn last_line_start(&self) -> usize {
        let recent = self.start().max(self.len().saturating_sub(LINE));
        memchr::memrchr(b'\n', &self.bytes[recent..]).map_or(recent, |end| recent + end + 1)
    }

    /// Where the output begins: the mark before it stands on a line of its own, whose end may not have come yet.
    fn start(&self) -> usize {
        let Some(begin) = self.begin else { return 0 };
        let returns = self.bytes[begin..].iter().take_while(|byte| **byte == b'\r').count();
        match self.bytes.get(begin + returns) {
            Some(b'\n') => begin + returns + 1,
            Some(_) => begin,
            None => self.len(),
        }
    }

    /// The last lines, also the one under way, as plain text.
    pub(super) fn lines(&self) -> Vec<String> {
        self.recent(LINES).lines().map(str::to_owned).collect()
    }

    /// What came behind a mark.
    pub(super) fn behind(&self, mark: &Mark) -> Vec<u8> {
        self.bytes[mark.end..].to_vec()
    }
}

/// Whether the pattern is somewhere in the text.
pub(super) fn says(text: &str, pattern: &Pattern) -> bool {
    // What is too much for the automaton is not there.
    matches!(pattern.search().feed(text.as_bytes()), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_output_without_end_the_end_is_kept() {
        let marks = Marks::new();
        let mut seen = Seen::default();
        let mark = |letter: &str| {
            marks.type_probe(1).split('\'').nth(3).unwrap().replace(":p>", &format!(":{letter}>"))
        };
        let piece = b"x".repeat(8 << 20);

        seen.add(format!("<{}\r\nfirst", mark("b")).as_bytes());
        assert!(seen.next(&marks, 1).is_some_and(|mark| mark.kind == Kind::Begin));
        for _ in 0..20 {
            seen.add(&piece);
            assert_eq!(seen.next(&marks, 1), None);
        }
        seen.add(format!("<{}", mark("e:0")).as_bytes());
        let mark = seen.next(&marks, 1).unwrap();

        assert_eq!(mark.kind, Kind::End(0));
        let kept = seen.output(mark.start).len();
        assert!((MOST..=MOST + SLACK).contains(&kept), "{kept}");
        assert!(seen.dropped > 0 && seen.output(mark.start).iter().all(|byte| *byte == b'x'));
    }
}
