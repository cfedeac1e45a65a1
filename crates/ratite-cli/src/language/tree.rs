//! `key=value` words to a tree: `a.b=1 a.c=2` are two members of `a`.

use serde_json::Value;

use crate::language::mistake::Mistake;
use crate::language::words::Form;
use crate::language::words::Text;
use crate::language::words::Word;

/// An argument as it was written, before anybody knows what it should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// What stood behind a `=`.
    Text(Text),
    /// A value that was written in JSON, and neither object nor array.
    Scalar(Value),
    /// Members by name, in the order of writing.
    Branch(Vec<(String, Node)>),
    /// Elements of an array that was written in JSON.
    List(Vec<Node>),
}

impl Node {
    /// A value that was written in JSON.
    pub(super) fn of(value: Value) -> Self {
        match value {
            Value::Object(members) => {
                Self::Branch(members.into_iter().map(|(name, value)| (name, Self::of(value))).collect())
            }
            Value::Array(elements) => Self::List(elements.into_iter().map(Self::of).collect()),
            scalar => Self::Scalar(scalar),
        }
    }

    /// How it was written, to be shown.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.text.clone(),
            Self::Scalar(value) => value.to_string(),
            Self::Branch(_) => "{…}".into(),
            Self::List(_) => "[…]".into(),
        }
    }

    /// The text of it that is a name, as the value of a tag is.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(&text.text),
            Self::Scalar(value) => value.as_str(),
            Self::Branch(_) | Self::List(_) => None,
        }
    }
}

/// The tree that `key=value` words, or one object in JSON, make; always a branch, or a text that is an object.
pub(super) fn tree(words: &[Word]) -> Result<Node, Mistake> {
    if let [word] = words
        && word.is_object()
    {
        return Ok(Node::Text(Text { text: word.text.clone(), form: Form::Bracketed }));
    }
    let mut root = Vec::new();
    for word in words {
        let Some(key) = word.key() else {
            let hint = "an argument is written `key=value`, or all of them as one object in JSON";
            return Err(Mistake { what: format!("`{}` has no `=`", word.text), hint: Some(hint.into()) });
        };
        if key.split('.').any(str::is_empty) {
            return Err(Mistake::new(format!("`{key}=` has an empty name")));
        }
        insert(&mut root, key, key, Node::Text(word.value()))?;
    }
    Ok(Node::Branch(root))
}

/// Puts a value where the rest of its key, `path`, leads to.
fn insert(members: &mut Vec<(String, Node)>, key: &str, path: &str, value: Node) -> Result<(), Mistake> {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let place = members.iter().position(|(candidate, _)| candidate == name);
    let above = &key[..key.len() - rest.map_or(0, |rest| rest.len() + 1)];
    match (place.map(|place| &mut members[place].1), rest) {
        (None, None) => members.push((name.to_owned(), value)),
        (None, Some(rest)) => {
            let mut inner = Vec::new();
            insert(&mut inner, key, rest, value)?;
            members.push((name.to_owned(), Node::Branch(inner)));
        }
        (Some(Node::Branch(inner)), Some(rest)) => insert(inner, key, rest, value)?,
        (Some(Node::Branch(_)), None) => {
            return Err(Mistake::new(format!("`{key}=` is given, and `{key}.…=`, too")));
        }
        (Some(_), None) => return Err(Mistake::new(format!("`{key}=` is given twice"))),
        (Some(_), Some(_)) => {
            return Err(Mistake::new(format!("`{above}=` is given, and `{key}=`, too")));
        }
    }
    Ok(())
}
