//! What a peer's message asks for, and how it is answered: a peer of a relay, or a visitor of a guest agent. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

use crate::command::Command;
use crate::command::CommandError;
use crate::json::to_wire;
use crate::malformed::Malformed;
use crate::malformed::excerpt;
use crate::reply::Reply;

/// One message of a peer: the id that it wants on the reply, as JSON text, and what it asks for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: Option<String>,
    pub(crate) command: Result<Command, Refusal>,
}

/// Why a message is not passed on, in QMP's terms.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    class: &'static str,
    reason: String,
}

impl Refusal {
    /// What is wrong, in the class that says nothing.
    pub(crate) fn generic(reason: impl Into<String>) -> Self {
        Self { class: "GenericError", reason: reason.into() }
    }

    /// The command is none, or none now.
    pub(crate) fn no_command(reason: impl Into<String>) -> Self {
        Self { class: "CommandNotFound", reason: reason.into() }
    }

    /// The bytes are no message.
    pub(crate) fn unreadable(malformed: &Malformed) -> Self {
        Self::generic(format!("could not read a message: {malformed}"))
    }
}

/// How deep QEMU reads (`MAX_NESTING` of its JSON parser is 1024), less the message around the arguments.
const DEEPEST: usize = 1000;

impl Request {
    /// Reads a whole JSON object.
    ///
    /// # Errors
    /// The refusal of what is no message at all.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(text)
            .map_err(|error| Refusal::unreadable(&Malformed::not_json(text.as_bytes(), &error)))?;
        // An answer is one line. Line ends are only between an id's words: in a string they are escaped.
        let id = members.get("id").map(|id| id.get().replace(['\r', '\n'], " "));
        Ok(Self { id, command: command(&members) })
    }
}

fn command(members: &BTreeMap<String, &RawValue>) -> Result<Command, Refusal> {
    let (verb, name) = match (members.get("execute"), members.get("exec-oob")) {
        (Some(name), None) => ("execute", name),
        (None, Some(name)) => ("exec-oob", name),
        (None, None) => return Err(Refusal::generic("a message needs a member `execute`")),
        (Some(_), Some(_)) => return Err(Refusal::generic("`execute` and `exec-oob` exclude each other")),
    };
    if let Some(odd) =
        members.keys().find(|name| !["execute", "exec-oob", "arguments", "id"].contains(&name.as_str()))
    {
        return Err(Refusal::generic(format!("a message has no member `{}`", excerpt(odd.as_bytes()))));
    }
    let name: String = serde_json::from_str(name.get())
        .map_err(|_| Refusal::generic(format!("the member `{verb}` has to be a string")))?;
    let mut command = Command::new(name);
    if let Some(arguments) = members.get("arguments") {
        if !arguments.get().starts_with('{') {
            return Err(Refusal::generic("the member `arguments` has to be an object"));
        }
        if let Some(reason) = what_qemu_cannot_read(arguments.get()) {
            return Err(Refusal::generic(reason));
        }
        command = command.arguments(arguments).map_err(|error| Refusal::generic(error.to_string()))?;
    }
    if let Some(reason) = what_qemu_cannot_read(members[verb].get()) {
        return Err(Refusal::generic(reason));
    }
    Ok(if verb == "exec-oob" { command.oob() } else { command })
}

/// What is JSON and yet nothing that QEMU reads. It would answer with an error that names no command, and everybody whose
/// command is under way would have to take it for his own.
fn what_qemu_cannot_read(text: &str) -> Option<String> {
    let (mut depth, mut in_string) = (0_usize, false);
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let point = match character {
            '"' => {
                in_string = !in_string;
                continue;
            }
            '[' | '{' if !in_string => {
                depth += 1;
                if depth > DEEPEST {
                    return Some(format!("a message may be nested {DEEPEST} levels deep"));
                }
                continue;
            }
            ']' | '}' if !in_string => {
                depth -= 1;
                continue;
            }
            '\\' => match escaped(&mut rest) {
                Some(point) => point,
                None => continue,
            },
            character => u32::from(character),
        };
        if is_noncharacter(point) {
            return Some(format!("U+{point:04X} is no character, and QEMU does not take it"));
        }
    }
    None
}

/// The code point that an escape stands for, if it is one by number. Half a pair alone is found by whoever sends it.
fn escaped(rest: &mut std::str::Chars<'_>) -> Option<u32> {
    let unit = |rest: &mut std::str::Chars<'_>| {
        let text = rest.as_str();
        let unit = u32::from_str_radix(text.strip_prefix('u')?.get(..4)?, 16).ok()?;
        *rest = text[5..].chars();
        Some(unit)
    };
    let Some(first) = unit(rest) else {
        let _one_letter = rest.next();
        return None;
    };
    if !(0xd800..0xdc00).contains(&first) {
        return Some(first);
    }
    let mut ahead = rest.clone();
    let second = ahead.next().filter(|&next| next == '\\').and_then(|_| unit(&mut ahead))?;
    let second = second.checked_sub(0xdc00).filter(|second| *second < 0x400)?;
    *rest = ahead;
    Some(0x10000 + ((first - 0xd800) << 10) + second)
}

