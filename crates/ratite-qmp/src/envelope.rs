//! Where those members of a message lie that decide what it is. Pure.
//!
//! One pass over the text reads the envelope and checks the whole of it, strictly. What is out of the ordinary (a name
//! with an escape in it, more than 64 levels, anything that is no JSON) it does not judge: the general reader does, so that
//! there is one place that says what is wrong.

mod cursor;
mod general;
mod plain;
mod shape;

use std::ops::Range;

use crate::envelope::cursor::Cursor;
use crate::envelope::general::General;
use crate::malformed::Malformed;
pub(crate) use shape::Shape;

/// The longest message that is taken however the limit is set: places in a message are kept in 32 bits.
pub(crate) const LONGEST_MESSAGE: usize = u32::MAX as usize;

/// The members of a message that are there; of one that stands twice, the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) qmp: Span,
    pub(crate) event: Span,
    pub(crate) data: Span,
    pub(crate) timestamp: Span,
    pub(crate) result: Span,
    pub(crate) error: Span,
    pub(crate) id: Span,
}

/// A value's place in a message; an empty one is that of a member that is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The place `range`, unless it lies beyond 4 GiB.
    pub(crate) fn new(range: Range<usize>) -> Option<Self> {
        Some(Self { start: range.start.try_into().ok()?, end: range.end.try_into().ok()? })
    }

    /// The same place when `count` bytes have been set before it.
    ///
    /// # Panics
    /// When it lies beyond 4 GiB then.
    pub(crate) fn moved(self, count: usize) -> Self {
        let count = u32::try_from(count).expect("not beyond 4 GiB");
        Self { start: self.start + count, end: self.end + count }
    }

    pub(crate) fn is_there(self) -> bool {
        self.end > self.start
    }

    /// The text of the value in `message`, if it is there.
    pub(crate) fn of(self, message: &str) -> Option<&str> {
        self.is_there().then(|| &message[self.range()])
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Envelope {
    /// Reads a text that is one JSON object.
    ///
    /// # Errors
    /// [`Malformed`] when it is none.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        Self::read(text.as_bytes()).map_or_else(|| General::read(text), Ok)
    }

    /// Reads what is one JSON object in QEMU's own manner, blanks around it allowed; `None` leaves the judgement to the
    /// general reader. That strings are UTF-8 is not looked at.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let mut envelope = Self::default();
        cursor.skip_blanks();
        cursor.take(b'{')?;
        cursor.skip_blanks();
        if cursor.peek()? != b'}' {
            loop {
                let key = cursor.key()?;
                let start = cursor.at();
                cursor.skip_value()?;
                envelope.note(&bytes[key], Span::new(start..cursor.at())?);
                cursor.skip_blanks();
                if cursor.take(b',').is_none() {
                    break;
                }
                cursor.skip_blanks();
            }
        }
        cursor.take(b'}')?;
        cursor.skip_blanks();
        cursor.peek().is_none().then_some(envelope)
    }

    fn note(&mut self, key: &[u8], value: Span) {
        match key {
            b"event" => self.event = value,
            b"data" => self.data = value,
            b"timestamp" => self.timestamp = value,
            b"return" => self.result = value,
            b"id" => self.id = value,
            b"error" => self.error = value,
            b"QMP" => self.qmp = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::json;

    #[test]
    fn the_members_are_found_wherever_they_stand() {
        let text = r#" {"x": [{"event": 1}], "return":{"a":"}\"{"} , "id" : 7,"id":-1.5e+3 } "#;

        let envelope = Envelope::read(text.as_bytes()).unwrap();

        assert_eq!(envelope.result.of(text), Some(r#"{"a":"}\"{"}"#));
        assert_eq!(envelope.id.of(text), Some("-1.5e+3"));
        assert_eq!(envelope.event.of(text), None);
    }

    #[test]
    fn what_is_no_json_is_left_to_the_general_reader() {
        let texts = [
            "",
            "{",
            "{}x",
            "{}{}",
            "[]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":+1}",
            "{\"a\":.5}",
            "{\"a\":1e}",
            "{\"a\":tru}",
            "{\"a\":truee}",
            "{\"a\":[1,]}",
            "{\"a\":[}",
            "{\"a\":{]}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"",
            "{a:1}",
            "{\"a\":[1 2]}",
            "{\"a\":{\"b\"}}",
            "{\"a\":{1:2}}",
            "{\"a\":{\"b\":1,}}",
            "{\"a\" 1}",
            "{\"a\":nul}",
        ];
        for text in texts {
            assert_eq!(Envelope::read(text.as_bytes()), None, "{text}");
            assert!(serde_json::from_str::<Value>(text).is_err() || !text.starts_with('{'), "{text}");
        }
    }

    #[test]
    fn the_depth_has_a_limit() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));

        assert!(Envelope::read(nested(64).as_bytes()).is_some());
        assert!(Envelope::read(nested(66).as_bytes()).is_none());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("event|id|return|data|[a-c\"\\\\ä]{0,9}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_json_is_read(value in any_json(), name in "[a-zA-Z]{0,20}", pretty: bool) {
            let message = json!({ "event": name, "data": value, "timestamp": { "seconds": 1 } });
            let text = if pretty { serde_json::to_string_pretty(&message).unwrap() } else { message.to_string() };

            let envelope = Envelope::read(text.as_bytes()).unwrap();

            let quoted = format!("\"{name}\"");
            prop_assert_eq!(envelope.event.of(&text), Some(quoted.as_str()));
            let data: Value = serde_json::from_str(envelope.data.of(&text).unwrap()).unwrap();
            prop_assert_eq!(data, message["data"].clone());
        }

        #[test]
        fn what_is_read_is_json(value in any_json(), at in any::<prop::sample::Index>(), byte in "[\\[\\]{}\",:\\\\0-9a-z \n.+-]{0,2}") {
            let mut text = json!({ "return": value, "id": 1 }).to_string();
            let mut at = at.index(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
            text.replace_range(at..end, &byte);

            let read = Envelope::read(text.as_bytes()).is_some();

            let judged = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert!(!read || judged, "{}", text);
        }
    }
}
