//! What a QEMU says of its own commands, events and types: the reply to `query-qmp-schema`, made askable.
//!
//! Pure; lives as long as whoever has read it. QEMU numbers its types instead of naming them, so a type is asked for
//! by what has it.

mod types;
mod wire;

use std::collections::BTreeMap;
use std::collections::HashMap;

use serde::Deserialize;
use serde::Deserializer;

use crate::schema::types::TypeBody;
use crate::schema::wire::Entity;

pub use crate::schema::types::AlternateType;
pub use crate::schema::types::ArrayType;
pub use crate::schema::types::EnumType;
pub use crate::schema::types::EnumValue;
pub use crate::schema::types::Member;
pub use crate::schema::types::ObjectType;
pub use crate::schema::types::Type;

/// What a QEMU says of its own commands, events and types.
///
/// It is what `query-qmp-schema` returns, which every QEMU since 2.5 knows; some 200 KB of JSON.
///
/// ```no_run
/// # async fn example(client: ratite_qmp::Client) -> Result<(), ratite_qmp::ExecuteError> {
/// use ratite_qmp::Schema;
///
/// let schema: Schema = client.execute_as("query-qmp-schema", ()).await?;
/// let add = schema.command("blockdev-add").expect("every QEMU has it");
/// for member in add.arguments().members(|_| None) {
///     println!("{}: {}", member.name(), member.member_type());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Schema {
    commands: BTreeMap<String, CommandBody>,
    events: BTreeMap<String, EventBody>,
    types: HashMap<String, TypeBody>,
}

#[derive(Debug, Clone)]
struct CommandBody {
    arguments: String,
    returns: String,
    allows_oob: bool,
    features: Vec<String>,
}

#[derive(Debug, Clone)]
struct EventBody {
    data: String,
    features: Vec<String>,
}

impl Schema {
    /// The names of all commands, in order.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.commands.keys().map(String::as_str)
    }

    /// What there is to know of a command; `None` for one that this QEMU does not have.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<CommandSchema<'_>> {
        let (name, body) = self.commands.get_key_value(name)?;
        Some(CommandSchema { schema: self, name, body })
    }

    /// The names of all events, in order.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        self.events.keys().map(String::as_str)
    }

    /// What there is to know of an event; `None` for one that this QEMU does not have.
    #[must_use]
    pub fn event(&self, name: &str) -> Option<EventSchema<'_>> {
        let (name, body) = self.events.get_key_value(name)?;
        Some(EventSchema { schema: self, name, body })
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entities = Vec::<Entity>::deserialize(deserializer)?;
        let mut schema = Self::default();
        for entity in entities {
            schema.take(entity);
        }
        Ok(schema)
    }
}

impl Schema {
    fn take(&mut self, entity: Entity) {
        let features = entity.features.clone();
        let argument_type = entity.arg_type.clone().unwrap_or_default();
        match entity.meta_type.as_str() {
            "command" => {
                let body = CommandBody {
                    arguments: argument_type,
                    returns: entity.ret_type.unwrap_or_default(),
                    allows_oob: entity.allow_oob,
                    features,
                };
                self.commands.insert(entity.name, body);
            }
            "event" => {
                self.events.insert(entity.name, EventBody { data: argument_type, features });
            }
            _ => {
                let name = entity.name.clone();
                self.types.insert(name, TypeBody::of(entity));
            }
        }
    }
}

/// What there is to know of a command.
#[derive(Debug, Clone, Copy)]
pub struct CommandSchema<'a> {
    schema: &'a Schema,
    name: &'a str,
    body: &'a CommandBody,
}

impl<'a> CommandSchema<'a> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Its arguments, as the members of an object.
    #[must_use]
    pub fn arguments(&self) -> ObjectType<'a> {
        ObjectType::named(self.schema, &self.body.arguments)
    }

    /// What it returns.
    #[must_use]
    pub fn returns(&self) -> Type<'a> {
        Type::named(self.schema, &self.body.returns)
    }

    /// Whether it takes more arguments than the schema tells of: those of `device_add` are the device's properties.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        // The schema does not say which commands do. These did in some version; where they are described in full,
        // they are unions.
        let did = ["device_add", "netdev_add", "object-add"].contains(&self.name);
        did && self.arguments().tag().is_none()
    }

    /// Whether it may be sent out of band.
    #[must_use]
    pub fn allows_oob(&self) -> bool {
        self.body.allows_oob
    }

    /// Its features, such as `deprecated` and `unstable`.
    #[must_use]
    pub fn features(&self) -> &'a [String] {
        &self.body.features
    }
}

/// What there is to know of an event.
#[derive(Debug, Clone, Copy)]
pub struct EventSchema<'a> {
    schema: &'a Schema,
    name: &'a str,
    body: &'a EventBody,
}

