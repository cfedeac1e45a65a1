//! Which events a filter takes, against the rule of subsets written down a second time.
//!
//! An input is the event's name up to a quote, and an object with the rest of the event; then steps that build the
//! filter, one letter each: `a` any, `o` none, `n` named (up to a quote), `d` data, `m` matching (a value), `|` or. The
//! values are written as `json_source` says: `A"{d{x1}}nA"d{x1}` is an event `A` and a filter that takes it.

use ratite_qmp::Event;
use ratite_qmp::EventFilter;
use ratite_qmp::Message;
use serde_json::Map;
use serde_json::Number;
use serde_json::Value;

use crate::fuzzing::json_source::JsonSource;

/// Checks that a filter takes an event when the rule says so.
///
/// # Panics
/// When a promise is broken.
pub fn event_filter(data: &[u8]) {
    let mut source = JsonSource::new(data);
    let event = event(&mut source);
    // As it is read, since a reader may round.
    let message = serde_json::from_str(event.text()).expect("what was written is JSON");
    let mut built = Built { filter: EventFilter::any(), reference: vec![Wanted::default()] };
    let mut parked: Option<Built> = None;

    while let Some(step) = source.byte() {
        match step {
            b'|' => parked = Some(built.clone().or_after(parked)),
            _ => built = built.step(step, &mut source),
        }
        built.check(&event, &message);
    }
    built.or_after(parked).check(&event, &message);
}

fn event(source: &mut JsonSource<'_>) -> Event {
    let name = source.text();
    let mut message = match source.value() {
        Value::Object(members) => members,
        other => Map::from_iter([("data".to_owned(), other)]),
    };
    message.entry("event").or_insert(name.into());
    let text = Value::Object(message).to_string();
    match Message::parse(&text) {
        Ok(Message::Event(event)) => event,
        other => panic!("no event but {other:?} from {text}"),
    }
}

/// A filter, and what it was built from.
#[derive(Debug, Clone)]
struct Built {
    filter: EventFilter,
    reference: Vec<Wanted>,
}

#[derive(Debug, Clone, Default)]
struct Wanted {
    name: Option<String>,
    subset: Option<Value>,
}

impl Built {
    fn step(self, step: u8, source: &mut JsonSource<'_>) -> Self {
        match step {
            b'o' => Self { filter: EventFilter::none(), reference: Vec::new() },
            b'n' => {
                let name = source.text();
                let wanted = Wanted { name: Some(name.clone()), subset: None };
                Self { filter: EventFilter::named(name), reference: vec![wanted] }
            }
            b'd' => {
                let data = source.value();
                let reference = self.reference.into_iter().map(|wanted| wanted.with_data(&data)).collect();
                Self { filter: self.filter.data(data), reference }
            }
            b'm' => {
                let subset = source.value();
                let with_subset = |wanted| Wanted { subset: Some(subset.clone()), ..wanted };
                let reference = self.reference.into_iter().map(with_subset).collect();
                Self { filter: self.filter.matching(subset), reference }
            }
            _ => Self { filter: EventFilter::any(), reference: vec![Wanted::default()] },
        }
    }

    /// What either takes.
    fn or_after(self, parked: Option<Self>) -> Self {
        let Some(mut parked) = parked else { return self };
        parked.reference.extend(self.reference);
        Self { filter: parked.filter.or(self.filter), reference: parked.reference }
    }

    fn check(&self, event: &Event, message: &Value) {
        let expected = self.reference.iter().any(|wanted| wanted.takes(event.name(), message));
        assert_eq!(self.filter.matches(event), expected, "{:?} on {message}", self.reference);
        if message["event"].is_string() {
            assert_eq!(self.filter.matches_value(message), expected, "{:?} on {message}", self.reference);
        }
    }
}

impl Wanted {
    /// What was asked of other members stays.
    fn with_data(self, data: &Value) -> Self {
        let mut members = match self.subset {
            Some(Value::Object(members)) => members,
            _ => Map::new(),
        };
        members.insert("data".to_owned(), data.clone());
        Self { subset: Some(members.into()), ..self }
    }

    fn takes(&self, name: &str, message: &Value) -> bool {
        let named = self.name.as_ref().is_none_or(|wanted| wanted == name);
        named && self.subset.as_ref().is_none_or(|subset| *subset == Value::Null || has(message, subset))
    }
}

/// The rule: an object asks for its members, `{}` for nothing, a member `null` for its presence; all else is equal as
/// a whole or not at all.
fn has(value: &Value, wanted: &Value) -> bool {
    let Value::Object(wanted_members) = wanted else { return canonical(value) == canonical(wanted) };
    if wanted_members.is_empty() {
        return true;
    }
    let Some(members) = value.as_object() else { return false };
    for (key, wanted) in wanted_members {
        match members.get(key) {
            None => return false,
            Some(value) if !wanted.is_null() && !has(value, wanted) => return false,
            Some(_) => {}
        }
    }
    true
}

/// A text that two values share when they are equal: keys in order, each number as the one way to write its value.
fn canonical(value: &Value) -> String {
    match value {
        Value::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(canonical).collect();
            format!("[{}]", elements.join(","))
        }
        Value::Object(members) => {
            let mut members: Vec<String> =
                members.iter().map(|(key, value)| format!("{key:?}:{}", canonical(value))).collect();
            members.sort();
            format!("{{{}}}", members.join(","))
        }
        Value::Number(number) => decimal(number),
        other => format!("{other:?}"),
    }
}

/// Every digit of the number: an integer's as they are, a float's without rounding.
fn decimal(number: &Number) -> String {
    match (number.is_f64(), number.as_f64()) {
        (true, Some(0.0)) => "0".into(),
        (true, Some(float)) if float.fract() == 0.0 => format!("{float:.0}"),
        (true, Some(float)) => format!("{float:?}"),
        _ => number.to_string(),
    }
}
