//! Words to a request: what each value means by the schema of the running QEMU, or by a guess where it says nothing.
//!
//! A guess is what the original shell makes of a value, and more: whole numbers (also in hex), numbers, `true` and
//! `false` in any case, `null`, brackets in JSON or Python, and text for all the rest and for what is quoted.

use ratite::qmp::AlternateType;
use ratite::qmp::EnumType;
use ratite::qmp::Member;
use ratite::qmp::ObjectType;
use ratite::qmp::Schema;
use ratite::qmp::Type;
use serde_json::Map;
use serde_json::Value;

use crate::language::literal::integer;
use crate::language::literal::literal;
use crate::language::literal::number;
use crate::language::mistake::Mistake;
use crate::language::tree::Node;
use crate::language::tree::tree;
use crate::language::words::Form;
use crate::language::words::Text;
use crate::language::words::Word;
use crate::language::words::excerpt;

/// A command, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) name: String,
    pub(crate) arguments: Map<String, Value>,
}

/// Reads words by what is known of a QEMU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    /// What the QEMU says of its commands, if it does.
    pub(crate) schema: Option<&'a Schema>,
    /// Whether what the schema does not know is a mistake; else it is guessed.
    pub(crate) is_strict: bool,
}

impl Reader<'_> {
    /// The request that a command's name and its arguments make.
    pub(crate) fn request(&self, name: &Word, arguments: &[Word]) -> Result<Request, Mistake> {
        self.checked(&name.text, &tree(arguments)?)
    }

    /// The same for a request that is already in JSON.
    pub(crate) fn checked_request(&self, request: Request) -> Result<Request, Mistake> {
        self.checked(&request.name, &Node::of(Value::Object(request.arguments)))
    }

    /// One of the actions of a transaction.
    pub(crate) fn action(&self, name: &Word, arguments: &[Word]) -> Result<Request, Mistake> {
        let node = opened(&tree(arguments)?)?;
        let name = &name.text;
        let data = self.schema.and_then(actions).and_then(|actions| {
            let Type::Enum(names) = member(actions, "type", |_| None)?.member_type() else { return None };
            let data = member(actions, "data", |_| Some(name.as_str())).map(|member| member.member_type());
            Some((names, data))
        });
        let arguments = match data {
            Some((names, _)) if self.is_strict && names.value(name).is_none() => {
                let what = format!("`{name}` cannot be a part of a transaction");
                return Err(Mistake::new(what).among(name, names.names()));
            }
            Some((_, Some(Type::Object(data)))) => self.members(&Place::of(name), &node, data, false)?,
            _ => guess_members(&node)?,
        };
        Ok(Request { name: name.clone(), arguments })
    }

    fn checked(&self, name: &str, node: &Node) -> Result<Request, Mistake> {
        let node = opened(node)?;
        let name = name.to_owned();
        let Some(schema) = self.schema else {
            return Ok(Request { arguments: guess_members(&node)?, name });
        };
        let arguments = match schema.command(&name) {
            Some(command) => {
                self.members(&Place::of(&name), &node, command.arguments(), command.takes_more())?
            }
            None if self.is_strict => {
                let what = format!("this QEMU has no command `{name}`");
                return Err(Mistake::new(what).among(&name, schema.commands()));
            }
            None => guess_members(&node)?,
        };
        Ok(Request { name, arguments })
    }

    /// The members of an object, each by its type.
    fn members(
        &self,
        place: &Place<'_>,
        node: &Node,
        object: ObjectType<'_>,
        takes_more: bool,
    ) -> Result<Map<String, Value>, Mistake> {
        let Node::Branch(given) = node else { return Err(place.mismatch(Type::Object(object), node)) };
        let chosen = |tag: &str| value_of(given, tag);
        let members = object.members(chosen);
        let mut read = Map::new();
        // The tag first: where it is wrong, other members seem to be.
        let (tag, others): (Vec<_>, Vec<_>) =
            given.iter().partition(|(name, _)| Some(name.as_str()) == object.tag());
        for (name, node) in tag.into_iter().chain(others) {
            let inner = place.inner(name);
            let known = members.iter().find(|member| member.name() == name).copied();
            let known = known.or_else(|| match object.tag() {
                Some(tag) if chosen(tag).is_none() => member(object, name, |_| None),
                _ => None,
            });
            let value = match known {
                Some(member) => self.value(&inner, node, member.member_type())?,
                None if takes_more || !self.is_strict => guess(&inner.path, node)?,
                None => return Err(place.unknown(name, object, &members, chosen)),
            };
            read.insert(name.clone(), value);
        }
        let missing =
            members.iter().find(|member| !member.is_optional() && !read.contains_key(member.name()));
        match missing.filter(|_| self.is_strict) {
            Some(missing) => Err(place.missing(missing)),
            None => Ok(read),
        }
    }

    fn value(&self, place: &Place<'_>, node: &Node, wanted: Type<'_>) -> Result<Value, Mistake> {
        match self.strict_value(place, node, wanted) {
            Err(_) if !self.is_strict => guess(&place.path, node),
            read => read,
        }
    }

    fn strict_value(&self, place: &Place<'_>, node: &Node, wanted: Type<'_>) -> Result<Value, Mistake> {
        let mismatch = || place.mismatch(wanted, node);
        match (wanted, node) {
            (Type::Any, _) => guess(&place.path, node),
            (Type::Alternate(alternate), _) => self.alternate(place, node, alternate).ok_or_else(mismatch)?,
            (Type::Enum(values), _) => match node.name() {
                Some(name) if values.value(name).is_some() => Ok(name.into()),
                _ => Err(place.no_such_value(node, values)),
            },
            (Type::Str, Node::Text(text)) => Ok(text.text.clone().into()),
            (Type::Str, Node::Scalar(text @ Value::String(_))) => Ok(text.clone()),
            (Type::Object(object), Node::Branch(_)) => {
                self.members(place, node, object, false).map(Value::Object)
            }
            (Type::Array(array), Node::List(elements)) => {
                let elements = elements.iter().enumerate();
                let read = elements
                    .map(|(at, node)| self.value(&place.inner(&at.to_string()), node, array.element()));
                read.collect::<Result<_, _>>().map(Value::Array)
            }
            (Type::Array(_), Node::Branch(members)) => {
                self.strict_value(place, &listed(members).ok_or_else(mismatch)?, wanted)
            }
            (Type::Object(_) | Type::Array(_), Node::Text(text)) if text.text.starts_with(['{', '[']) => {
                self.strict_value(place, &brackets(&place.path, text)?, wanted)
            }
            (Type::Int | Type::Number | Type::Bool | Type::Null, Node::Text(text)) => {
                scalar(&text.text, wanted).ok_or_else(mismatch)
            }
            (Type::Int, Node::Scalar(value)) if value.is_i64() || value.is_u64() => Ok(value.clone()),
            (Type::Number, Node::Scalar(value)) if value.is_number() => Ok(value.clone()),
            (Type::Bool, Node::Scalar(value)) if value.is_boolean() => Ok(value.clone()),
            (Type::Null, Node::Scalar(value)) if value.is_null() => Ok(value.clone()),
            _ => Err(mismatch()),
        }
    }

    /// One of several types, by how the value is written; `None` if it can be none of them.
    fn alternate(
        &self,
        place: &Place<'_>,
        node: &Node,
        alternate: AlternateType<'_>,
    ) -> Option<Result<Value, Mistake>> {
        let choice = |fits: fn(&Type<'_>) -> bool| alternate.choices().find(fits);
        let text = match node {
            Node::Branch(members) => {
                let array = listed(members).and_then(|_| choice(|choice| matches!(choice, Type::Array(_))));
                let fitting = array.or_else(|| choice(|choice| matches!(choice, Type::Object(_))))?;
                return Some(self.strict_value(place, node, fitting));
            }
            Node::List(_) => {
                let array = choice(|choice| matches!(choice, Type::Array(_)))?;
                return Some(self.strict_value(place, node, array));
            }
            Node::Scalar(_) => {
                let mut choices = alternate.choices();
                return choices.find_map(|choice| self.strict_value(place, node, choice).ok()).map(Ok);
            }
            Node::Text(text) => text,
        };
        if text.form == Form::Bracketed {
            return Some(brackets(&place.path, text).and_then(|node| {
                let read = self.alternate(place, &node, alternate);
                read.unwrap_or_else(|| Err(place.mismatch(Type::Alternate(alternate), &node)))
            }));
        }
        let is_text = |choice: &Type<'_>| matches!(choice, Type::Str);
        let mut plain = alternate.choices().filter(|choice| text.form == Form::Plain && !is_text(choice));
        let read = plain.find_map(|choice| self.strict_value(place, node, choice).ok());
        let named = || {
            let mut names = alternate.choices().filter(|choice| matches!(choice, Type::Enum(_)));
            names.find_map(|choice| self.strict_value(place, node, choice).ok())
        };
        let read = read.or_else(named);
        read.or_else(|| choice(is_text).map(|_| text.text.clone().into())).map(Ok)
    }
}

