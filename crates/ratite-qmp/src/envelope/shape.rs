//! The shape of an event as QEMU writes it, read without a look at what never changes.

use crate::envelope::Span;
use crate::envelope::cursor::Cursor;

/// An event that has QEMU's own order of members and blanks, checked as strictly as any message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Where it stands, and where its name does, quotes left out; there is no escape in it.
    pub(crate) text: Span,
    pub(crate) name: Span,
    /// How long it is, and with the end of its line.
    pub(crate) length: usize,
    pub(crate) with_line_end: usize,
}

impl Shape {
    /// Reads the event that `bytes` begin with; `None` for what is not all there, has another shape, or is no JSON. That strings
    /// are UTF-8 is not looked at.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        cursor.take_text(b"{\"timestamp\": {\"seconds\": ")?;
        cursor.skip_number()?;
        cursor.take_text(b", \"microseconds\": ")?;
        cursor.skip_number()?;
        cursor.take_text(b"}, \"event\": \"")?;
        let start = cursor.at();
        cursor.skip_plain();
        let name = Span::new(start..cursor.at())?;
        cursor.take(b'"')?;
        if cursor.take_text(b", \"data\": ").is_some() {
            cursor.skip_value()?;
        }
        cursor.take(b'}')?;
        let length = cursor.at();
        cursor.take_text(b"\r\n")?;
        Some(Self { text: Span::new(0..length)?, name, length, with_line_end: cursor.at() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use proptest::prelude::*;

    const EVENT: &str =
        "{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": -1}, \"event\": \"STOP\"}\r\n";

    #[test]
    fn what_qemu_writes_is_read() {
        let with_data = EVENT.replace("}\r", ", \"data\": {\"a\": [1, null]}}\r") + "more";
        for text in [EVENT, &with_data] {
            let shape = Shape::read(text.as_bytes()).unwrap();

            assert_eq!(shape.name.of(text), Some("STOP"));
            assert!(text[..shape.length].ends_with('}') && text[..shape.with_line_end].ends_with("\r\n"));
        }
    }

    #[test]
    fn what_is_not_all_there_is_left_to_others() {
        for length in 0..EVENT.len() {
            assert_eq!(Shape::read(&EVENT.as_bytes()[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_has_the_shape_is_an_event_for_everybody(
            numbers in "[-0-9.e]{0,4}", name in "[A-Z\\\\\"\n]{0,4}", data in "(, \"data\": )?[\\[\\]{}\",:\\\\0-9a-z \n]{0,8}",
        ) {
            let text = EVENT
                .replace("-1", &numbers)
                .replace("STOP", &name)
                .replace("}\r", &(data + "}\r"));
            if let Some(shape) = Shape::read(text.as_bytes()) {
                let message = &text[..shape.length];
                let envelope = Envelope::read(message.as_bytes());
                prop_assert!(envelope.is_some(), "{}", message);
                let quoted = format!("\"{}\"", shape.name.of(message).unwrap_or_default());
                prop_assert_eq!(envelope.unwrap_or_default().event.of(message), Some(quoted.as_str()));
                prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(message).is_ok());
            }
        }
    }
}