impl<'a> EventSchema<'a> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// What it says, as the members of an object.
    #[must_use]
    pub fn data(&self) -> ObjectType<'a> {
        ObjectType::named(self.schema, &self.body.data)
    }

    /// Its features, such as `deprecated` and `unstable`.
    #[must_use]
    pub fn features(&self) -> &'a [String] {
        &self.body.features
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Schema {
        serde_json::from_value(json!([
            { "name": "blockdev-add", "meta-type": "command", "arg-type": "1", "ret-type": "0" },
            { "name": "device_add", "meta-type": "command", "arg-type": "3", "ret-type": "0",
              "features": ["json-cli"], "allow-oob": true },
            { "name": "STOP", "meta-type": "event", "arg-type": "0" },
            { "name": "0", "meta-type": "object", "members": [] },
            { "name": "1", "meta-type": "object", "tag": "driver", "members": [
                { "name": "driver", "type": "2" },
                { "name": "node-name", "type": "str", "default": null, "features": ["deprecated"] } ],
              "variants": [ { "case": "file", "type": "4" }, { "case": "null-co", "type": "0" } ] },
            { "name": "2", "meta-type": "enum", "values": ["file", "null-co", "vvfat"],
              "members": [ { "name": "file" }, { "name": "null-co", "features": ["unstable"] }, { "name": "vvfat" } ] },
            { "name": "3", "meta-type": "object", "members": [ { "name": "driver", "type": "str" } ] },
            { "name": "4", "meta-type": "object", "members": [
                { "name": "filename", "type": "str" }, { "name": "backing", "type": "5", "default": null },
                { "name": "sizes", "type": "[int]", "default": null } ] },
            { "name": "5", "meta-type": "alternate", "members": [ { "type": "1" }, { "type": "null" } ] },
            { "name": "[int]", "meta-type": "array", "element-type": "int" },
            { "name": "int", "meta-type": "builtin", "json-type": "int" },
            { "name": "str", "meta-type": "builtin", "json-type": "string" },
            { "name": "null", "meta-type": "builtin", "json-type": "null" },
        ]))
        .unwrap()
    }

    fn names(members: Vec<Member<'_>>) -> Vec<&str> {
        members.iter().map(Member::name).collect()
    }

    #[test]
    fn commands_and_events_are_told() {
        let schema = schema();

        assert_eq!(schema.commands().collect::<Vec<_>>(), ["blockdev-add", "device_add"]);
        assert_eq!(schema.events().collect::<Vec<_>>(), ["STOP"]);
        assert!(schema.command("STOP").is_none() && schema.event("device_add").is_none());
        assert!(schema.event("STOP").unwrap().data().members(|_| None).is_empty());
        let add = schema.command("device_add").unwrap();
        assert!(add.takes_more() && add.allows_oob() && add.features() == ["json-cli"]);
        assert!(!schema.command("blockdev-add").unwrap().takes_more());
    }

    #[test]
    fn the_members_of_a_union_depend_on_its_tag() {
        let schema = schema();
        let arguments = schema.command("blockdev-add").unwrap().arguments();

        assert_eq!(arguments.tag(), Some("driver"));
        assert_eq!(names(arguments.members(|_| None)), ["driver", "node-name"]);
        let file = |tag: &str| (tag == "driver").then_some("file");
        assert_eq!(names(arguments.members(file)), ["driver", "node-name", "filename", "backing", "sizes"]);
        assert_eq!(names(arguments.members(|_| Some("null-co"))), ["driver", "node-name"]);
        assert_eq!(names(arguments.every_member()).len(), 5);
        let members = arguments.members(file);
        assert_eq!(
            members.iter().map(Member::is_optional).collect::<Vec<_>>(),
            [false, true, false, true, true]
        );
        assert!(members[1].is_deprecated() && !members[0].is_deprecated());
    }

    #[test]
    fn types_are_told_by_what_they_take() {
        let schema = schema();
        let members = schema.command("blockdev-add").unwrap().arguments().members(|_| Some("file"));
        let shown: Vec<_> = members.iter().map(|member| member.member_type().to_string()).collect();

        assert_eq!(shown, ["file | null-co | vvfat", "string", "string", "object | null", "list of integer"]);
        let Type::Enum(drivers) = members[0].member_type() else { panic!() };
        assert!(drivers.value("null-co").unwrap().is_unstable() && drivers.value("qcow2").is_none());
    }

    #[test]
    fn a_type_that_is_not_described_takes_anything() {
        let schema: Schema =
            serde_json::from_value(json!([{ "name": "x", "meta-type": "command", "arg-type": "9" }]))
                .unwrap();

        let command = schema.command("x").unwrap();
        assert!(command.arguments().members(|_| None).is_empty());
        assert!(matches!(command.returns(), Type::Any));
    }

    #[test]
    fn types_that_hold_themselves_have_an_end() {
        let schema: Schema = serde_json::from_value(json!([
            { "name": "x", "meta-type": "command", "arg-type": "1", "ret-type": "2" },
            { "name": "1", "meta-type": "object", "tag": "t", "members": [{ "name": "t", "type": "str" }],
              "variants": vec![json!({ "case": "a", "type": "1" }); 50] },
            { "name": "2", "meta-type": "alternate", "members": [{ "type": "2" }, { "type": "3" }] },
            { "name": "3", "meta-type": "array", "element-type": "2" },
        ]))
        .unwrap();

        let command = schema.command("x").unwrap();
        assert!(command.arguments().members(|_| Some("a")).len() <= 10_100);
        assert_eq!(command.returns().to_string(), "list of values");
    }
}
