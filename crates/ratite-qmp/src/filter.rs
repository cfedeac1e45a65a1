//! Which events somebody wants: by name, and by a subset of what the event says. Pure.

use std::collections::HashMap;
use std::fmt;

use serde::Deserializer;
use serde::de::DeserializeSeed;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::Map;
use serde_json::Number;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::event::Event;
use crate::json::DEFAULT_DEPTH;
use crate::json::from_text;

/// Which events are wanted.
///
/// ```
/// use ratite_qmp::EventFilter;
/// use serde_json::json;
///
/// let gone = EventFilter::named("DEVICE_DELETED").data(json!({ "device": "disk0" }));
/// let gone_or_reset = gone.or(EventFilter::named("RESET"));
/// ```
///
/// # What a subset is
///
/// - An object matches when it has every key of the wanted object, with a value that matches; more keys do not
///   matter. An empty object matches anything, and `null` as a wanted *member* asks only that the key is there.
/// - Everything else is compared as a whole: arrays, strings, booleans, and numbers by their value (`1` equals
///   `1.0`; a boolean is no number).
#[derive(Debug, Clone, PartialEq)]
pub struct EventFilter {
    /// Any one of these is enough.
    alternatives: Vec<Wanted>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Wanted {
    name: Option<String>,
    subset: Option<Value>,
}

impl EventFilter {
    /// Every event.
    #[must_use]
    pub fn any() -> Self {
        Self { alternatives: vec![Wanted::default()] }
    }

    /// The events with this name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { alternatives: vec![Wanted { name: Some(name.into()), subset: None }] }
    }

    /// No event: nothing to begin [`EventFilter::or`] with.
    #[must_use]
    pub fn none() -> Self {
        Self { alternatives: Vec::new() }
    }

    /// Also asks that the event's `data` has `subset`; what was asked of other members before stays.
    #[must_use]
    pub fn data(mut self, subset: Value) -> Self {
        for wanted in &mut self.alternatives {
            match &mut wanted.subset {
                Some(Value::Object(whole)) => drop(whole.insert("data".into(), subset.clone())),
                other => *other = Some(Value::Object(Map::from_iter([("data".to_owned(), subset.clone())]))),
            }
        }
        self
    }

    /// Also asks that the whole event (`event`, `data`, `timestamp`) has `subset`; replaces an earlier subset.
    #[must_use]
    pub fn matching(mut self, subset: Value) -> Self {
        for wanted in &mut self.alternatives {
            wanted.subset = Some(subset.clone());
        }
        self
    }

    /// Takes what either filter takes.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.alternatives.extend(other.alternatives);
        self
    }

    /// Whether `event` is wanted.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.takes(event.name(), event.text())
    }

    /// Whether the event called `name` with this text is wanted.
    pub(crate) fn takes(&self, name: &str, text: &str) -> bool {
        self.alternatives.iter().any(|wanted| wanted.takes(name, text))
    }

    /// Whether every event is wanted, as far as that can be told without one.
    pub(crate) fn takes_all(&self) -> bool {
        self.alternatives.iter().any(|wanted| *wanted == Wanted::default())
    }

    /// Whether an event that is given as a value is wanted: an object with `event` and perhaps `data`.
    #[doc(alias = "event_match")]
    #[must_use]
    pub fn matches_value(&self, event: &Value) -> bool {
        let text = event.to_string();
        self.alternatives.iter().any(|wanted| {
            wanted.name.as_ref().is_none_or(|name| event["event"] == **name)
                && wanted.subset.as_ref().is_none_or(|subset| subset.is_null() || has_subset(&text, subset))
        })
    }

    /// A noun phrase for errors: "event `RESUME`".
    pub(crate) fn describe(&self) -> String {
        let mut parts: Vec<String> = self.alternatives.iter().map(Wanted::describe).collect();
        match parts.pop() {
            None => "event (of none)".into(),
            Some(last) if parts.is_empty() => format!("event{last}"),
            Some(last) => format!("event{} or{last}", parts.join(",")),
        }
    }
}