/// Unicode's noncharacters: 32 in a row, and the last two of each plane.
fn is_noncharacter(point: u32) -> bool {
    (0xfdd0..=0xfdef).contains(&point) || point & 0xfffe == 0xfffe
}

/// QEMU's reply under the peer's own id.
pub(crate) fn reply_text(reply: &Reply, id: Option<&str>) -> String {
    match (reply.return_text(), reply.error()) {
        (Some(value), _) => message(&format!(r#""return": {value}"#), id),
        (None, Some(error)) => error_text(error, id),
        (None, None) => refusal_text(&Refusal::generic("could not understand the reply"), id),
    }
}

/// A refusal of ratite's own.
pub(crate) fn refusal_text(refusal: &Refusal, id: Option<&str>) -> String {
    error_text(&CommandError { class: refusal.class.to_owned(), desc: refusal.reason.clone() }, id)
}

/// What a command that succeeded without QEMU is answered with.
pub(crate) fn done_text(id: Option<&str>) -> String {
    returned_text(&json!({}), id)
}

/// The same with a value.
pub(crate) fn returned_text(value: &Value, id: Option<&str>) -> String {
    message(&format!(r#""return": {value}"#), id)
}

fn error_text(error: &CommandError, id: Option<&str>) -> String {
    let text = |text: &String| to_wire(text).expect("a string serialises");
    let (class, desc) = (text(&error.class), text(&error.desc));
    message(&format!(r#""error": {{"class": {class}, "desc": {desc}}}"#), id)
}

fn message(outcome: &str, id: Option<&str>) -> String {
    match id {
        Some(id) => format!("{{{outcome}, \"id\": {id}}}\r\n"),
        None => format!("{{{outcome}}}\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(text: &str, reason: &str) {
        let refused = match Request::parse(text) {
            Ok(request) => request.command.unwrap_err(),
            Err(refusal) => refusal,
        };
        assert!(refused.reason.contains(reason), "{text}: {refused:?}");
    }

    #[test]
    fn a_command_keeps_its_id_and_its_arguments() {
        let text = r#"{"execute": "x", "arguments": {"a": [1e1, "ü"]}, "id": {"n":  [1, null]}}"#;

        let request = Request::parse(text).unwrap();

        let command = request.command.unwrap();
        assert_eq!(request.id.as_deref(), Some(r#"{"n":  [1, null]}"#));
        assert_eq!((command.name(), command.oob), ("x", false));
        assert!(Request::parse(r#"{"exec-oob": "x"}"#).unwrap().command.unwrap().oob);
    }

    #[test]
    fn an_id_of_several_lines_is_answered_in_one() {
        let request = Request::parse("{\"execute\": \"x\", \"id\": {\r\n\"n\": \"a\\n\"\n}}").unwrap();

        let answer = done_text(request.id.as_deref());

        assert_eq!(answer, "{\"return\": {}, \"id\": {  \"n\": \"a\\n\" }}\r\n");
    }

    #[test]
    fn what_is_no_command_is_refused_with_the_reason() {
        check_refused("{}", "`execute`");
        check_refused(r#"{"execute": 1}"#, "has to be a string");
        check_refused(r#"{"execute": "x", "arguments": []}"#, "has to be an object");
        check_refused(r#"{"execute": "x", "exec-oob": "x"}"#, "exclude");
        check_refused(r#"{"execute": "x", "argument": {}}"#, "no member `argument`");
        check_refused(r#"{"execute": 'x'}"#, "could not read a message");
        check_refused(r#"{"execute": "x", "arguments": {"a": "\ud800"}}"#, "surrogate");
    }

    #[test]
    fn what_qemu_would_answer_without_an_id_never_reaches_it() {
        let deep = |levels: usize| {
            format!(
                r#"{{"execute": "x", "arguments": {{"a": {}{}}}}}"#,
                "[".repeat(levels),
                "]".repeat(levels)
            )
        };
        assert!(Request::parse(&deep(900)).unwrap().command.is_ok());
        check_refused(&deep(1001), "1000 levels");
        check_refused(r#"{"execute": "x", "arguments": {"a": "\ufffe"}}"#, "U+FFFE");
        check_refused(r#"{"execute": "\uD83F\udffe"}"#, "U+1FFFE");
        check_refused("{\"execute\": \"x\", \"arguments\": {\"a\": \"\u{fdd0}\"}}", "U+FDD0");
        let brackets = format!(r#"{{"execute": "x", "arguments": {{"a": "\"\\{}"}}}}"#, "[".repeat(2000));
        assert!(Request::parse(&brackets).unwrap().command.is_ok());
    }

    #[test]
    fn an_answer_is_one_line_with_the_peers_id() {
        assert_eq!(done_text(None), "{\"return\": {}}\r\n");
        let refusal = Refusal::no_command("not \"now\"");
        assert_eq!(
            refusal_text(&refusal, Some("[1]")),
            "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"not \\\"now\\\"\"}, \"id\": [1]}\r\n"
        );
    }
}
