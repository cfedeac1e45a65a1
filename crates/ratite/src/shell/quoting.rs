//! How a command is typed, so that any shell and any line editor take it as it is. Pure.

/// A command, cut into pieces that are typed as words of a shell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Typed {
    /// Each is quoted, and can be typed on a line of its own.
    pub(super) pieces: Vec<String>,
    /// Whether `printf` has to make the command of them.
    pub(super) escaped: bool,
}

/// The most characters of a piece: with what is typed around it, far below the 1024 of busybox's line editor, and below the
/// 4095 of a terminal that edits lines itself.
const PIECE: usize = 400;

impl Typed {
    pub(super) fn new(command: &str) -> Self {
        // A line editor acts on control characters, may take what is not ASCII for a key, and bash replaces `!`.
        let escaped = !command.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'!');
        let quote = if escaped { escape } else { keep };
        let mut pieces = Vec::new();
        // `eval` would take a dash for an option.
        let mut piece = String::from(if command.starts_with('-') { " " } else { "" });
        for byte in command.bytes() {
            let quoted = quote(byte);
            if piece.len() + quoted.len() > PIECE {
                pieces.push(format!("'{piece}'"));
                piece.clear();
            }
            piece += &quoted;
        }
        pieces.push(format!("'{piece}'"));
        Self { pieces, escaped }
    }

    /// The word for `eval`, of what is the one piece, or the variable that has them all.
    pub(super) fn word(&self) -> String {
        let command = match self.pieces.as_slice() {
            [piece] => piece.as_str(),
            _ => "\"$ratite_command\"",
        };
        if self.escaped { format!("\"$(printf {command})\"") } else { command.to_owned() }
    }
}

/// Within single quotes.
fn keep(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        byte => char::from(byte).into(),
    }
}

/// For the format of `printf`, within single quotes.
fn escape(byte: u8) -> String {
    match byte {
        b' ' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).into(),
        b'"' | b'$' | b'(' | b')' | b'*' | b'.' | b'/' | b';' | b'=' | b'_' => char::from(byte).into(),
        byte => format!("\\{byte:03o}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command: &str, expected: &str) {
        assert_eq!(Typed::new(command).word(), expected);
    }

    #[test]
    fn a_plain_command_is_typed_as_it_is() {
        check("uname -a; echo \"$HOME\" `date` \\ # x", "'uname -a; echo \"$HOME\" `date` \\ # x'");
        check("echo 'it''s'", r"'echo '\''it'\'''\''s'\'''");
        check("", "''");
    }

    #[test]
    fn what_a_line_editor_would_act_upon_is_escaped() {
        check("a\tb\nc", r#""$(printf 'a\011b\012c')""#);
        check("-é!%\\'", r#""$(printf ' \055\303\251\041\045\134\047')""#);
    }

    #[test]
    fn a_long_command_is_cut() {
        let typed = Typed::new(&"x'".repeat(1000));

        assert_eq!(typed.pieces.concat().replace(r"'\''", "\"").matches('"').count(), 1000);
        assert!(typed.pieces.len() > 5 && typed.pieces.iter().all(|piece| piece.len() <= PIECE + 2));
        assert_eq!(typed.word(), "\"$ratite_command\"");
    }
}
