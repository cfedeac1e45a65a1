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
}

/// Longer than any prompt.
const LINE: usize = 4096;

impl Seen {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
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

    /// The same as plain text, as far as it has come.
    pub(super) fn text(&self) -> String {
        plain_text(self.output(self.len()))
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

    /// The lines, also the one under way, as plain text.
    pub(super) fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
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
