//! `help`: what the machine says of its commands, for people. Pure.

use ratite::qmp::CommandSchema;
use ratite::qmp::Schema;
use ratite::qmp::Type;

use crate::language::Mistake;
use crate::language::Word;

/// How wide a list of names is.
const WIDTH: usize = 78;

/// Up to how many letters the values of an enumeration are shown.
const LONGEST: usize = 400;

/// What there is to know of all commands, or of the one that `words` names; further words may choose a tag's value.
pub(super) fn help(schema: Option<&Schema>, names: &[String], words: &[Word]) -> Result<String, Mistake> {
    let Some((name, given)) = words.split_first() else {
        let names: Vec<&str> = match schema {
            Some(schema) => schema.commands().collect(),
            None => names.iter().map(String::as_str).collect(),
        };
        return Ok(format!("{}\n{OWN}", columns(&names)));
    };
    let Some(schema) = schema else {
        return Err(Mistake::new("the machine tells nothing of its commands but their names"));
    };
    match schema.command(&name.text) {
        Some(command) => Ok(one(command, given)),
        None => {
            let mistake = Mistake::new(format!("this QEMU has no command `{}`", name.text));
            Err(mistake.among(&name.text, schema.commands()))
        }
    }
}

const OWN: &str = "\
`help COMMAND` shows a command's arguments; `help COMMAND key=value` those that go with a value.
`transaction(` begins a transaction, `)` sends it, `exit` leaves.
";

fn one(command: CommandSchema<'_>, given: &[Word]) -> String {
    let given: Vec<_> =
        given.iter().filter_map(|word| Some((word.key()?.to_owned(), word.value().text))).collect();
    let chosen = |tag: &str| given.iter().find(|(key, _)| key == tag).map(|(_, value)| value.as_str());
    let arguments = command.arguments();
    let members = arguments.members(chosen);
    let mut text = command.name().to_owned();
    if !command.features().is_empty() {
        text += &format!("  ({})", command.features().join(", "));
    }
    text.push('\n');
    let shown = |name: &str, is_optional| if is_optional { format!("[{name}]") } else { name.to_owned() };
    let width = members.iter().map(|member| member.name().len() + 2).max().unwrap_or_default();
    for member in &members {
        let name = shown(member.name(), member.is_optional());
        text += &format!("  {name:width$}  {}", cut(member.member_type()));
        for (is_so, word) in [(member.is_deprecated(), "deprecated"), (member.is_unstable(), "unstable")] {
            if is_so {
                text += &format!("  ({word})");
            }
        }
        text.push('\n');
    }
    if let Some(tag) = arguments.tag().filter(|tag| chosen(tag).is_none()) {
        text += &format!("  and what goes with `{tag}`: `help {} {tag}=…`\n", command.name());
    }
    if command.takes_more() {
        text += "  and others, of which QEMU tells nothing here\n";
    }
    if members.is_empty() && !command.takes_more() {
        text += "  takes no arguments\n";
    }
    if !matches!(command.returns(), Type::Object(object) if object.every_member().is_empty()) {
        text += &format!("  returns {}\n", cut(command.returns()));
    }
    text
}

fn cut(shown: Type<'_>) -> String {
    let shown = shown.to_string();
    match shown.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// Names in columns.
fn columns(names: &[&str]) -> String {
    let width = names.iter().map(|name| name.len() + 2).max().unwrap_or(1);
    let lines = names.chunks((WIDTH / width).max(1)).map(|row| {
        let row: String = row.iter().map(|name| format!("{name:width$}")).collect();
        format!("{}\n", row.trim_end())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::split;
    use serde_json::json;

    #[test]
    fn a_commands_arguments_are_shown_with_their_types() {
        let schema: Schema = serde_json::from_value(json!([
            { "name": "blockdev-add", "meta-type": "command", "arg-type": "1", "ret-type": "0", "features": ["f"] },
            { "name": "stop", "meta-type": "command", "arg-type": "0", "ret-type": "0" },
            { "name": "query-name", "meta-type": "command", "arg-type": "0", "ret-type": "str" },
            { "name": "0", "meta-type": "object", "members": [] },
            { "name": "1", "meta-type": "object", "tag": "driver", "members": [
                { "name": "driver", "type": "2" },
                { "name": "id", "type": "str", "default": null, "features": ["deprecated"] } ],
              "variants": [ { "case": "file", "type": "4" } ] },
            { "name": "2", "meta-type": "enum", "values": ["file", "null-co"] },
            { "name": "4", "meta-type": "object", "members": [ { "name": "filename", "type": "str" } ] },
        ]))
        .unwrap();
        let help = |line: &str| help(Some(&schema), &[], &split(line).unwrap()).unwrap();

        assert_eq!(
            help("blockdev-add"),
            "blockdev-add  (f)\n  driver    file | null-co\n  [id]      string  (deprecated)\n  \
             and what goes with `driver`: `help blockdev-add driver=…`\n"
        );
        assert!(help("blockdev-add driver=file").contains("\n  filename    string\n"));
        assert_eq!(help("stop"), "stop\n  takes no arguments\n");
        assert_eq!(help("query-name"), "query-name\n  takes no arguments\n  returns string\n");
        assert!(help("").starts_with("blockdev-add  query-name    stop\n"));
    }
}