/// Where in a command a value stands.
struct Place<'a> {
    command: &'a str,
    path: String,
}

impl<'a> Place<'a> {
    fn of(command: &'a str) -> Self {
        Self { command, path: String::new() }
    }

    fn inner(&self, name: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { command: self.command, path: format!("{}{dot}{name}", self.path) }
    }

    fn unknown<'b>(
        &self,
        name: &str,
        object: ObjectType<'_>,
        members: &[Member<'_>],
        chosen: impl Fn(&str) -> Option<&'b str>,
    ) -> Mistake {
        let path = self.inner(name).path;
        if let Some(tag) = object.tag()
            && let Some(case) = chosen(tag)
            && member(object, name, |_| None).is_some()
        {
            let what = format!("`{path}` does not go with `{tag}={case}`");
            return Mistake::new(what).among(name, members.iter().map(Member::name));
        }
        let known = match object.tag().and_then(chosen) {
            Some(_) => members.to_vec(),
            None => object.every_member(),
        };
        let what = match known.is_empty() {
            true => format!("`{}` takes no argument, and is given `{path}`", self.command),
            false => format!("`{}` has no argument `{path}`", self.command),
        };
        Mistake::new(what).among(name, known.iter().map(Member::name))
    }

    fn missing(&self, member: &Member<'_>) -> Mistake {
        let path = self.inner(member.name()).path;
        let what = match self.path.as_str() {
            "" => format!("`{}` needs the argument `{path}`", self.command),
            _ => format!("`{path}` is missing in `{}`", self.command),
        };
        Mistake { what, hint: Some(format!("it takes {}", shortly(member.member_type()))) }
    }

