//! The types of a schema, as views into it.

use std::fmt;

use crate::schema::Schema;
use crate::schema::wire;
use crate::schema::wire::Entity;

/// A type as the schema keeps it; other types by their names.
#[derive(Debug, Clone)]
pub(super) enum TypeBody {
    Builtin(Builtin),
    Enum(Vec<EnumValue>),
    Array(String),
    Object(ObjectBody),
    Alternate(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Builtin {
    Str,
    Int,
    Number,
    Bool,
    Null,
    Any,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ObjectBody {
    members: Vec<MemberBody>,
    tag: Option<String>,
    variants: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
struct MemberBody {
    name: String,
    type_name: String,
    optional: bool,
    features: Vec<String>,
}

impl TypeBody {
    pub(super) fn of(entity: Entity) -> Self {
        match entity.meta_type.as_str() {
            "enum" => Self::Enum(values(entity)),
            "array" => Self::Array(entity.element_type.unwrap_or_default()),
            "object" => Self::Object(ObjectBody {
                members: entity.members.into_iter().map(MemberBody::of).collect(),
                tag: entity.tag,
                variants: entity
                    .variants
                    .into_iter()
                    .map(|variant| (variant.case, variant.type_name))
                    .collect(),
            }),
            "alternate" => {
                Self::Alternate(entity.members.into_iter().map(|choice| choice.type_name).collect())
            }
            _ => Self::Builtin(Builtin::named(&entity.name)),
        }
    }
}

/// The values of an enumeration; before QEMU 6.2 they are mere names.
fn values(entity: Entity) -> Vec<EnumValue> {
    match entity.members.is_empty() {
        true => entity.values.into_iter().map(|name| EnumValue { name, features: Vec::new() }).collect(),
        false => {
            let values = entity.members.into_iter();
            values.map(|value| EnumValue { name: value.name, features: value.features }).collect()
        }
    }
}

impl Builtin {
    fn named(name: &str) -> Self {
        match name {
            "str" => Self::Str,
            "int" => Self::Int,
            "number" => Self::Number,
            "bool" => Self::Bool,
            "null" => Self::Null,
            _ => Self::Any,
        }
    }
}

impl MemberBody {
    fn of(member: wire::Member) -> Self {
        let wire::Member { name, type_name, optional, features } = member;
        Self { name, type_name, optional, features }
    }
}

/// What a value may be. Displays as people say it: `integer`, `on | off`, `list of string`.
#[derive(Debug, Clone, Copy)]
pub enum Type<'a> {
    /// A string.
    Str,
    /// A whole number.
    Int,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
    /// Anything.
    Any,
    /// One of some strings.
    Enum(EnumType<'a>),
    /// Any number of values of one type.
    Array(ArrayType<'a>),
    /// Members with names, each with a type of its own.
    Object(ObjectType<'a>),
    /// A value of one of several types that are told apart by their JSON.
    Alternate(AlternateType<'a>),
}

impl<'a> Type<'a> {
    pub(super) fn named(schema: &'a Schema, name: &str) -> Self {
        match schema.types.get(name) {
            Some(TypeBody::Builtin(builtin)) => Self::of_builtin(*builtin),
            Some(TypeBody::Enum(values)) => Self::Enum(EnumType { values }),
            Some(TypeBody::Array(element)) => Self::Array(ArrayType { schema, element }),
            Some(TypeBody::Object(body)) => Self::Object(ObjectType { schema, body }),
            Some(TypeBody::Alternate(choices)) => Self::Alternate(AlternateType { schema, choices }),
            None => Self::of_builtin(Builtin::named(name)),
        }
    }

    fn of_builtin(builtin: Builtin) -> Self {
        match builtin {
            Builtin::Str => Self::Str,
            Builtin::Int => Self::Int,
            Builtin::Number => Self::Number,
            Builtin::Bool => Self::Bool,
            Builtin::Null => Self::Null,
            Builtin::Any => Self::Any,
        }
    }
}

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str => f.write_str("string"),
            Self::Int => f.write_str("integer"),
            Self::Number => f.write_str("number"),
            Self::Bool => f.write_str("true | false"),
            Self::Null => f.write_str("null"),
            Self::Any => f.write_str("anything"),
            Self::Object(_) => f.write_str("object"),
            // Not followed further: a peer may describe types that hold themselves.
            Self::Array(array) => match array.element() {
                Type::Array(_) => f.write_str("list of lists"),
                Type::Alternate(_) => f.write_str("list of values"),
                element => write!(f, "list of {element}"),
            },
            Self::Enum(values) => f.write_str(&values.names().collect::<Vec<_>>().join(" | ")),
            Self::Alternate(alternate) => {
                let choices = alternate.choices().map(|choice| choice.to_string());
                f.write_str(&choices.collect::<Vec<_>>().join(" | "))
            }
        }
    }
}

/// One of some strings.
#[derive(Debug, Clone, Copy)]
pub struct EnumType<'a> {
    values: &'a [EnumValue],
}

impl<'a> EnumType<'a> {
    /// The values, in QEMU's order.
    #[must_use]
    pub fn values(&self) -> &'a [EnumValue] {
        self.values
    }

    /// The names of the values, in QEMU's order.
    pub fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.values.iter().map(|value| value.name.as_str())
    }

    /// The value with this name, if there is one.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'a EnumValue> {
        self.values.iter().find(|value| value.name == name)
    }
}

