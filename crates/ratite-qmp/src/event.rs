//! Something that happened in QEMU.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::DEFAULT_DEPTH;
use crate::json::from_text;
use crate::json::range_in;
use crate::malformed::Malformed;
use crate::malformed::excerpt;

/// Something that happened in QEMU. Cheap to clone: clones share one text.
#[derive(Clone)]
pub struct Event(Arc<EventBody>);

struct EventBody {
    text: Box<str>,
    name: Box<str>,
    data: Option<Range<usize>>,
    timestamp: Option<Timestamp>,
}

impl Event {
    /// The event in `text`, of which the other arguments are parts.
    pub(crate) fn parse(
        text: &str,
        name: &RawValue,
        data: Option<&RawValue>,
        timestamp: Option<&RawValue>,
    ) -> Self {
        let name: Box<str> = match serde_json::from_str::<String>(name.get()) {
            Ok(name) => name.into(),
            // The original lets any name pass; keep it as its text.
            Err(_) => name.get().into(),
        };
        Self(Arc::new(EventBody {
            name,
            data: data.map(|data| range_in(text, data.get())),
            // A derived reader would take an array of two for it.
            timestamp: timestamp
                .filter(|raw| raw.get().starts_with('{'))
                .and_then(|raw| serde_json::from_str(raw.get()).ok()),
            text: text.into(),
        }))
    }

    /// The event's name, such as `SHUTDOWN`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The JSON text of `data`, if the event has any.
    #[must_use]
    pub fn data_text(&self) -> Option<&str> {
        self.0.data.clone().map(|range| &self.0.text[range])
    }

    /// `data` as a value; `Null` if the event has none, or none that can be read.
    #[must_use]
    pub fn data(&self) -> Value {
        self.data_text().and_then(|text| from_text(text, DEFAULT_DEPTH).ok()).unwrap_or(Value::Null)
    }

    /// `data` as a type of your own.
    ///
    /// # Errors
    /// [`Malformed`] when there is no `data`, or not of that shape.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, Malformed> {
        let text = self.data_text().ok_or_else(|| Malformed::shape(&self.0.text, "it has no `data`"))?;
        from_text(text, DEFAULT_DEPTH)
    }

    /// When QEMU says that it happened, by the host's wall clock.
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.0.timestamp
    }

    /// The whole event as it arrived.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The whole event as a value; `Null` if it cannot be read.
    #[must_use]
    pub fn message(&self) -> Value {
        from_text(&self.0.text, DEFAULT_DEPTH).unwrap_or(Value::Null)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Event").field(&format_args!("{}", excerpt(self.0.text.as_bytes()))).finish()
    }
}

impl fmt::Display for Event {
    /// The whole message as it arrived.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

/// The host's wall clock as QEMU gives it with an event; both parts are -1 when QEMU could not read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01 00:00 UTC.
    pub seconds: i64,
    /// Microseconds within the second.
    pub microseconds: i64,
}
