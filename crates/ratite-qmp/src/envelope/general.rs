//! Reads the envelope of any message, however odd, or says why it is none.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

use crate::envelope::Envelope;
use crate::envelope::LONGEST_MESSAGE;
use crate::envelope::Span;
use crate::json::range_in;
use crate::malformed::Malformed;

/// The members of any message that decide what it is. Unlike a derived reader, it takes a member twice (the last
/// counts).
#[derive(Default)]
pub(in crate::envelope) struct General<'a> {
    qmp: Option<&'a RawValue>,
    event: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
}

impl General<'_> {
    pub(in crate::envelope) fn read(text: &str) -> Result<Envelope, Malformed> {
        let general: General<'_> =
            serde_json::from_str(text).map_err(|error| Malformed::not_json(text.as_bytes(), &error))?;
        let place = |part: Option<&RawValue>| match part.map(|part| Span::new(range_in(text, part.get()))) {
            None => Ok(Span::default()),
            Some(span) => span.ok_or(Malformed::TooLong { limit: LONGEST_MESSAGE }),
        };
        Ok(Envelope {
            qmp: place(general.qmp)?,
            event: place(general.event)?,
            data: place(general.data)?,
            timestamp: place(general.timestamp)?,
            result: place(general.result)?,
            error: place(general.error)?,
            id: place(general.id)?,
        })
    }
}

enum Member {
    Qmp,
    Event,
    Data,
    Timestamp,
    Return,
    Error,
    Id,
    Unknown,
}

impl<'de> Deserialize<'de> for Member {
    /// By bytes, since a name that is no Unicode is merely unknown.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_bytes<E>(self, name: &[u8]) -> Result<Member, E> {
                Ok(match name {
                    b"QMP" => Member::Qmp,
                    b"event" => Member::Event,
                    b"data" => Member::Data,
                    b"timestamp" => Member::Timestamp,
                    b"return" => Member::Return,
                    b"error" => Member::Error,
                    b"id" => Member::Id,
                    _ => Member::Unknown,
                })
            }
        }

        deserializer.deserialize_bytes(Name)
    }
}

impl<'de> Deserialize<'de> for General<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = General<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut envelope = General::default();
                while let Some(member) = map.next_key()? {
                    match member {
                        Member::Qmp => envelope.qmp = Some(map.next_value()?),
                        Member::Event => envelope.event = Some(map.next_value()?),
                        Member::Data => envelope.data = Some(map.next_value()?),
                        Member::Timestamp => envelope.timestamp = Some(map.next_value()?),
                        Member::Return => envelope.result = Some(map.next_value()?),
                        Member::Error => envelope.error = Some(map.next_value()?),
                        Member::Id => envelope.id = Some(map.next_value()?),
                        Member::Unknown => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(envelope)
            }
        }

        deserializer.deserialize_map(Members)
    }
}
