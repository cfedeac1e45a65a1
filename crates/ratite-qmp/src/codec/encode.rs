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
    let verb = if command.oob { "exec-oob" } else { "execute" };
    let name = to_wire(&command.name).expect("a string serialises");
    match &command.arguments {
        Some(arguments) => format!(r#"{{"{verb}":{name},"arguments":{arguments},"id":{id}}}"#),
        None => format!(r#"{{"{verb}":{name},"id":{id}}}"#),
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
}
