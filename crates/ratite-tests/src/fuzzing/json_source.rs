//! JSON values out of bytes: every byte means something, so that no input is wasted on what is no JSON.
//!
//! ```text
//! n t f       null, true, false           "text"      a string
//! 0 … 9       a number of one digit       [ … ]       an array
//! .N          the float N.0               {kV … }     an object; k one letter, V its value
//! iNNNNNNNN   a number of 64 bits, least byte first; `u` without a sign, `d` a float
//! ```
//!
//! Keys are `a`, `b`, …, but `e` is `event`, `d` is `data`, `s` is `seconds`. Blanks between values are skipped, any other
//! byte is null, and the end closes all.

use serde_json::Map;
use serde_json::Value;

/// How deep values are nested at most.
const DEEPEST: usize = 40;

/// Bytes that are taken from the front.
#[derive(Debug)]
pub(super) struct JsonSource<'a>(&'a [u8]);

impl<'a> JsonSource<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn value(&mut self) -> Value {
        self.value_at(0)
    }

    /// Up to the next quote.
    pub(super) fn text(&mut self) -> String {
        let mut bytes = Vec::new();
        while let Some(byte) = self.byte().filter(|byte| *byte != b'"') {
            bytes.push(byte);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn value_at(&mut self, depth: usize) -> Value {
        match self.first_of_value() {
            Some(b't') => true.into(),
            Some(b'f') => false.into(),
            Some(digit @ b'0'..=b'9') => (digit - b'0').into(),
            Some(b'.') => f64::from(self.byte().unwrap_or_default() & 15).into(),
            Some(b'i') => i64::from_le_bytes(self.eight()).into(),
            Some(b'u') => u64::from_le_bytes(self.eight()).into(),
            Some(b'd') => f64::from_le_bytes(self.eight()).into(),
            Some(b'"') => self.text().into(),
            Some(b'[') if depth < DEEPEST => self.array(depth),
            Some(b'{') if depth < DEEPEST => self.object(depth),
            _ => Value::Null,
        }
    }

    fn array(&mut self, depth: usize) -> Value {
        let mut elements = Vec::new();
        while !self.closes(b']') {
            elements.push(self.value_at(depth + 1));
        }
        elements.into()
    }

    fn object(&mut self, depth: usize) -> Value {
        let mut members = Map::new();
        while !self.closes(b'}') {
            let key = match self.byte() {
                Some(b'e') => "event".to_owned(),
                Some(b'd') => "data".to_owned(),
                Some(b's') => "seconds".to_owned(),
                other => char::from(other.unwrap_or_default()).to_string(),
            };
            members.insert(key, self.value_at(depth + 1));
        }
        members.into()
    }

    /// Skips blanks, and takes `bracket` if it comes next; at the end everything closes.
    fn closes(&mut self, bracket: u8) -> bool {
        self.0 = self.0.trim_ascii_start();
        match self.0 {
            [] => true,
            [first, rest @ ..] if *first == bracket => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn first_of_value(&mut self) -> Option<u8> {
        self.0 = self.0.trim_ascii_start();
        self.byte()
    }

    /// Eight bytes, zeros behind the end.
    fn eight(&mut self) -> [u8; 8] {
        [(); 8].map(|()| self.byte().unwrap_or_default())
    }
}