/// A value of an enumeration.
#[derive(Debug, Clone)]
pub struct EnumValue {
    name: String,
    features: Vec<String>,
}

impl EnumValue {
    /// Its name, which is the value.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it may go.
    #[must_use]
    pub fn is_deprecated(&self) -> bool {
        has(&self.features, "deprecated")
    }

    /// Whether it may change.
    #[must_use]
    pub fn is_unstable(&self) -> bool {
        has(&self.features, "unstable")
    }
}

/// Any number of values of one type.
#[derive(Debug, Clone, Copy)]
pub struct ArrayType<'a> {
    schema: &'a Schema,
    element: &'a str,
}

impl<'a> ArrayType<'a> {
    /// What each of them may be.
    #[must_use]
    pub fn element(&self) -> Type<'a> {
        Type::named(self.schema, self.element)
    }
}

/// A value of one of several types.
#[derive(Debug, Clone, Copy)]
pub struct AlternateType<'a> {
    schema: &'a Schema,
    choices: &'a [String],
}

impl<'a> AlternateType<'a> {
    /// The types; none of them is an alternate again.
    pub fn choices(&self) -> impl Iterator<Item = Type<'a>> + use<'a> {
        let schema = self.schema;
        let choices = self.choices.iter().map(move |name| Type::named(schema, name));
        choices.filter(|choice| !matches!(choice, Type::Alternate(_)))
    }
}

/// Members with names. In a union, the value of one member, the tag, decides on further members.
#[derive(Debug, Clone, Copy)]
pub struct ObjectType<'a> {
    schema: &'a Schema,
    body: &'a ObjectBody,
}

/// How deeply unions may vary into unions; QEMU's own do so once.
const DEEPEST: usize = 8;

/// How many members an object may have that are looked at; QEMU's largest has some hundreds.
const MOST: usize = 10_000;

impl<'a> ObjectType<'a> {
    pub(super) fn named(schema: &'a Schema, name: &str) -> Self {
        const EMPTY: &ObjectBody = &ObjectBody { members: Vec::new(), tag: None, variants: Vec::new() };
        match schema.types.get(name) {
            Some(TypeBody::Object(body)) => Self { schema, body },
            _ => Self { schema, body: EMPTY },
        }
    }

    /// The name of the member that decides on others, if this is a union.
    #[must_use]
    pub fn tag(&self) -> Option<&'a str> {
        self.body.tag.as_deref()
    }

    /// The members, in QEMU's order, where `chosen` tells the value of a tag, if it has been chosen.
    #[must_use]
    pub fn members<'b>(&self, chosen: impl Fn(&str) -> Option<&'b str>) -> Vec<Member<'a>> {
        let mut members = Vec::new();
        self.collect(&|tag, case| chosen(tag) == Some(case), DEEPEST, &mut members);
        members
    }

    /// The members that it may have whatever its tags are; a name may stand there several times.
    #[must_use]
    pub fn every_member(&self) -> Vec<Member<'a>> {
        let mut members = Vec::new();
        // Nothing that varies into itself gets far.
        self.collect(&|_, _| true, 2, &mut members);
        members
    }

    fn collect(&self, is_chosen: &dyn Fn(&str, &str) -> bool, depth: usize, members: &mut Vec<Member<'a>>) {
        members.extend(self.body.members.iter().map(|body| Member { schema: self.schema, body }));
        let (Some(tag), 1..) = (self.tag(), depth) else { return };
        for (case, name) in &self.body.variants {
            if is_chosen(tag, case) && members.len() < MOST {
                Self::named(self.schema, name).collect(is_chosen, depth - 1, members);
            }
        }
    }
}

/// A member of an object, or an argument of a command.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    schema: &'a Schema,
    body: &'a MemberBody,
}

impl<'a> Member<'a> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        &self.body.name
    }

    /// What its value may be.
    #[must_use]
    pub fn member_type(&self) -> Type<'a> {
        Type::named(self.schema, &self.body.type_name)
    }

    /// Whether it may be left out.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        self.body.optional
    }

    /// Whether it may go.
    #[must_use]
    pub fn is_deprecated(&self) -> bool {
        has(&self.body.features, "deprecated")
    }

    /// Whether it may change.
    #[must_use]
    pub fn is_unstable(&self) -> bool {
        has(&self.body.features, "unstable")
    }
}

fn has(features: &[String], feature: &str) -> bool {
    features.iter().any(|candidate| candidate == feature)
}
