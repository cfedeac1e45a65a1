//! Something that happened in QEMU.

use std::fmt;
use std::sync::Arc;

use memchr::memchr;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::envelope::Envelope;
use crate::envelope::Span;
use crate::json::DEFAULT_DEPTH;
use crate::json::from_text;
use crate::json::range_in;
use crate::malformed::Malformed;
use crate::malformed::excerpt;

/// Something that happened in QEMU. Cheap to clone: clones share one text.
#[derive(Clone)]
pub struct Event {
    /// The message as it arrived; behind it its name, if that does not stand in it as it is.
    text: Arc<str>,
    name: Name,
}

/// Where an event's name stands in its text.
#[derive(Clone, Copy)]
enum Name {
    Within { start: u32, length: u16 },
    Behind { start: u32 },
}

impl Event {
    /// The event in `text`, with the JSON of its name, which is a part of it.
    pub(crate) fn new(text: &str, name: &str) -> Self {
        let within = || {
            let plain = name.strip_prefix('"')?.strip_suffix('"')?;
            let is_plain = memchr(b'\\', plain.as_bytes()).is_none();
            let place = Span::new(range_in(text, plain)).filter(|_| is_plain)?.range();
            Some(Name::Within { start: place.start.try_into().ok()?, length: place.len().try_into().ok()? })
        };
        if let Some(name) = within() {
            return Self { text: text.into(), name };
        }
        // The original lets any name pass; one that is no string is kept as its text.
        let name = serde_json::from_str::<String>(name).unwrap_or_else(|_| name.to_owned());
        let start = text.len().try_into().expect("a message is shorter than 4 GiB");
        Self { text: [text, &name].concat().into(), name: Name::Behind { start } }
    }

    /// The event's name, such as `SHUTDOWN`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self.name {
            Name::Within { start, length } => {
                &self.text[start as usize..start as usize + usize::from(length)]
            }
            Name::Behind { start } => &self.text[start as usize..],
        }
    }

    /// The JSON text of `data`, if the event has any.
    #[must_use]
    pub fn data_text(&self) -> Option<&str> {
        self.envelope().data.of(self.text())
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
        let text = self.data_text().ok_or_else(|| Malformed::shape(self.text(), "it has no `data`"))?;
        from_text(text, DEFAULT_DEPTH)
    }

    /// When QEMU says that it happened, by the host's wall clock.
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        let text = self.envelope().timestamp.of(self.text())?;
        // A derived reader would take an array of two for it.
        text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
    }

    /// The whole event as it arrived.
    #[must_use]
    pub fn text(&self) -> &str {
        match self.name {
            Name::Within { .. } => &self.text,
            Name::Behind { start } => &self.text[..start as usize],
        }
    }

    /// Read anew: what an event holds is asked for once, if at all, and kept as often as it is queued.
    fn envelope(&self) -> Envelope {
        Envelope::parse(self.text()).unwrap_or_default()
    }

    /// The whole event as a value; `Null` if it cannot be read.
    #[must_use]
    pub fn message(&self) -> Value {
        from_text(self.text(), DEFAULT_DEPTH).unwrap_or(Value::Null)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Event").field(&format_args!("{}", excerpt(self.text().as_bytes()))).finish()
    }
}

impl fmt::Display for Event {
    /// The whole message as it arrived.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
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
