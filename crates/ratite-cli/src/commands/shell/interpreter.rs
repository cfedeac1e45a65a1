//! What a line means, for QMP and for the guest agent. Pure.

use std::sync::Arc;

use ratite::qmp::Schema;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::commands::shell::help;
use crate::language::Mistake;
use crate::language::Reader;
use crate::language::Request;
use crate::language::Word;
use crate::language::split;

/// What a line asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Nothing: it is empty, or a comment, or a part of what is not complete yet.
    Nothing,
    /// To be told something that needs no machine.
    Say(String),
    /// A command to be sent.
    Send(Request),
    /// The same, after which this CPU is the chosen one.
    Choose(Request, u64),
    /// The end of the shell.
    Leave,
}

/// Reads lines, and remembers the transaction that they make.
#[derive(Debug, Default)]
pub(super) struct Interpreter {
    /// What the machine says of its commands, if it does.
    schema: Option<Arc<Schema>>,
    /// The names of its commands, where it says no more.
    names: Arc<[String]>,
    /// Whether what the machine does not know is a mistake.
    is_strict: bool,
    /// The actions of the transaction that is being written.
    transaction: Option<Vec<Value>>,
}

impl Interpreter {
    pub(super) fn new(schema: Option<Arc<Schema>>, names: Arc<[String]>, is_strict: bool) -> Self {
        Self { schema, names, is_strict, transaction: None }
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Gives up the transaction that is being written; whether there was one.
    pub(super) fn abandon(&mut self) -> bool {
        self.transaction.take().is_some()
    }

    /// What `line` asks for.
    pub(super) fn read(&mut self, line: &str) -> Result<Step, Mistake> {
        let words = split(line)?;
        let Some((first, rest)) = words.split_first() else { return Ok(Step::Nothing) };
        match (first.text.as_str(), rest) {
            ("transaction(", _) if self.is_in_transaction() => {
                Err(Mistake::new("a transaction cannot be within another"))
            }
            ("transaction(", []) => {
                self.transaction = Some(Vec::new());
                Ok(Step::Nothing)
            }
            ("transaction(", rest) => {
                self.transaction = Some(Vec::new());
                let step = self.part(rest);
                if step.is_err() {
                    // The line that began it is not done, so nothing has begun.
                    self.transaction = None;
                }
                step
            }
            ("exit", []) => Ok(Step::Leave),
            _ if self.is_in_transaction() => self.part(&words),
            ("help", rest) => help::help(self.schema.as_deref(), &self.names, rest).map(Step::Say),
            _ if first.is_object() => self.object(first, rest).map(Step::Send),
            _ => self.request(first, rest).map(Step::Send),
        }
    }

    fn reader(&self) -> Reader<'_> {
        Reader { schema: self.schema.as_deref(), is_strict: self.is_strict }
    }

    fn request(&self, name: &Word, arguments: &[Word]) -> Result<Request, Mistake> {
        let is_unknown = !self.names.is_empty() && !self.names.contains(&name.text);
        if self.schema.is_none() && self.is_strict && is_unknown {
            let mistake = Mistake::new(format!("there is no command `{}` here", name.text));
            return Err(mistake.among(&name.text, self.names.iter().map(String::as_str)));
        }
        self.reader().request(name, arguments)
    }

    /// A whole message: `{"execute": "NAME", "arguments": {…}}`.
    fn object(&self, message: &Word, rest: &[Word]) -> Result<Request, Mistake> {
        if !rest.is_empty() {
            return Err(Mistake::new("something stands behind the message"));
        }
        let read: Result<Map<String, Value>, _> = serde_json::from_str(&message.text);
        let mut read = read.map_err(|error| Mistake::new(format!("the message is no JSON: {error}")))?;
        let (name, arguments) = (read.remove("execute"), read.remove("arguments"));
        match (name, arguments) {
            (Some(Value::String(name)), None) => {
                self.reader().checked_request(Request { name, arguments: Map::new() })
            }
            (Some(Value::String(name)), Some(Value::Object(arguments))) => {
                self.reader().checked_request(Request { name, arguments })
            }
            _ => Err(Mistake::new("a message is written `{\"execute\": \"NAME\", \"arguments\": {…}}`")),
        }
    }