    fn mismatch(&self, wanted: Type<'_>, node: &Node) -> Mistake {
        let given = excerpt(&node.shown());
        let what = format!("`{}` takes {}, not {given}", self.path, shortly(wanted));
        let hint = match (wanted, node) {
            (Type::Object(_), Node::Text(_)) => {
                Some(format!("`{}.name=value` gives one of its members", self.path))
            }
            (Type::Array(_), Node::Text(_)) => Some(format!("`{}=[…]` is a list in JSON", self.path)),
            _ => None,
        };
        Mistake { what, hint }
    }

    fn no_such_value(&self, node: &Node, values: EnumType<'_>) -> Mistake {
        let given = node.shown();
        let what = format!("`{}` has no value {}", self.path, excerpt(&given));
        Mistake::new(what).among(&given, values.names())
    }
}

/// A type in a few words.
fn shortly(wanted: Type<'_>) -> String {
    match wanted {
        Type::Enum(values) if values.names().count() > 12 => "one of many words; Tab shows them".into(),
        wanted => wanted.to_string(),
    }
}

/// The type of what a transaction's list holds.
fn actions(schema: &Schema) -> Option<ObjectType<'_>> {
    let transaction = schema.command("transaction")?.arguments();
    let Type::Array(list) = member(transaction, "actions", |_| None)?.member_type() else { return None };
    let Type::Object(action) = list.element() else { return None };
    Some(action)
}

