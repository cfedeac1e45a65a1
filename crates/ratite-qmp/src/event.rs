//! Something that happened in QEMU.

mod batch;
mod share;

use std::fmt;
use std::sync::Arc;

use memchr::memchr;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::envelope::Envelope;
use crate::envelope::Span;
use crate::event::share::Share;
use crate::json::DEFAULT_DEPTH;
use crate::json::from_text;
use crate::json::range_in;
use crate::malformed::Malformed;
use crate::malformed::excerpt;
pub(crate) use batch::Batch;
pub(crate) use batch::LONGEST_BATCH;
pub(crate) use batch::Place;

/// Something that happened in QEMU. Cheap to clone: clones share one text.
///
/// Events that came together share it, too: one that is kept keeps its neighbours, no more than a kilobyte of them.
#[derive(Clone)]
pub struct Event {
    batch: Share,
    number: u32,
}

impl Event {
    /// The event in `text`, with the JSON of its name, which is a part of it.
    pub(crate) fn new(text: &str, name: &str) -> Self {
        let place = |range| Span::new(range).expect("a message is shorter than 4 GiB");
        let whole = place(0..text.len());
        let plain = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        if let Some(plain) = plain.filter(|name| memchr(b'\\', name.as_bytes()).is_none()) {
            let place = Place { text: whole, name: place(range_in(text, plain)) };
            return Self::owning(Batch::new(text, &[place]), 0);
        }
        // The original lets any name pass; one that is no string is kept as its text. It stands behind the message.
        let read = serde_json::from_str::<String>(name).ok();
        let name = read.as_deref().unwrap_or(name);
        let batch = match Span::new(text.len()..text.len() + name.len()) {
            Some(behind) => Batch::new([text, name].concat(), &[Place { text: whole, name: behind }]),
            None => Batch::new(text, &[Place { text: whole, name: Span::default() }]),
        };
        Self::owning(batch, 0)
    }

    /// One of the events in `batch`.
    #[inline]
    pub(crate) fn of(batch: &Arc<Batch>, number: u32) -> Self {
        Self { batch: Share::of(batch), number }
    }

    /// The same of a batch that the caller needs no more.
    #[inline]
    pub(crate) fn owning(batch: Arc<Batch>, number: u32) -> Self {
        Self { batch: batch.into(), number }
    }

    /// A batch of this event alone.
    pub(crate) fn alone(&self) -> Arc<Batch> {
        match self.batch.len() {
            1 => Arc::clone(self.batch.owned()),
            _ => self.batch.only(std::iter::once(self.number)),
        }
    }

    /// The event's name, such as `SHUTDOWN`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.batch.name(self.number)
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
        self.batch.text(self.number)
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
