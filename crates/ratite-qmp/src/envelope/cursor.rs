//! Goes through a text token by token, and strictly: what is no JSON stops it.

use std::ops::Range;

use crate::envelope::plain::behind_digits;
use crate::envelope::plain::behind_plain;

/// The deepest nesting below a member that is read here: one bit for each level.
const DEEPEST: u32 = 64;

/// A place in a text. What it does not like it answers with `None`.
pub(in crate::envelope) struct Cursor<'a> {
    /// What comes from here on, of a text of this length: taking from the front of a slice spares most checks of bounds.
    rest: &'a [u8],
    length: usize,
}

impl<'a> Cursor<'a> {
    pub(in crate::envelope) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    #[inline]
    pub(in crate::envelope) fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    #[inline]
    pub(in crate::envelope) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    #[inline]
    pub(in crate::envelope) fn take(&mut self, byte: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        (*first == byte).then(|| self.rest = rest)
    }

    /// Goes behind `text`, which stands here.
    #[inline]
    pub(in crate::envelope) fn take_text<const N: usize>(&mut self, text: &[u8; N]) -> Option<()> {
        let (first, rest) = self.rest.split_first_chunk()?;
        (first == text).then(|| self.rest = rest)
    }

    #[inline]
    pub(in crate::envelope) fn skip_blanks(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Goes from the beginning of a member to its value; where its name stands, which holds no escape.
    #[inline]
    pub(in crate::envelope) fn key(&mut self) -> Option<Range<usize>> {
        self.take(b'"')?;
        let start = self.at();
        self.skip_plain();
        let end = self.at();
        self.take(b'"')?;
        self.skip_colon()?;
        Some(start..end)
    }

    #[inline]
    fn skip_colon(&mut self) -> Option<()> {
        if self.take_text(b": ").is_none() {
            self.skip_blanks();
            self.take(b':')?;
        }
        self.skip_blanks();
        Some(())
    }

    /// Goes behind a value of any kind. Not recursive: the nesting is kept in the bits of a number.
    pub(in crate::envelope) fn skip_value(&mut self) -> Option<()> {
        let (mut depth, mut in_objects) = (0, 0_u64);
        loop {
            match *self.rest.first()? {
                b'"' => self.skip_string()?,
                b'-' | b'0'..=b'9' => self.skip_number()?,
                open @ (b'{' | b'[') => {
                    self.rest = &self.rest[1..];
                    self.skip_blanks();
                    let is_object = open == b'{';
                    if self.take(if is_object { b'}' } else { b']' }).is_none() {
                        if depth == DEEPEST {
                            return None;
                        }
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
                let (next, rest) = self.rest.split_first()?;
                self.rest = rest;
                match next {
                    b',' => {
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
                depth -= 1;
                in_objects >>= 1;
            }
        }
    }

    /// Goes from the beginning of a member to its value.
    #[inline]
    fn skip_key(&mut self) -> Option<()> {
        self.skip_string()?;
        self.skip_colon()
    }

    /// Goes behind a string, from its opening quote.
    #[inline]
    fn skip_string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            self.skip_plain();
            match self.rest {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Some(());
                }
                [b'\\', ..] => self.skip_escape()?,
                _ => return None,
            }
        }
    }

    #[cold]
    fn skip_escape(&mut self) -> Option<()> {
        self.rest = match self.rest {
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => rest,
            [_, b'u', a, b, c, d, rest @ ..] if [a, b, c, d].iter().all(|it| it.is_ascii_hexdigit()) => rest,
            _ => return None,
        };
        Some(())
    }

    #[inline]
    pub(in crate::envelope) fn skip_plain(&mut self) {
        self.rest = behind_plain(self.rest);
    }

    #[inline]
    fn skip_digits(&mut self) -> Option<()> {
        let rest = behind_digits(self.rest);
        (rest.len() < self.rest.len()).then(|| self.rest = rest)
    }

    #[inline]
    pub(in crate::envelope) fn skip_number(&mut self) -> Option<()> {
        let _negative = self.take(b'-');
        if self.take(b'0').is_none() {
            self.skip_digits()?;
        }
        if self.take(b'.').is_some() {
            self.skip_digits()?;
        }
        if let [b'e' | b'E', rest @ ..] = self.rest {
            self.rest = match rest {
                [b'+' | b'-', rest @ ..] => rest,
                _ => rest,
            };
            self.skip_digits()?;
        }
        Some(())
    }

    #[inline]
    fn skip_word(&mut self) -> Option<()> {
        let words = [b"true".as_slice(), b"false", b"null"];
        self.rest = words.into_iter().find_map(|word| self.rest.strip_prefix(word))?;
        Some(())
    }
}