/// A member by its name, among those that `chosen` leaves, or among all of them if nothing is chosen.
pub(super) fn member<'a, 'b>(
    object: ObjectType<'a>,
    name: &str,
    chosen: impl Fn(&str) -> Option<&'b str>,
) -> Option<Member<'a>> {
    let members = match object.tag().and_then(&chosen) {
        Some(_) => object.members(chosen),
        None => object.every_member(),
    };
    members.into_iter().find(|member| member.name() == name)
}

fn value_of<'a>(given: &'a [(String, Node)], name: &str) -> Option<&'a str> {
    given.iter().find(|(candidate, _)| candidate == name)?.1.name()
}

/// The tree, also where all of it was written as one object in JSON.
fn opened(node: &Node) -> Result<Node, Mistake> {
    match node {
        Node::Text(text) => brackets("", text),
        node => Ok(node.clone()),
    }
}

fn brackets(path: &str, text: &Text) -> Result<Node, Mistake> {
    let shown = excerpt(&text.text);
    let which = if path.is_empty() { String::new() } else { format!(" for `{path}`") };
    let read = literal(&text.text);
    read.map(Node::of).map_err(|reason| Mistake {
        what: format!("{shown}{which} is no JSON: {reason}"),
        hint: Some("in quotes it is text".into()),
    })
}

/// The elements, if the names of the members are 0, 1, 2 and so on.
fn listed(members: &[(String, Node)]) -> Option<Node> {
    let element =
        |at: usize| members.iter().find(|(name, _)| *name == at.to_string()).map(|(_, node)| node.clone());
    let elements = (0..members.len()).map(element).collect::<Option<Vec<_>>>()?;
    (!elements.is_empty()).then_some(Node::List(elements))
}

fn scalar(text: &str, wanted: Type<'_>) -> Option<Value> {
    match wanted {
        Type::Int => integer(text).map(Value::Number),
        Type::Number => number(text).map(Value::Number),
        Type::Bool if text.eq_ignore_ascii_case("true") => Some(true.into()),
        Type::Bool if text.eq_ignore_ascii_case("false") => Some(false.into()),
        Type::Null if text == "null" => Some(Value::Null),
        _ => None,
    }
}

/// What a value probably is, where nothing says it.
fn guess(path: &str, node: &Node) -> Result<Value, Mistake> {
    match node {
        Node::Text(Text { text, form: Form::Plain }) => {
            let scalars = [Type::Number, Type::Bool, Type::Null];
            let read = scalars.into_iter().find_map(|wanted| scalar(text, wanted));
            Ok(read.unwrap_or_else(|| text.clone().into()))
        }
        Node::Text(Text { text, form: Form::Quoted }) => Ok(text.clone().into()),
        Node::Text(text) => guess(path, &brackets(path, text)?),
        Node::Scalar(value) => Ok(value.clone()),
        Node::List(elements) => {
            elements.iter().map(|node| guess(path, node)).collect::<Result<_, _>>().map(Value::Array)
        }
        // Names that are numbers were written in JSON as they should be sent, and with dots for a list.
        Node::Branch(members) => match listed(members).filter(|_| has_text(node)) {
            Some(list) => guess(path, &list),
            None => guess_members(node).map(Value::Object),
        },
    }
}

fn guess_members(node: &Node) -> Result<Map<String, Value>, Mistake> {
    match node {
        Node::Branch(members) => {
            members.iter().map(|(name, node)| Ok((name.clone(), guess(name, node)?))).collect()
        }
        node => Err(Mistake::new(format!("the arguments are an object, not {}", excerpt(&node.shown())))),
    }
}

/// Whether it was written with dots, and not in JSON.
fn has_text(node: &Node) -> bool {
    match node {
        Node::Text(_) => true,
        Node::Branch(members) => members.iter().any(|(_, node)| has_text(node)),
        Node::Scalar(_) | Node::List(_) => false,
    }
}