    /// A line of a transaction.
    fn part(&mut self, words: &[Word]) -> Result<Step, Mistake> {
        let is_end = |word: &Word| word.text == ")" && !word.has_quotes();
        let (words, is_last) = match words.split_last() {
            Some((last, words)) if is_end(last) => (words, true),
            _ => (words, false),
        };
        if words.iter().any(is_end) {
            return Err(Mistake::new("something stands behind the `)` of the transaction"));
        }
        if let Some((name, arguments)) = words.split_first() {
            let Request { name, arguments } = self.reader().action(name, arguments)?;
            self.transaction.get_or_insert_default().push(json!({ "type": name, "data": arguments }));
        }
        match is_last {
            true => {
                let actions = self.transaction.take().unwrap_or_default();
                let arguments = Map::from_iter([("actions".to_owned(), Value::Array(actions))]);
                Ok(Step::Send(Request { name: "transaction".into(), arguments }))
            }
            false => Ok(Step::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(interpreter: &mut Interpreter, line: &str) -> Result<Value, String> {
        match interpreter.read(line) {
            Ok(Step::Send(request)) => Ok(json!({ request.name: request.arguments })),
            Ok(step) => Ok(format!("{step:?}").into()),
            Err(mistake) => Err(mistake.to_string()),
        }
    }

    #[track_caller]
    fn check(lines: &[&str], expected: Result<Value, &str>) {
        let mut interpreter = Interpreter { is_strict: true, ..Interpreter::default() };
        let mut last = Err(String::new());
        for line in lines {
            last = read(&mut interpreter, line);
        }
        assert_eq!(last, expected.map_err(str::to_owned), "{lines:?}");
    }

    #[test]
    fn lines_are_commands_comments_or_nothing() {
        check(&[""], Ok("Nothing".into()));
        check(&["  # stop"], Ok("Nothing".into()));
        check(&[" stop "], Ok(json!({"stop": {}})));
        check(&["x a=1"], Ok(json!({"x": {"a": 1}})));
        check(&["exit"], Ok("Leave".into()));
        check(&[r#"{"execute": "x", "arguments": {"a": 1}}"#], Ok(json!({"x": {"a": 1}})));
        check(&[r#"{"execute": "x"}"#], Ok(json!({"x": {}})));
        check(
            &[r#"{"return": {}}"#],
            Err("a message is written `{\"execute\": \"NAME\", \"arguments\": {…}}`"),
        );
    }

    #[test]
    fn a_transaction_has_one_line_or_many() {
        let expected =
            json!({"transaction": {"actions": [{"type": "a", "data": {"x": 1}}, {"type": "b", "data": {}}]}});

        check(&["transaction(", "a x=1", "", "# no", "b", ")"], Ok(expected.clone()));
        check(&["transaction( a x=1", "b )"], Ok(expected));
        check(&["transaction( b )"], Ok(json!({"transaction": {"actions": [{"type": "b", "data": {}}]}})));
        check(&["transaction(", ")"], Ok(json!({"transaction": {"actions": []}})));
        check(
            &["transaction(", "a ')'"],
            Err("`)` has no `=`; an argument is written `key=value`, or all of them as one object in JSON"),
        );
    }

    #[test]
    fn what_breaks_a_transaction_is_named() {
        check(&["transaction(", ") x"], Err("something stands behind the `)` of the transaction"));
        check(&["transaction(", "transaction("], Err("a transaction cannot be within another"));
        let mut interpreter = Interpreter::default();

        assert!(interpreter.read("transaction( a x").is_err() && !interpreter.is_in_transaction());
        interpreter.read("transaction(").unwrap();
        assert!(interpreter.read("a x").is_err() && interpreter.is_in_transaction());
        assert!(interpreter.abandon() && !interpreter.abandon());
    }

    #[test]
    fn where_only_names_are_known_they_are_checked() {
        let names: Arc<[String]> = ["guest-ping".to_owned()].into();
        let mut interpreter = Interpreter { names, is_strict: true, ..Interpreter::default() };

        assert_eq!(
            read(&mut interpreter, "guest-pong").unwrap_err(),
            "there is no command `guest-pong` here; did you mean `guest-ping`?"
        );
        assert_eq!(read(&mut interpreter, "guest-ping"), Ok(json!({"guest-ping": {}})));
    }
}
