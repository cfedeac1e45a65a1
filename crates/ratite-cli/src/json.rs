//! JSON as it is shown: on one line as it came, or spread for people.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::PrettyFormatter;
use serde_json::ser::Serializer;

/// On one line; as it came, unless that was more than one.
pub(crate) fn one_line(text: &str) -> String {
    match text.contains('\n') {
        // Within strings a line end is escaped.
        true => text.lines().map(str::trim).collect::<Vec<_>>().join(" "),
        false => text.to_owned(),
    }
}

/// Spread over lines, names in order.
pub(crate) fn pretty(text: &str) -> String {
    spread(text).unwrap_or_else(|| one_line(text))
}

/// `None` for what is nested too deeply to be read by anybody.
fn spread(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    let mut bytes = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter)).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_on_many_lines_becomes_one() {
        assert_eq!(one_line(r#"{"b": "a\n b",  "a": 1.50}"#), r#"{"b": "a\n b",  "a": 1.50}"#);
        assert_eq!(one_line("{\r\n    \"b\": [\r\n    ]\r\n}"), "{ \"b\": [ ] }");
    }

    #[test]
    fn pretty_is_in_order_and_indented() {
        assert_eq!(pretty(r#"{"b": [1], "a": {}}"#), "{\n    \"a\": {},\n    \"b\": [\n        1\n    ]\n}");
    }
}
