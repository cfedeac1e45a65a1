//! Commands to bytes.

use crate::command::Command;
use crate::json::to_wire;

/// The message that sends `command` to a guest agent: a line of its own, without an id. An agent of before QEMU 3.0
/// refuses a message that has one.
pub(crate) fn encode_for_agent(command: &Command) -> String {
    let name = to_wire(&command.name).expect("a string serialises");
    match &command.arguments {
        Some(arguments) => format!("{{\"execute\":{name},\"arguments\":{arguments}}}\n"),
        None => format!("{{\"execute\":{name}}}\n"),
    }
}

/// The message that sends `command` under `id`.
///
/// Compact, without blanks or line end: QEMU reads its monitor byte by byte, and every byte costs it microseconds.
pub(crate) fn encode(command: &Command, id: u64) -> String {
    let mut text = String::with_capacity(
        command.name.len() + command.arguments.as_ref().map_or(0, String::len) + LONGEST_FRAME,
    );
    text.push_str(if command.oob { r#"{"exec-oob":"# } else { r#"{"execute":"# });
    push_string(&mut text, &command.name);
    if let Some(arguments) = &command.arguments {
        text.push_str(r#","arguments":"#);
        text.push_str(arguments);
    }
    text.push_str(r#","id":"#);
    push_number(&mut text, id);
    text.push('}');
    text
}

/// How much longer a message is than its name and its arguments, at most.
const LONGEST_FRAME: usize = r#"{"exec-oob":"","arguments":,"id":18446744073709551615}"#.len();

fn push_string(text: &mut String, string: &str) {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if string.bytes().all(is_plain) {
        text.push('"');
        text.push_str(string);
        text.push('"');
    } else {
        text.push_str(&to_wire(&string).expect("a string serialises"));
    }
}

fn push_number(text: &mut String, number: u64) {
    let mut above = 1;
    while number / above >= 10 {
        above *= 10;
    }
    while above > 0 {
        text.push(char::from(b'0' + (number / above % 10) as u8));
        above /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use serde_json::json;

    #[test]
    fn what_is_sent_is_compact_ascii_without_a_line_end() {
        let command = Command::new("x").arguments(json!({"ä": "€😀\u{7}\"\\", "n": u64::MAX})).unwrap();

        let text = encode(&command, 7);

        assert!(text.is_ascii() && !text.contains([' ', '\n']), "{text}");
        assert!(
            text.starts_with(r#"{"execute":"x","arguments":{"#) && text.ends_with(r#"},"id":7}"#),
            "{text}"
        );
        let sent: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(sent["arguments"], json!({"ä": "€😀\u{7}\"\\", "n": u64::MAX}));
    }

    #[test]
    fn names_and_ids_are_what_they_were() {
        for (name, id) in [("x", 0), ("ä\"\\\n", 9), ("x y", 10), ("", 1_234_567_890), ("x", u64::MAX)] {
            let text = encode(&Command::new(name).oob(), id);

            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"exec-oob": name, "id": id}));
        }
    }
}
