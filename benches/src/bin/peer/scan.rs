//! Finds the commands in what was read: where each ends, its name, its id. Knows no JSON beyond that.

/// What the peer wants of a command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Command<'a> {
    pub(crate) name: &'a [u8],
    /// The JSON text of the id, if there is one.
    pub(crate) id: Option<&'a [u8]>,
}

/// The first command in `text`, and how long it is with what stands before it; `None` if it is not whole yet.
///
/// As QEMU, it looks at brackets and not at line ends.
pub(crate) fn next_command(text: &[u8]) -> Option<(Command<'_>, usize)> {
    let mut command = Command::default();
    let mut depth = 0_usize;
    let mut at = 0;
    let mut key: &[u8] = b"";
    let mut id_at = None;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let start = at;
                at += string_length(text.get(at..)?)?;
                let string = &text[start..at];
                at += 1;
                if depth == 1 && after_blanks(&text[at..])? == b':' {
                    key = string;
                } else if depth == 1 && matches!(key, b"execute" | b"exec-oob") {
                    command.name = string;
                }
            }
            b':' if depth == 1 && key == b"id" && id_at.is_none() => id_at = Some(at),
            b'{' | b'[' => depth += 1,
            b',' | b'}' | b']' => {
                if depth == 1
                    && command.id.is_none()
                    && let Some(start) = id_at
                {
                    command.id = Some(text[start..at - 1].trim_ascii());
                }
                if byte != b',' {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Some((command, at));
                    }
                }
            }
            _ => {}
        }
    }
    None
}

/// How long a string is whose opening quote has been read; `None` if it does not end.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn after_blanks(text: &[u8]) -> Option<u8> {
    text.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}
