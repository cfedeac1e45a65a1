//! Values in brackets: JSON, or what Python would write: single quotes, `True`, `None`, a comma at the end.

use serde_json::Map;
use serde_json::Number;
use serde_json::Value;

/// Reads a value in JSON, or as Python would write it.
///
/// # Errors
/// What was expected, and where.
pub(super) fn literal(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).or_else(|_| Relaxed { text, at: 0 }.whole())
}

/// A number as people write it: `5`, `-1`, `0x10`, `1.5`, `1e3`.
pub(super) fn number(text: &str) -> Option<Number> {
    integer(text).or_else(|| {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let begins = unsigned.starts_with(|letter: char| letter == '.' || letter.is_ascii_digit());
        let digits = unsigned.chars().any(|letter| letter.is_ascii_digit());
        (begins && digits).then(|| text.parse().ok())?.and_then(Number::from_f64)
    })
}

/// A whole number as people write it: `5`, `-1`, `0x10`.
pub(super) fn integer(text: &str) -> Option<Number> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    // A second sign is none.
    digits.chars().next().filter(|first| first.is_digit(radix))?;
    let amount = u64::from_str_radix(digits, radix).ok()?;
    match is_negative {
        false => Some(amount.into()),
        true => 0_i64.checked_sub_unsigned(amount).map(Number::from),
    }
}

/// How deeply a value may be nested.
const DEEPEST: usize = 100;

struct Relaxed<'a> {
    text: &'a str,
    at: usize,
}

impl Relaxed<'_> {
    fn whole(mut self) -> Result<Value, String> {
        let value = self.value(0)?;
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(self.expected("nothing more")),
        }
    }

    /// The next character that is no blank.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn takes(&mut self, letter: char) -> bool {
        let is_there = self.peek() == Some(letter);
        if is_there {
            self.at += letter.len_utf8();
        }
        is_there
    }

    fn expected(&self, what: &str) -> String {
        let column = self.text[..self.at].chars().count() + 1;
        let rest = &self.text[self.at..];
        match rest.is_empty() {
            true => format!("expected {what} at its end"),
            false => {
                format!("expected {what} at column {column}, `{}`", rest.chars().take(10).collect::<String>())
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err(format!("it is nested more than {DEEPEST} levels deep"));
        }
        match self.peek() {
            Some('{') => self.object(depth),
            Some('[') => self.array(depth),
            Some('"' | '\'') => self.string().map(Value::String),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut object = Map::new();
        while !self.takes('}') {
            if !object.is_empty() && !self.takes(',') {
                return Err(self.expected("`,` or `}`"));
            }
            if self.takes('}') {
                break;
            }
            let Some('"' | '\'') = self.peek() else { return Err(self.expected("a quoted name")) };
            let name = self.string()?;
            if !self.takes(':') {
                return Err(self.expected("`:`"));
            }
            object.insert(name, self.value(depth + 1)?);
        }
        Ok(Value::Object(object))
    }

    fn array(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut array = Vec::new();
        while !self.takes(']') {
            if !array.is_empty() && !self.takes(',') {
                return Err(self.expected("`,` or `]`"));
            }
            if self.takes(']') {
                break;
            }
            array.push(self.value(depth + 1)?);
        }
        Ok(Value::Array(array))
    }

    fn string(&mut self) -> Result<String, String> {
        let rest = &self.text[self.at..];
        let mut letters = rest.char_indices();
        let quote = letters.next().map(|(_, quote)| quote);
        let mut string = String::new();
        while let Some((at, letter)) = letters.next() {
            if Some(letter) == quote {
                self.at += at + 1;
                return Ok(string);
            }
            let letter = match letter {
                '\\' => {
                    let escape = letters.next().map(|(_, escape)| escape);
                    escaped(escape, &mut letters)
                        .ok_or_else(|| self.expected("another escape than this string has"))?
                }
                letter => letter,
            };
            string.push(letter);
        }
        Err(self.expected("a closing quote for the string"))
    }

    fn word(&mut self) -> Result<Value, String> {
        let rest = &self.text[self.at..];
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && !"+-._".contains(letter));
        let word = &rest[..end.unwrap_or(rest.len())];
        let value = match word {
            "true" | "True" => Value::Bool(true),
            "false" | "False" => Value::Bool(false),
            "null" | "None" => Value::Null,
            word => match number(word) {
                Some(number) => Value::Number(number),
                None => return Err(self.expected("a value")),
            },
        };
        self.at += word.len();
        Ok(value)
    }
}

/// What stands behind a backslash.
fn escaped(escape: Option<char>, letters: &mut std::str::CharIndices<'_>) -> Option<char> {
    let mut code = |digits| {
        let digits: String = letters.by_ref().take(digits).map(|(_, digit)| digit).collect();
        char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
    };
    match escape? {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'x' => code(2),
        'u' => code(4),
        same @ ('\\' | '"' | '\'' | '/') => Some(same),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_and_python_are_read() {
        for (text, expected) in [
            (r#"{"a": [1, -2.5, true, null]}"#, json!({"a": [1, -2.5, true, null]})),
            (r"{'a': 'b c', 'd': [True, False, None,],}", json!({"a": "b c", "d": [true, false, null]})),
            (r"['\'\\\n\x41ä', 'ü']", json!(["'\\\nAä", "ü"])),
            ("[0x10, 'x']", json!([16, "x"])),
            ("{}", json!({})),
            ("[true, false, null, 'x']", json!([true, false, null, "x"])),
        ] {
            assert_eq!(literal(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_its_place() {
        for (text, expected) in [
            ("[abc]", "expected a value at column 2, `abc]`"),
            ("{a: 1}", "expected a quoted name at column 2, `a: 1}`"),
            ("{'a' 1}", "expected `:` at column 6, `1}`"),
            ("[1 2]", "expected `,` or `]` at column 4, `2]`"),
            ("['a", "expected a closing quote for the string at column 2, `'a`"),
            ("[1", "expected `,` or `]` at its end"),
            ("[1] 2", "expected nothing more at column 5, `2`"),
            (r"['\q']", r"expected another escape than this string has at column 2, `'\q']`"),
        ] {
            assert_eq!(literal(text).unwrap_err(), expected, "{text}");
        }
        let deep = "[".repeat(5000);
        assert_eq!(literal(&deep).unwrap_err(), "it is nested more than 100 levels deep");
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let read = |text| number(text).map(|number| number.to_string());

        for (text, expected) in [
            ("5", "5"),
            ("+5", "5"),
            ("-5", "-5"),
            ("007", "7"),
            ("0x10", "16"),
            ("-0X1f", "-31"),
            ("0", "0"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("1.5", "1.5"),
            ("1e3", "1000.0"),
            (".5", "0.5"),
            ("-1.5", "-1.5"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "", "-", "x", "0x", "0xg", "--1", "+-1", "0x+1", "inf", "nan", "infinity", "1.2.3", "1 ",
            "1e999", ".",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(integer("1.5"), None);
    }
}