impl Wanted {
    fn takes(&self, name: &str, text: &str) -> bool {
        if self.name.as_deref().is_some_and(|wanted| wanted != name) {
            return false;
        }
        // Reading the event is what costs: only when the name fits.
        self.subset.as_ref().is_none_or(|subset| subset.is_null() || has_subset(text, subset))
    }

    fn describe(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(" `{name}`")).unwrap_or_default();
        let subset = self.subset.as_ref().map(|subset| format!(" matching {subset}")).unwrap_or_default();
        name + &subset
    }
}

/// Whether the JSON in `text` has all that `wanted` asks for; see [`EventFilter`].
///
/// Reads only the members that are asked for: what else an event holds costs nothing and cannot spoil the match.
fn has_subset(text: &str, wanted: &Value) -> bool {
    let Value::Object(wanted) = wanted else {
        return from_text(text, DEFAULT_DEPTH).is_ok_and(|value| equal(&value, wanted));
    };
    if wanted.is_empty() {
        return true;
    }
    let members = Wants(wanted).deserialize(&mut serde_json::Deserializer::from_str(text));
    members.is_ok_and(|members| {
        wanted.iter().all(|(key, wanted)| {
            let member = members.get(key.as_str());
            member.is_some_and(|member| wanted.is_null() || has_subset(member.get(), wanted))
        })
    })
}

/// Reads those members of an object that are asked for, as text. Of one that stands twice, the last counts.
struct Wants<'w>(&'w Map<String, Value>);

