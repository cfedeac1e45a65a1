//! JSON text to values and back, within limits. Pure.

use std::io;
use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::CompactFormatter;
use serde_json::ser::Formatter;
use serde_json::ser::Serializer;

use crate::finite::FiniteOnly;
use crate::finite::Found;
use crate::malformed::Malformed;
use crate::malformed::excerpt;

/// How deep a message may be nested when nothing else is said; QEMU's own parser stops at 1024.
pub(crate) const DEFAULT_DEPTH: usize = 2048;

/// How deep it may be however the limit is set: dropping a value costs stack for each level, some 100 bytes.
const DEEPEST: usize = 4096;

/// Reads `text` as a `T`, at any depth up to `depth_limit`, without overflowing the stack.
pub(crate) fn from_text<T: DeserializeOwned>(text: &str, depth_limit: usize) -> Result<T, Malformed> {
    let depth_limit = depth_limit.min(DEEPEST);
    if depth_limit < 128 && depth_of(text) > depth_limit {
        return Err(Malformed::TooDeep { limit: depth_limit });
    }
    // serde_json's own guard stops at 128 levels; only what is deeper pays for the second, stack-growing attempt.
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) if error.is_data() => {
            Err(Malformed::UnexpectedType { reason: error.to_string(), excerpt: excerpt(text.as_bytes()) })
        }
        Err(error) => {
            let depth = depth_of(text);
            if depth < 128 {
                return Err(Malformed::not_json(text.as_bytes(), &error));
            }
            if depth > depth_limit {
                return Err(Malformed::TooDeep { limit: depth_limit });
            }
            let mut deserializer = serde_json::Deserializer::from_str(text);
            deserializer.disable_recursion_limit();
            T::deserialize(serde_stacker::Deserializer::new(&mut deserializer))
                .map_err(|error| Malformed::not_json(text.as_bytes(), &error))
        }
    }
}

/// Where `part`, a slice of `whole`, lies in it.
pub(crate) fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

/// The deepest nesting of arrays and objects in JSON text.
fn depth_of(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        if in_string {
            (escaped, in_string) = (byte == b'\\' && !escaped, byte != b'"' || escaped);
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// `value` as compact JSON in ASCII, as QEMU itself writes it.
///
/// # Errors
/// When the value does not serialise, holds a float that JSON cannot hold, or is nested more deeply than QEMU reads.
pub(crate) fn to_wire(value: &impl Serialize) -> Result<String, serde_json::Error> {
    value.serialize(FiniteOnly::default())?;
    write(value)
}

/// The same for what may be nothing (`null`): none then.
pub(crate) fn something_to_wire(value: &impl Serialize) -> Result<Option<String>, serde_json::Error> {
    match value.serialize(FiniteOnly::default())? {
        Found::Nothing => Ok(None),
        Found::Something => write(value).map(Some),
    }
}

fn write(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::with_capacity(128);
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Ascii(CompactFormatter)))?;
    let text = String::from_utf8(bytes).map_err(serde::ser::Error::custom)?;
    if has_lone_surrogate(&text) {
        return Err(serde::ser::Error::custom(
            "a string holds half of a surrogate pair, which QEMU cannot read",
        ));
    }
    Ok(text)
}

/// Whether JSON text escapes half of a surrogate pair; only text that came in as JSON (a `RawValue`) can.
fn has_lone_surrogate(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at..];
        match unit(escape) {
            Some(0xd800..=0xdbff) if matches!(escape.get(6..).and_then(unit), Some(0xdc00..=0xdfff)) => {
                rest = &escape[12..];
            }
            Some(0xd800..=0xdfff) => return true,
            Some(_) => rest = &escape[6..],
            // Any other escape is two bytes of ASCII.
            None => rest = escape.get(2..).unwrap_or_default(),
        }
    }
    false
}

/// The UTF-16 unit that an escape `\uXXXX` at the beginning of `text` stands for.
fn unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

/// Writes compact JSON in which every character beyond ASCII is escaped.
struct Ascii(CompactFormatter);

impl Formatter for Ascii {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.is_ascii() {
            return self.0.write_string_fragment(writer, fragment);
        }
        for character in fragment.chars() {
            if character.is_ascii() {
                write!(writer, "{character}")?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn half_of_a_surrogate_pair_is_found() {
        for lone in [r#""\ud800""#, r#""\ud83dx""#, r#""\ude00\ud83d""#, r#""a\\\udc00""#] {
            assert!(has_lone_surrogate(lone), "{lone}");
        }
        for fine in [r#""\ud83d\ude00""#, r#""\\ud800""#, r#""\u00e4\n\"""#, "\"\\\""] {
            assert!(!has_lone_surrogate(fine), "{fine}");
        }
    }

    #[test]
    fn what_is_nested_more_deeply_than_qemu_reads_is_refused_before_it_takes_all_the_stack() {
        let nested =
            |levels| (0..levels).fold(Value::Array(Vec::new()), |inner, _| Value::Array(vec![inner]));

        assert_eq!(to_wire(&nested(1023)).unwrap().len(), 2 * 1024);
        let error = to_wire(&nested(4000)).unwrap_err();

        assert_eq!(error.to_string(), "nested more than 1024 levels deep");
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_refused() {
        #[derive(Serialize)]
        struct Deep {
            list: Vec<Option<f64>>,
        }

        let error = to_wire(&Deep { list: vec![Some(1.5), Some(f64::NAN)] }).unwrap_err();

        assert_eq!(error.to_string(), "JSON has no number NaN");
        assert_eq!(to_wire(&Deep { list: vec![Some(1.5), None] }).unwrap(), r#"{"list":[1.5,null]}"#);
    }
}
