//! Goes through a text token by token, and strictly: what is no JSON stops it.

use std::ops::Range;

use crate::envelope::plain::end_of_digits;
use crate::envelope::plain::end_of_plain;

/// The deepest nesting below a member that is read here: one bit for each level.
const DEEPEST: u32 = 64;

/// A place in a text. What it does not like it answers with `None`.
pub(in crate::envelope) struct Cursor<'a> {
    pub(in crate::envelope) bytes: &'a [u8],
    pub(in crate::envelope) at: usize,
}

impl<'a> Cursor<'a> {
    pub(in crate::envelope) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Goes behind `text`, which stands here.
    #[inline]
    pub(in crate::envelope) fn take_text<const N: usize>(&mut self, text: &[u8; N]) -> Option<()> {
        (self.bytes.get(self.at..)?.first_chunk()? == text).then(|| self.at += N)
    }

    #[inline]
    pub(in crate::envelope) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub(in crate::envelope) fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    #[inline]
    pub(in crate::envelope) fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Goes from the beginning of a member to its value; where its name stands, which holds no escape.
    #[inline]
    pub(in crate::envelope) fn key(&mut self) -> Option<Range<usize>> {
        self.take(b'"')?;
        let start = self.at;
        self.skip_plain();
        let end = self.at;
        self.take(b'"')?;
        self.skip_colon()?;
        Some(start..end)
    }

    #[inline]
    fn skip_colon(&mut self) -> Option<()> {
        if self.take_text(b": ").is_some() {
            self.skip_blanks();
            return Some(());
        }
        self.skip_blanks();
        self.take(b':')?;
        self.skip_blanks();
        Some(())
    }

    /// Goes behind a value of any kind. Not recursive: the nesting is kept in the bits of a number.
    pub(in crate::envelope) fn skip_value(&mut self) -> Option<()> {
        let (mut depth, mut in_objects) = (0, 0_u64);
        loop {
            match self.peek()? {
                b'"' => self.skip_string()?,
                b'-' | b'0'..=b'9' => self.skip_number()?,
                open @ (b'{' | b'[') => {
                    self.at += 1;
                    self.skip_blanks();
                    let is_object = open == b'{';
                    if self.peek()? == if is_object { b'}' } else { b']' } {
                        self.at += 1;
                    } else if depth == DEEPEST {
                        return None;
                    } else {
                        depth += 1;
                        in_objects = in_objects << 1 | u64::from(is_object);
                        if is_object {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                _ => self.skip_word()?,
            }
            // Behind a value: what holds it goes on or ends, perhaps several at once.
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.skip_blanks();
                let is_object = in_objects & 1 == 1;
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        self.skip_blanks();
                        if is_object {
                            self.skip_key()?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return None,
                }
                self.at += 1;
                depth -= 1;
                in_objects >>= 1;
            }
        }
    }

    /// Goes from the beginning of a member to its value.
    #[inline]
    fn skip_key(&mut self) -> Option<()> {
        if self.peek()? != b'"' {
            return None;
        }
        self.skip_string()?;
        self.skip_colon()
    }

    /// Goes behind a string, from its opening quote.
    #[inline]
    fn skip_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.skip_plain();
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.skip_escape()?,
                _ => return None,
            }
        }
    }

    #[cold]
    fn skip_escape(&mut self) -> Option<()> {
        let length = match self.bytes.get(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' if self.bytes.get(self.at + 2..self.at + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return None,
        };
        self.at += length;
        Some(())
    }

    #[inline]
    pub(in crate::envelope) fn skip_plain(&mut self) {
        self.at = end_of_plain(self.bytes, self.at);
    }

    #[inline]
    pub(in crate::envelope) fn skip_digits(&mut self) -> Option<()> {
        let start = self.at;
        self.at = end_of_digits(self.bytes, start);
        (self.at > start).then_some(())
    }

    #[inline]
    pub(in crate::envelope) fn skip_number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.skip_digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Some(())
    }

    #[inline]
    fn skip_word(&mut self) -> Option<()> {
        let rest = &self.bytes[self.at..];
        let word = [b"true".as_slice(), b"false", b"null"].into_iter().find(|word| rest.starts_with(word))?;
        self.at += word.len();
        Some(())
    }
}
