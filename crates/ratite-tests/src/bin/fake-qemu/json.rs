//! JSON as QEMU reads and writes it: values without a separator between them, and a blank after `:` and `,`.
//!
//! Pure. Texts stay texts where they can, so that what came in goes out unchanged, however deep or long it is.

use std::mem;

use serde_json::Value;

/// Cuts a stream of bytes into top-level JSON values, well-formed or not.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    bytes: Vec<u8>,
    start: usize,
    scanned: usize,
    depth: usize,
    place: Place,
}

/// Where the scanner stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Place {
    #[default]
    Between,
    Inside,
    Text,
    Escape,
}

impl Splitter {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.scanned -= mem::take(&mut self.start);
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete value; it may still be malformed.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        while let Some(&byte) = self.bytes.get(self.scanned) {
            self.scanned += 1;
            if self.step(byte) {
                let value = self.bytes[self.start..self.scanned].trim_ascii().to_vec();
                self.start = self.scanned;
                self.depth = 0;
                self.place = Place::Between;
                return Some(value);
            }
        }
        None
    }

    /// Takes one byte, and says whether a value ends with it.
    fn step(&mut self, byte: u8) -> bool {
        self.place = match (self.place, byte) {
            (Place::Escape, _) | (Place::Text, 0x20..=0x21 | 0x23..=0x5b | 0x5d..) => Place::Text,
            (Place::Text, b'\\') => Place::Escape,
            (Place::Text, b'"') => Place::Inside,
            // A control character inside a string: QEMU gives up the whole value here, and so do we.
            (Place::Text, _) => return true,
            (Place::Between | Place::Inside, b'"') => Place::Text,
            (Place::Between | Place::Inside, b'{' | b'[') => {
                self.depth += 1;
                Place::Inside
            }
            (Place::Between | Place::Inside, b'}' | b']') => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            (Place::Between, _) if byte.is_ascii_whitespace() => Place::Between,
            (Place::Inside, _) if byte.is_ascii_whitespace() => return self.depth == 0,
            (Place::Between | Place::Inside, _) => Place::Inside,
        };
        false
    }
}

/// The text of `value`, spaced as QEMU does.
pub(crate) fn text(value: &Value) -> String {
    spaced(&value.to_string())
}

/// `json` on one line, with a blank after `:` and `,`.
pub(crate) fn spaced(json: &str) -> String {
    lay_out(json, |out, _, mark| {
        out.push(mark);
        if matches!(mark, ':' | ',') {
            out.push(' ');
        }
    })
}

/// `json` over many lines, as QEMU writes it with `pretty=on`.
pub(crate) fn pretty(json: &str) -> String {
    lay_out(json, |out, depth, mark| {
        // What follows a bracket begins a line, and what follows a comma does too; so does a closing bracket, where
        // a line that is still empty is used for it.
        let closing = matches!(mark, '}' | ']');
        if closing {
            out.truncate(out.trim_end().len());
            new_line(out, depth);
        }
        out.push(mark);
        match mark {
            ':' => out.push(' '),
            _ if !closing => new_line(out, depth),
            _ => {}
        }
    })
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("    ", depth));
}

/// Copies `json`; drops the blanks outside of strings, and lets `punctuate` write each of `{}[]:,` there.
///
/// `punctuate` is told the depth of what follows the mark.
fn lay_out(json: &str, mut punctuate: impl FnMut(&mut String, usize, char)) -> String {
    let mut out = String::with_capacity(json.len() + json.len() / 4);
    let mut place = Place::Inside;
    let mut depth = 0_usize;
    for character in json.chars() {
        match (place, character) {
            (Place::Text, '"') => place = Place::Inside,
            (Place::Text, '\\') => place = Place::Escape,
            (Place::Escape, _) => place = Place::Text,
            (Place::Text, _) => {}
            (_, '"') => place = Place::Text,
            (_, '{' | '[' | '}' | ']' | ':' | ',') => {
                match character {
                    '{' | '[' => depth += 1,
                    '}' | ']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                punctuate(&mut out, depth, character);
                continue;
            }
            (_, ' ' | '\t' | '\r' | '\n') => continue,
            _ => {}
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_split(stream: &str, expected: &[&str]) {
        for step in 1..=stream.len().max(1) {
            let mut splitter = Splitter::default();
            let mut values = Vec::new();
            for piece in stream.as_bytes().chunks(step) {
                splitter.feed(piece);
                values.extend(std::iter::from_fn(|| splitter.next()));
            }
            let values: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value)).collect();
            assert_eq!(values, expected, "{stream:?} in pieces of {step}");
        }
    }

    #[test]
    fn values_need_nothing_between_them() {
        check_split(r#"{"a":1}{"b":[2]}"#, &[r#"{"a":1}"#, r#"{"b":[2]}"#]);
        check_split("  {}\r\n[1] x {} ", &["{}", "[1]", "x", "{}"]);
    }

    #[test]
    fn braces_and_quotes_in_strings_are_text() {
        check_split(r#"{"a":"}\"{\\"}{}"#, &[r#"{"a":"}\"{\\"}"#, "{}"]);
    }

    #[test]
    fn a_line_end_in_a_string_ends_the_value() {
        check_split("{\"a\n{}", &["{\"a", "{}"]);
    }

    #[test]
    fn the_layout_is_that_of_qemu() {
        assert_eq!(spaced(r#"{"a":[1,"x:,{"],"b":{}}"#), r#"{"a": [1, "x:,{"], "b": {}}"#);
        assert_eq!(pretty(r#"{"a": [1, 2]}"#), "{\n    \"a\": [\n        1,\n        2\n    ]\n}");
    }
}
