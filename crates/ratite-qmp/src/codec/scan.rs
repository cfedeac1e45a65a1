//! Finds the end of a message that is not one line: a scanner that keeps its place across reads.

use memchr::memchr;
use memchr::memchr2;
use memchr::memchr3;

use crate::codec::Decoder;
use crate::codec::SENTINEL;
use crate::codec::State;
use crate::malformed::Malformed;
use crate::malformed::excerpt;

impl Decoder {
    /// Looks at the bytes not yet seen, up to the end of a message; how long it is.
    pub(in crate::codec) fn scan(&mut self) -> Result<Option<usize>, Malformed> {
        while let Some(byte) = self.buffer.unread().get(self.scanned).copied() {
            match (self.state, byte) {
                (_, SENTINEL) if self.delimited => {
                    self.forget(self.scanned + 1);
                    self.state = State::Between;
                    self.sentinel = true;
                    continue;
                }
                (State::Skipping, _) => {
                    let unread = self.buffer.unread();
                    self.forget(memchr(SENTINEL, unread).unwrap_or(unread.len()));
                    continue;
                }
                (State::Between, b' ' | b'\t' | b'\r' | b'\n') => {
                    self.forget(1);
                    continue;
                }
                (State::Between, b'{') => {
                    self.depth = 1;
                    self.state = State::Structure;
                }
                (State::Between, _) => {
                    return Err(Malformed::NotAnObject { excerpt: excerpt(self.current_line()) });
                }
                (State::Structure, b'"') => self.state = State::String,
                (State::Structure, b'{' | b'[') => self.depth += 1,
                (State::Structure, b'}' | b']') => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.scanned += 1;
                        self.state = State::Between;
                        return self.checked(self.scanned).map(Some);
                    }
                }
                (State::Structure, _) => {}
                (State::String, _) => match self.end_of_plain_text() {
                    None => {
                        self.scanned = self.buffer.unread().len();
                        continue;
                    }
                    Some((ahead, SENTINEL)) if self.delimited => {
                        self.scanned += ahead;
                        continue;
                    }
                    Some((ahead, byte)) => {
                        self.scanned += ahead;
                        self.state = if byte == b'"' { State::Structure } else { State::Escape };
                    }
                },
                (State::Escape, _) => self.state = State::String,
            }
            self.scanned += 1;
        }
        self.checked(self.scanned)?;
        Ok(None)
    }

    /// How far from the scanner's place a string has something else than plain text, and what.
    fn end_of_plain_text(&self) -> Option<(usize, u8)> {
        let rest = &self.buffer.unread()[self.scanned..];
        let ahead = match self.delimited {
            true => memchr3(b'"', b'\\', SENTINEL, rest),
            false => memchr2(b'"', b'\\', rest),
        }?;
        Some((ahead, rest[ahead]))
    }

    fn checked(&self, length: usize) -> Result<usize, Malformed> {
        if length > self.limit { Err(Malformed::TooLong { limit: self.limit }) } else { Ok(length) }
    }

    /// The rest of the line the scanner is in: what a person would call the garbage.
    fn current_line(&self) -> &[u8] {
        let rest = &self.buffer.unread()[self.scanned..];
        let line = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        &rest[..line.max(1)]
    }
}