impl<'de, 'w> DeserializeSeed<'de> for Wants<'w> {
    type Value = HashMap<&'w str, &'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, 'w> Visitor<'de> for Wants<'w> {
    type Value = HashMap<&'w str, &'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = HashMap::new();
        while let Some(key) = map.next_key_seed(WantedKey(self.0))? {
            match key {
                Some(key) => drop(members.insert(key, map.next_value()?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(members)
    }
}

/// Reads a key, by bytes since one that is no Unicode is merely not wanted; `None` if it is not.
struct WantedKey<'w>(&'w Map<String, Value>);

impl<'de, 'w> DeserializeSeed<'de> for WantedKey<'w> {
    type Value = Option<&'w str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'w> Visitor<'_> for WantedKey<'w> {
    type Value = Option<&'w str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        let key = std::str::from_utf8(key).ok();
        Ok(key.and_then(|key| self.0.get_key_value(key)).map(|(key, _)| key.as_str()))
    }
}

/// Equality in which 1 equals 1.0.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => equal_numbers(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

fn equal_numbers(a: &Number, b: &Number) -> bool {
    // As integers where both are, so that no u64 is rounded.
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a == b,
        (Some(integer), None) => equals_float(integer, b),
        (None, Some(integer)) => equals_float(integer, a),
        (None, None) => a.as_f64() == b.as_f64(),
    }
}

/// Whether a float has exactly this value; the integer must not be rounded to find out.
fn equals_float(integer: i128, float: &Number) -> bool {
    float.as_f64().is_some_and(|float| float.fract() == 0.0 && float as i128 == integer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use proptest::prelude::*;
    use serde_json::json;

    fn event(value: &Value) -> Event {
        match Message::parse(&value.to_string()).unwrap() {
            Message::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    /// The table of what matches what; each row: value, wanted, outcome.
    #[test]
    fn the_table_of_matches() {
        let rows = [
            (json!({"foo": {"bar": 1}}), json!({"foo": null}), true),
            (json!({"foo": 5}), json!({"foo": null}), true),
            (json!({"foo": null}), json!({"foo": null}), true),
            (json!({}), json!({"foo": null}), false),
            (json!({"foo": {"bar": 1}}), json!({"foo": {"abc": null}}), false),
            (json!({"foo": {"bar": 1, "rab": 2}}), json!({"foo": {"rab": 2}}), true),
            (
                json!({"event": "E", "data": {"device": "d0", "len": 3}}),
                json!({"data": {"device": "d0"}}),
                true,
            ),
            (json!({"event": "E"}), json!({"data": {"device": "d0"}}), false),
            (json!(5), json!({}), true),
            (json!({"a": "x"}), json!({"a": {}}), true),
            (json!({"a": 5}), json!({"a": []}), false),
            (json!({"a": "x"}), json!({"a": ""}), false),
            (json!({"a": "abc"}), json!({"a": "abc"}), true),
            (json!({"a": "abcd"}), json!({"a": "abc"}), false),
            (json!({"a": 5}), json!({"a": "5"}), false),
            (json!({"a": 1}), json!({"a": 1.0}), true),
            (json!({"a": 1}), json!({"a": true}), false),
            (json!({"a": [1, 2]}), json!({"a": [1, 2]}), true),
            (json!({"a": [1]}), json!({"a": [1]}), true),
            (json!({"a": [0, 1]}), json!({"a": [0]}), false),
            (json!({"a": [0]}), json!({"a": [0, 0]}), false),
            (json!({"a": [0, 1]}), json!({"a": [1, 0]}), false),
            (json!({"a": ["x"]}), json!({"a": ["x"]}), true),
            (json!({"a": ["x", "y"]}), json!({"a": ["x"]}), false),
            (json!({"a": [{"b": 1}]}), json!({"a": [{"b": 1}]}), true),
            (json!({"a": [{"b": 1}]}), json!({"a": [{"b": null}]}), false),
            (json!({"a": "xyz"}), json!({"a": {"x": null}}), false),
            (json!({"a": ["x"]}), json!({"a": {"x": null}}), false),
            (json!({"a": null}), json!({"a": 5}), false),
            (json!({"a": null}), json!({"a": {"x": 1}}), false),
            (json!({"a": {"x": 1}}), json!({"a": 5}), false),
            (json!({"a": {"x": 1}}), json!({"a": "x"}), false),
            (json!({"a": {"x": 1}}), json!({"a": ["x"]}), false),
            (json!({"a": u64::MAX}), json!({"a": u64::MAX - 1}), false),
        ];
        for (value, wanted, outcome) in rows {
            assert_eq!(has_subset(&value.to_string(), &wanted), outcome, "{value} against {wanted}");
        }
    }

    #[test]
    fn a_filter_asks_for_name_and_data() {
        let filter = EventFilter::named("A").data(json!({"x": 1})).or(EventFilter::named("B"));

        assert!(filter.matches(&event(&json!({"event": "A", "data": {"x": 1, "y": 2}}))));
        assert!(filter.matches(&event(&json!({"event": "B"}))));
        assert!(!filter.matches(&event(&json!({"event": "A", "data": {"x": 2}}))));
        assert!(!filter.matches(&event(&json!({"event": "C", "data": {"x": 1}}))));
        assert_eq!(filter.describe(), "event `A` matching {\"data\":{\"x\":1}} or `B`");
    }

    #[test]
    fn data_is_asked_for_besides_what_was_asked_before() {
        let filter = EventFilter::any().matching(json!({"timestamp": {"seconds": 1}})).data(json!({"x": 1}));

        assert!(filter.matches_value(&json!({"event": "A", "timestamp": {"seconds": 1}, "data": {"x": 1}})));
        assert!(!filter.matches_value(&json!({"event": "A", "timestamp": {"seconds": 2}, "data": {"x": 1}})));
    }

    #[test]
    fn a_top_level_null_asks_for_nothing() {
        assert!(EventFilter::named("A").matching(Value::Null).matches(&event(&json!({"event": "A"}))));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_said_matches_itself(value in any_json()) {
            prop_assert!(has_subset(&value.to_string(), &value));
        }

        #[test]
        fn a_further_member_never_hurts(value in prop::collection::btree_map("[a-c]", any_json(), 0..4), more in any_json()) {
            let wanted = Value::Object(value.into_iter().collect());
            let mut larger = wanted.clone();
            larger["further"] = more;
            prop_assert!(has_subset(&larger.to_string(), &wanted));
        }
    }
}
