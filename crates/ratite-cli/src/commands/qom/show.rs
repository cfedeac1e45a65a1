//! `ratite qom get`, `list` and `tree`: what is there.

use ratite::qmp::Client;
use ratite::qmp::ExecuteError;
use serde_json::Value;
use serde_json::json;

use crate::args::Form;
use crate::commands::qom::failure;
use crate::commands::qom::place;
use crate::commands::qom::place::Place;
use crate::commands::qom::place::Property;
use crate::commands::qom::place::find;
use crate::commands::qom::place::properties;
use crate::commands::qom::read;
use crate::commands::qom::value::shown;
use crate::output;
use crate::report::Failure;

/// Tells a property, or all properties of an object.
pub(super) async fn get(
    client: &Client,
    place: &str,
    property: Option<&str>,
    form: Form,
) -> Result<(), Failure> {
    match find(client, place, property).await? {
        Place::Property { path, property } => {
            let name = &property.name;
            let value = read(client, &path, name).await.map_err(failure(format!("read `{path}.{name}`")))?;
            match form.json {
                true => output::json(&value),
                false => output::text(&value_text(&value)),
            }
            .map_err(Failure::output)
        }
        Place::Object { path, properties } => {
            let read = read_all(client, &path, &properties).await?;
            match form.json {
                true => output::json(&read.iter().map(Read::json).collect::<Vec<_>>()),
                false => output::text(&read.iter().map(|read| read.line("")).collect::<String>()),
            }
            .map_err(Failure::output)
        }
    }
}

/// The parts of a value that has parts, one a line.
fn value_text(value: &Value) -> String {
    match value {
        Value::Object(parts) => {
            parts.iter().map(|(name, part)| format!("{name}: {}\n", shown(part))).collect()
        }
        Value::Array(parts) => parts.iter().map(|part| shown(part) + "\n").collect(),
        // Alone it is as it is.
        Value::String(text) => format!("{text}\n"),
        other => format!("{other}\n"),
    }
}

/// A property with its value, or why it cannot be read.
struct Read<'a> {
    property: &'a Property,
    value: Result<Value, String>,
}

impl Read<'_> {
    fn line(&self, indent: &str) -> String {
        let Property { name, kind, .. } = self.property;
        match &self.value {
            Ok(value) => format!("{indent}{name}: {} ({kind})\n", shown(value)),
            Err(why) => format!("{indent}{name}: <{why}> ({kind})\n"),
        }
    }

    fn json(&self) -> Value {
        let Property { name, kind, .. } = self.property;
        match &self.value {
            Ok(value) => json!({ "name": name, "type": kind, "value": value }),
            Err(why) => json!({ "name": name, "type": kind, "error": why }),
        }
    }
}

/// All properties but the children, which are objects of their own.
async fn read_all<'a>(
    client: &Client,
    path: &str,
    properties: &'a [Property],
) -> Result<Vec<Read<'a>>, Failure> {
    let mut all = Vec::new();
    for property in properties.iter().filter(|property| !property.is_child()) {
        let value = match read(client, path, &property.name).await {
            Ok(value) => Ok(value),
            Err(ExecuteError::Refused { source, .. }) => Err(source.desc),
            Err(error) => return Err(failure(format!("read `{path}.{}`", property.name))(error)),
        };
        all.push(Read { property, value });
    }
    Ok(all)
}

/// Lists what an object has.
pub(super) async fn list(client: &Client, path: &str, form: Form) -> Result<(), Failure> {
    let properties = properties(client, path).await?;
    match form.json {
        true => output::json(&properties),
        false => output::text(&list_text(&properties)),
    }
    .map_err(Failure::output)
}

fn list_text(properties: &[Property]) -> String {
    let names: Vec<String> = properties.iter().map(marked).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let lines = names.iter().zip(properties).map(|(name, it)| format!("{name:<longest$}  {}\n", it.kind));
    lines.collect()
}

fn marked(property: &Property) -> String {
    match &property.name {
        name if property.is_child() => format!("{name}/"),
        name if property.is_link() => format!("@{name}"),
        name => name.clone(),
    }
}

/// Lists an object and those below it.
pub(super) async fn tree(
    client: &Client,
    path: &str,
    depth: usize,
    values: bool,
    form: Form,
) -> Result<(), Failure> {
    // The type of what has no parent, or is named by the end of its path, is a property.
    properties(client, path).await?;
    let kind = read(client, path, "type").await.map_err(failure(format!("read `{path}.type`")))?;
    let mut waiting = vec![(path.to_owned(), shown(&kind), 0)];
    while let Some((path, kind, level)) = waiting.pop() {
        // What was unplugged meanwhile is left out.
        let Ok(listed) = place::list(client, &path).await? else { continue };
        let read = if values { read_all(client, &path, &listed).await? } else { Vec::new() };
        match form.json {
            true if values => {
                let read: Vec<_> = read.iter().map(Read::json).collect();
                output::json(&json!({ "path": path, "type": kind, "properties": read }))
            }
            true => output::json(&json!({ "path": path, "type": kind })),
            false => {
                let lines: String = read.iter().map(|read| read.line("  ")).collect();
                output::text(&format!("{path} ({kind})\n{lines}{}", if values { "\n" } else { "" }))
            }
        }
        .map_err(Failure::output)?;
        if level < depth {
            let children = listed.into_iter().filter(Property::is_child).map(|child| {
                let kind = child.kind.trim_start_matches("child<").trim_end_matches('>').to_owned();
                (format!("{}/{}", path.trim_end_matches('/'), child.name), kind, level + 1)
            });
            let first = waiting.len();
            waiting.extend(children);
            waiting[first..].reverse();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(name: &str, kind: &str) -> Property {
        Property { name: name.into(), kind: kind.into(), description: None }
    }

    #[test]
    fn children_and_links_are_marked() {
        let properties = [
            property("type", "string"),
            property("peripheral", "child<container>"),
            property("cpu", "link<cpu>"),
        ];

        assert_eq!(
            list_text(&properties),
            "type         string\nperipheral/  child<container>\n@cpu         link<cpu>\n"
        );
    }

    #[test]
    fn a_value_with_parts_has_a_line_for_each() {
        assert_eq!(value_text(&json!({ "a": 1, "b": "x" })), "a: 1\nb: x\n");
        assert_eq!(value_text(&json!(["x", 2])), "x\n2\n");
        assert_eq!(value_text(&json!("x\ny")), "x\ny\n");
    }

    #[test]
    fn what_cannot_be_read_has_its_reason() {
        let property = property("secret", "string");
        let read = Read { property: &property, value: Err("it is not readable".into()) };

        assert_eq!(read.line("  "), "  secret: <it is not readable> (string)\n");
    }
}
