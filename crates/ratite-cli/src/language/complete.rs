//! What may stand where the cursor is.

use ratite::qmp::ObjectType;
use ratite::qmp::Schema;
use ratite::qmp::Type;

use crate::language::reader::member;
use crate::language::words::Word;
use crate::language::words::split;

/// What may follow at the end of a line, and where in the line the word that it replaces begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Completion {
    pub(crate) start: usize,
    pub(crate) candidates: Vec<Candidate>,
}

/// A word that may stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The word as it is listed.
    pub(crate) shown: String,
    /// What is put into the line, with what has to follow.
    pub(crate) text: String,
}

/// Words of the shell itself, beside QEMU's commands.
const OWN: [&str; 3] = ["exit", "help", "transaction("];

/// What may follow at the end of `line`, which is all that stands before the cursor.
///
/// `names` are the commands where there is no schema; in a transaction, commands are its actions.
pub(crate) fn complete(
    line: &str,
    schema: Option<&Schema>,
    names: &[String],
    in_transaction: bool,
) -> Completion {
    let start = last_word(line);
    let (before, last) = line.split_at(start);
    let Ok(mut words) = split(before) else { return Completion::default() };
    let mut in_transaction = in_transaction;
    if words.first().is_some_and(|word| word.text == "transaction(") {
        words.remove(0);
        in_transaction = true;
    }
    let commands = || commands(schema, names, in_transaction);
    let candidates = match words.split_first() {
        None => match in_transaction {
            true => matching(last, commands().into_iter().chain([")".to_owned()])),
            false => matching(last, commands().into_iter().chain(OWN.map(str::to_owned))),
        },
        Some((command, [])) if command.text == "help" => matching(last, commands().into_iter()),
        Some((command, given)) => {
            let arguments = schema.and_then(|schema| arguments(schema, &command.text, in_transaction));
            return arguments.map(|object| argument(object, given, last, start)).unwrap_or_default();
        }
    };
    Completion { start, candidates }
}

/// Where the last word of `line` begins; blanks within quotes and brackets are no ends.
fn last_word(line: &str) -> usize {
    let mut blanks = line.char_indices().filter(|(_, letter)| letter.is_whitespace());
    let after = |(at, letter): (usize, char)| at + letter.len_utf8();
    let last_blank = blanks.next_back().map_or(0, after);
    // What is not closed before the last blank goes on behind it.
    match split(&line[..last_blank]) {
        Ok(_) => last_blank,
        Err(_) => line.len(),
    }
}

fn commands(schema: Option<&Schema>, names: &[String], in_transaction: bool) -> Vec<String> {
    let actions = || {
        let actions = schema.and_then(|schema| arguments(schema, "transaction", false))?;
        let Type::Array(list) = member(actions, "actions", |_| None)?.member_type() else { return None };
        let Type::Object(action) = list.element() else { return None };
        let Type::Enum(names) = member(action, "type", |_| None)?.member_type() else { return None };
        Some(names.names().map(str::to_owned).collect())
    };
    match (in_transaction, schema) {
        (true, _) => actions().unwrap_or_default(),
        (false, Some(schema)) => schema.commands().map(str::to_owned).collect(),
        (false, None) => names.to_vec(),
    }
}

fn arguments<'a>(schema: &'a Schema, command: &str, in_transaction: bool) -> Option<ObjectType<'a>> {
    if !in_transaction {
        return Some(schema.command(command)?.arguments());
    }
    let transaction = schema.command("transaction")?.arguments();
    let Type::Array(list) = member(transaction, "actions", |_| None)?.member_type() else { return None };
    let Type::Object(action) = list.element() else { return None };
    let Type::Object(data) = member(action, "data", |_| Some(command))?.member_type() else { return None };
    Some(data)
}

/// What may follow as an argument: a name, or a value behind a `=`.
fn argument(object: ObjectType<'_>, given: &[Word], last: &str, start: usize) -> Completion {
    if last.contains(['"', '\'', '\\', '{', '[']) {
        return Completion::default();
    }
    let given: Vec<(&str, String)> =
        given.iter().filter_map(|word| Some((word.key()?, word.value().text))).collect();
    let key = last.split_once('=').map_or(last, |(key, _)| key);
    let (above, name) = key.rsplit_once('.').map_or(("", key), |(above, name)| (above, name));
    let Some(object) = inner(object, above, &given) else { return Completion::default() };
    let chosen = |tag: &str| chosen(&given, above, tag);
    match last.split_once('=') {
        Some((_, value)) => {
            let values = member(object, name, chosen).map(|member| values(member.member_type()));
            let candidates = matching(value, values.unwrap_or_default().into_iter());
            Completion { start: start + key.len() + 1, candidates }
        }
        None => {
            let place = start + key.len() - name.len();
            Completion { start: place, candidates: keys(object, above, name, &given) }
        }
    }
}

/// The object that a path of names leads to.
fn inner<'a>(object: ObjectType<'a>, path: &str, given: &[(&str, String)]) -> Option<ObjectType<'a>> {
    let mut object = object;
    let mut above = String::new();
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let next = member(object, name, |tag| chosen(given, &above, tag))?.member_type();
        object = as_object(next)?;
        above = joined(&above, name);
    }
    Some(object)
}

fn as_object(wanted: Type<'_>) -> Option<ObjectType<'_>> {
    match wanted {
        Type::Object(object) => Some(object),
        Type::Alternate(alternate) => alternate.choices().find_map(|choice| match choice {
            Type::Object(object) => Some(object),
            _ => None,
        }),
        _ => None,
    }
}

/// What is given for the tag of the object at the path `above`.
fn chosen<'a>(given: &'a [(&str, String)], above: &str, tag: &str) -> Option<&'a str> {
    let path = joined(above, tag);
    given.iter().find(|(key, _)| *key == path).map(|(_, value)| value.as_str())
}

fn joined(above: &str, name: &str) -> String {
    match above {
        "" => name.to_owned(),
        above => format!("{above}.{name}"),
    }
}

/// The names that begin with `name` and are not given yet. What must be given comes first.
fn keys(object: ObjectType<'_>, above: &str, name: &str, given: &[(&str, String)]) -> Vec<Candidate> {
    let mut members = object.members(|tag| chosen(given, above, tag));
    members.sort_by_key(|member| (member.is_optional(), member.name()));
    let free = members.into_iter().filter(|member| {
        let path = joined(above, member.name());
        member.name().starts_with(name) && !given.iter().any(|(key, _)| *key == path)
    });
    let candidates = free.map(|member| {
        let sign = match member.member_type() {
            Type::Object(_) => ".",
            _ => "=",
        };
        let text = format!("{}{sign}", member.name());
        Candidate { shown: text.clone(), text }
    });
    candidates.collect()
}

/// The values that can be told beforehand.
fn values(wanted: Type<'_>) -> Vec<String> {
    match wanted {
        Type::Bool => vec!["true".into(), "false".into()],
        Type::Null => vec!["null".into()],
        Type::Enum(values) => values.names().map(str::to_owned).collect(),
        Type::Alternate(alternate) => alternate.choices().flat_map(values).collect(),
        _ => Vec::new(),
    }
}

fn matching(beginning: &str, words: impl Iterator<Item = String>) -> Vec<Candidate> {
    let words = words.filter(|word| word.starts_with(beginning));
    words.map(|word| Candidate { text: format!("{word} "), shown: word }).collect()
}
