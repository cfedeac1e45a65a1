//! The words on the wire: greeting, command, reply, event. No I/O.
//!
//! A message is kept as the text it arrived as. Only its envelope is read at once (what kind it is, whose reply it
//! is); a payload becomes values when somebody asks for them, because building trees costs more than everything
//! else. The envelope's reader is not recursive, so no nesting can overflow the stack.

use std::fmt;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::Value;
use serde_json::value::RawValue;

/// One message from the peer.
#[derive(Debug, Clone)]
pub enum Message {
    /// The first message of a session.
    Greeting(Greeting),
    /// The answer to a command.
    Reply(Reply),
    /// Something that happened.
    Event(Event),
}

impl Message {
    /// Reads one complete message.
    ///
    /// Of a member that stands twice, the last one counts.
    ///
    /// # Errors
    /// [`Malformed`] when `text` is not a JSON object, or not one that QMP knows.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let envelope: Envelope<'_> =
            serde_json::from_str(text).map_err(|error| Malformed::not_json(text.as_bytes(), &error))?;
        if let Some(greeting) = envelope.qmp {
            return Greeting::parse(text, greeting).map(Self::Greeting);
        }
        // "event" decides whatever else is there, as in QEMU's own client.
        if let Some(name) = envelope.event {
            return Event::parse(text, name, &envelope).map(Self::Event);
        }
        Ok(Self::Reply(Reply::parse(text, &envelope)))
    }
}

/// What QEMU says first: its version and what it can negotiate.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// QEMU's version.
    pub version: Version,
    /// The capabilities on offer, such as `oob`.
    pub capabilities: Vec<String>,
    text: Arc<str>,
}

impl Greeting {
    fn parse(text: &str, qmp: &RawValue) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct Body {
            version: VersionBody,
            capabilities: Vec<Value>,
        }
        #[derive(Deserialize)]
        struct VersionBody {
            #[serde(default)]
            qemu: Triple,
            #[serde(default)]
            package: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Triple {
            major: u32,
            minor: u32,
            micro: u32,
        }
        let body: Body = serde_json::from_str(qmp.get())
            .map_err(|error| Malformed::shape(text, format!("its greeting is odd: {error}")))?;
        let Triple { major, minor, micro } = body.version.qemu;
        Ok(Self {
            version: Version {
                major,
                minor,
                micro,
                package: body.version.package,
            },
            // A capability that is no string is one that we do not know.
            capabilities: body
                .capabilities
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            text: text.into(),
        })
    }

    /// The whole greeting as it arrived.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A QEMU version; versions of one QEMU compare by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The 7 of 7.2.1.
    pub major: u32,
    /// The 2 of 7.2.1.
    pub minor: u32,
    /// The 1 of 7.2.1.
    pub micro: u32,
    /// The distributor's name for the build; often empty.
    pub package: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)?;
        if self.package.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.package)
        }
    }
}

/// A command to be sent: its name, arguments, and how it is to be carried.
///
/// ```
/// use ratite_qmp::Command;
/// use serde_json::json;
/// use std::time::Duration;
///
/// let command = Command::new("device_del")
///     .arguments(json!({ "id": "disk0" }))?
///     .limit(Duration::from_secs(5));
/// assert_eq!(command.name(), "device_del");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug)]
pub struct Command {
    pub(crate) name: String,
    pub(crate) arguments: Option<String>,
    pub(crate) oob: bool,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) limit: Option<Duration>,
}

impl Command {
    /// A command without arguments, sent in band, with the connection's default limit.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            arguments: None,
            oob: false,
            fds: Vec::new(),
            limit: None,
        }
    }

    /// Adds the arguments: anything that serialises to a JSON object.
    ///
    /// Nothing (`()`, `None`, an empty object) means that `arguments` is left out of the message.
    ///
    /// # Errors
    /// When the value does not serialise, serialises to something other than an object, or holds a number that
    /// JSON cannot hold (NaN, infinities).
    pub fn arguments(mut self, arguments: impl Serialize) -> Result<Self, serde_json::Error> {
        let text = crate::codec::to_wire(&arguments)?;
        self.arguments = match text.as_str() {
            "null" | "{}" => None,
            object if object.starts_with('{') => Some(text),
            other => {
                let shown = excerpt(other.as_bytes());
                return Err(serde::ser::Error::custom(format!(
                    "arguments are a JSON object, not `{shown}`"
                )));
            }
        };
        Ok(self)
    }

    /// Sends it out of band (`exec-oob`): ahead of commands that wait, where the peer negotiated `oob`.
    #[must_use]
    pub fn oob(mut self) -> Self {
        self.oob = true;
        self
    }

    /// Lets `fd` travel with the command, as `getfd` and `add-fd` want it.
    #[must_use]
    pub fn fd(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.fds.push(fd.into());
        self
    }

    /// Bounds this command's wait, instead of the connection's default.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The command's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The answer to a command, as it arrived.
#[derive(Clone)]
pub struct Reply {
    text: Arc<str>,
    id: ReplyId,
    outcome: Outcome,
    depth_limit: usize,
}

/// Whose reply a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyId {
    Ours(u64),
    Foreign,
    Absent,
}

#[derive(Debug, Clone)]
enum Outcome {
    Return(Range<usize>),
    Error(Box<CommandError>),
    Malformed(Malformed),
}

impl Reply {
    fn parse(text: &str, envelope: &Envelope<'_>) -> Self {
        let id = match envelope.id {
            None => ReplyId::Absent,
            Some(id) => id.get().parse().map_or(ReplyId::Foreign, ReplyId::Ours),
        };
        let outcome = match (envelope.error, envelope.result) {
            // An error counts even beside a "return", as in QEMU's own client.
            (Some(error), _) => match CommandError::parse(text, error) {
                Ok(error) => Outcome::Error(Box::new(error)),
                Err(malformed) => Outcome::Malformed(malformed),
            },
            (None, Some(result)) => Outcome::Return(range_in(text, result.get())),
            (None, None) => Outcome::Malformed(Malformed::shape(
                text,
                "it has neither `return` nor `error`".into(),
            )),
        };
        Self {
            text: text.into(),
            id,
            outcome,
            depth_limit: DEFAULT_DEPTH,
        }
    }

    pub(crate) fn id(&self) -> ReplyId {
        self.id
    }

    pub(crate) fn with_depth_limit(mut self, limit: usize) -> Self {
        self.depth_limit = limit;
        self
    }

    /// The whole message, with its `id`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn returned(&self) -> Result<&str, ReplyError> {
        match &self.outcome {
            Outcome::Return(range) => Ok(&self.text[range.clone()]),
            Outcome::Error(error) => Err(ReplyError::Refused((**error).clone())),
            Outcome::Malformed(malformed) => Err(ReplyError::Malformed(malformed.clone())),
        }
    }

    /// The JSON text of `return`, if the command succeeded.
    #[must_use]
    pub fn return_text(&self) -> Option<&str> {
        self.returned().ok()
    }

    /// What QEMU said instead of succeeding, if it did not.
    #[must_use]
    pub fn error(&self) -> Option<&CommandError> {
        match &self.outcome {
            Outcome::Error(error) => Some(error),
            Outcome::Return(_) | Outcome::Malformed(_) => None,
        }
    }

    /// The whole message as a value, `return` or `error` and `id` included.
    ///
    /// # Errors
    /// [`Malformed`] when it is nested more deeply than the connection's limit, or holds a string that is no Unicode
    /// (a lone surrogate).
    pub fn message(&self) -> Result<Value, Malformed> {
        from_text(&self.text, self.depth_limit)
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, ReplyError> {
        from_text(self.returned()?, self.depth_limit).map_err(ReplyError::Malformed)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply")
            .field(&excerpt(self.text.as_bytes()))
            .finish()
    }
}

/// Why a reply yields no value.
#[derive(Debug)]
pub(crate) enum ReplyError {
    Refused(CommandError),
    Malformed(Malformed),
}

/// QEMU's own words for why it did not do a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{desc} ({class})")]
pub struct CommandError {
    /// The error class, such as `GenericError` or `CommandNotFound`.
    pub class: String,
    /// The description, verbatim.
    pub desc: String,
}

impl CommandError {
    fn parse(text: &str, error: &RawValue) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct Body {
            class: String,
            desc: String,
        }
        let Body { class, desc } = serde_json::from_str(error.get())
            .map_err(|error| Malformed::shape(text, format!("its `error` is odd: {error}")))?;
        Ok(Self { class, desc })
    }
}

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
    fn parse(text: &str, name: &RawValue, envelope: &Envelope<'_>) -> Result<Self, Malformed> {
        let name: Box<str> = match serde_json::from_str::<String>(name.get()) {
            Ok(name) => name.into(),
            // The original lets any name pass; keep it as its text.
            Err(_) => name.get().into(),
        };
        Ok(Self(Arc::new(EventBody {
            name,
            data: envelope.data.map(|data| range_in(text, data.get())),
            timestamp: envelope
                .timestamp
                .and_then(|raw| serde_json::from_str(raw.get()).ok()),
            text: text.into(),
        })))
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
        self.data_text()
            .and_then(|text| from_text(text, DEFAULT_DEPTH).ok())
            .unwrap_or(Value::Null)
    }

    /// `data` as a type of your own.
    ///
    /// # Errors
    /// [`Malformed`] when there is no `data`, or not of that shape.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, Malformed> {
        let text = self
            .data_text()
            .ok_or_else(|| Malformed::shape(&self.0.text, "it has no `data`".into()))?;
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
        f.debug_tuple("Event")
            .field(&excerpt(self.0.text.as_bytes()))
            .finish()
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

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes are no UTF-8.
    #[error("byte {at} of a message is not UTF-8: `{excerpt}`")]
    NotUtf8 {
        /// The offset of the first offending byte within the message.
        at: usize,
        /// The bytes around it, escaped.
        excerpt: String,
    },
    /// The text is no JSON.
    #[error("a message is not JSON ({reason}): `{excerpt}`")]
    NotJson {
        /// The parser's word for it, with line and column.
        reason: String,
        /// The message's beginning, escaped.
        excerpt: String,
    },
    /// What arrived cannot begin a message, which is an object.
    #[error("a message does not begin with `{{`: `{excerpt}`")]
    NotAnObject {
        /// What arrived, escaped.
        excerpt: String,
    },
    /// It is JSON, but not what QMP says.
    #[error("a message is not QMP, {reason}: `{excerpt}`")]
    UnexpectedShape {
        /// What is wrong with it.
        reason: String,
        /// The message's beginning, escaped.
        excerpt: String,
    },
    /// It is longer than the limit.
    #[error("a message is longer than the limit of {limit} bytes")]
    TooLong {
        /// The limit in bytes, [`crate::Limits::message`].
        limit: usize,
    },
    /// It is nested more deeply than the limit.
    #[error("a message is nested more than {limit} levels deep")]
    TooDeep {
        /// The limit in levels, [`crate::Limits::depth`].
        limit: usize,
    },
    /// The connection ended in the middle of it.
    #[error("the connection ended within a message: `{excerpt}`")]
    Truncated {
        /// What had arrived of it, escaped.
        excerpt: String,
    },
}

impl Malformed {
    pub(crate) fn not_json(bytes: &[u8], error: &serde_json::Error) -> Self {
        Self::NotJson {
            reason: error.to_string(),
            excerpt: excerpt(bytes),
        }
    }

    pub(crate) fn shape(text: &str, reason: String) -> Self {
        Self::UnexpectedShape {
            reason,
            excerpt: excerpt(text.as_bytes()),
        }
    }
}

/// The beginning of `bytes`, escaped to printable ASCII; what is left out is counted.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 120;
    let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii().to_string();
    match bytes.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}… and {more} bytes more"),
    }
}

/// How deep a message may be nested when nothing else is said; QEMU's own parser stops at 1024.
pub(crate) const DEFAULT_DEPTH: usize = 2048;

/// Reads `text` as a `T`, at any depth up to `depth_limit`, without overflowing the stack.
fn from_text<T: DeserializeOwned>(text: &str, depth_limit: usize) -> Result<T, Malformed> {
    // serde_json's own guard stops at 128 levels; only what is deeper pays for the second, stack-growing attempt.
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) if error.is_data() => Err(Malformed::shape(text, error.to_string())),
        Err(error) => {
            let depth = depth_of(text);
            if depth < 128 {
                return Err(Malformed::not_json(text.as_bytes(), &error));
            }
            if depth > depth_limit {
                return Err(Malformed::TooDeep { limit: depth_limit });
            }
            let mut deserializer = serde_json::Deserializer::from_str(text);
            deserializer.disable_recursion_limit();
            T::deserialize(serde_stacker::Deserializer::new(&mut deserializer))
                .map_err(|error| Malformed::not_json(text.as_bytes(), &error))
        }
    }
}

/// The deepest nesting of arrays and objects in JSON text.
fn depth_of(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        if in_string {
            (escaped, in_string) = (byte == b'\\' && !escaped, byte != b'"' || escaped);
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Where `part`, a slice of `whole`, lies in it.
fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

/// The members that decide what a message is. Unlike a derived reader, it takes a member twice (the last counts).
#[derive(Default)]
struct Envelope<'a> {
    qmp: Option<&'a RawValue>,
    event: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
enum Member {
    #[serde(rename = "QMP")]
    Qmp,
    #[serde(rename = "event")]
    Event,
    #[serde(rename = "data")]
    Data,
    #[serde(rename = "timestamp")]
    Timestamp,
    #[serde(rename = "return")]
    Return,
    #[serde(rename = "error")]
    Error,
    #[serde(rename = "id")]
    Id,
    #[serde(other)]
    Unknown,
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut envelope = Envelope::default();
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reply(text: &str) -> Reply {
        match Message::parse(text).unwrap() {
            Message::Reply(reply) => reply,
            other => panic!("{other:?} is no reply"),
        }
    }

    fn event(text: &str) -> Event {
        match Message::parse(text).unwrap() {
            Message::Event(event) => event,
            other => panic!("{other:?} is no event"),
        }
    }

    #[test]
    fn a_greeting_gives_version_and_capabilities() {
        let text = r#"{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7},"package":"Debian"},"capabilities":["oob",5]}}"#;

        let Message::Greeting(greeting) = Message::parse(text).unwrap() else {
            panic!("no greeting")
        };

        assert_eq!(greeting.version.to_string(), "7.2.22 (Debian)");
        assert_eq!(greeting.capabilities, ["oob"]);
    }

    #[test]
    fn capabilities_given_as_a_string_are_refused() {
        let text = r#"{"QMP":{"version":{},"capabilities":"oob"}}"#;

        assert!(matches!(
            Message::parse(text),
            Err(Malformed::UnexpectedShape { .. })
        ));
    }

    #[test]
    fn integers_of_64_bits_stay_exact() {
        let reply = reply(r#"{"return":[18446744073709551615,-9223372036854775808],"id":3}"#);

        let value: Value = reply.decode().unwrap();

        assert_eq!(value, json!([u64::MAX, i64::MIN]));
        assert_eq!(reply.id(), ReplyId::Ours(3));
    }

    #[test]
    fn ids_that_are_not_ours_are_foreign() {
        for id in [r#""3""#, "-1", "3.0", "[3]", "{}", "null", "18446744073709551616"] {
            assert_eq!(
                reply(&format!(r#"{{"return":{{}},"id":{id}}}"#)).id(),
                ReplyId::Foreign,
                "{id}"
            );
        }
        assert_eq!(reply(r#"{"return":{}}"#).id(), ReplyId::Absent);
    }

    #[test]
    fn an_error_counts_even_beside_a_return() {
        let reply = reply(r#"{"return":1,"error":{"class":"GenericError","desc":"no"},"id":1}"#);

        assert_eq!(reply.error().unwrap().to_string(), "no (GenericError)");
        assert_eq!(reply.return_text(), None);
    }

    #[test]
    fn a_reply_with_neither_member_is_told_to_its_command() {
        let reply = reply(r#"{"id":1}"#);

        assert!(matches!(reply.decode::<Value>(), Err(ReplyError::Malformed(_))));
    }

    #[test]
    fn a_reply_with_an_odd_error_is_told_to_its_command() {
        for error in ["5", "{}", r#"{"class":1,"desc":"x"}"#] {
            let reply = reply(&format!(r#"{{"error":{error},"id":1}}"#));

            assert!(
                matches!(reply.decode::<Value>(), Err(ReplyError::Malformed(_))),
                "{error}"
            );
        }
    }

    #[test]
    fn of_a_member_that_stands_twice_the_last_counts() {
        assert_eq!(
            reply(r#"{"return":1,"return":2,"id":9,"id":1}"#).return_text(),
            Some("2")
        );
    }

    #[test]
    fn a_null_return_is_a_return() {
        assert_eq!(reply(r#"{"return":null,"id":1}"#).return_text(), Some("null"));
    }

    #[test]
    fn an_event_keeps_its_text_and_reads_its_parts() {
        let text = r#"{"timestamp":{"seconds":-1,"microseconds":-1},"event":"X","data":{"a":[1]}}"#;

        let event = event(text);

        assert_eq!((event.name(), event.text()), ("X", text));
        assert_eq!(event.data(), json!({"a": [1]}));
        assert_eq!(
            event.timestamp(),
            Some(Timestamp {
                seconds: -1,
                microseconds: -1
            })
        );
    }

    #[test]
    fn nesting_beyond_serde_jsons_own_guard_is_read() {
        let deep = format!("{}{}", "[".repeat(1500), "]".repeat(1500));

        let value: Value = reply(&format!(r#"{{"return":{deep},"id":1}}"#)).decode().unwrap();

        assert_eq!(value.to_string(), deep);
    }

    #[test]
    fn nesting_beyond_the_limit_is_a_typed_error() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));

        let outcome = reply(&format!(r#"{{"return":{deep},"id":1}}"#)).decode::<Value>();

        assert!(matches!(
            outcome,
            Err(ReplyError::Malformed(Malformed::TooDeep { limit: DEFAULT_DEPTH }))
        ));
    }

    #[test]
    fn a_lone_surrogate_spoils_only_the_value_that_holds_it() {
        let reply = reply(r#"{"return":{"a":"\ud800"},"id":1}"#);

        assert!(reply.decode::<Value>().is_err());
        assert_eq!(reply.return_text(), Some(r#"{"a":"\ud800"}"#));
    }

    #[test]
    fn arguments_must_be_an_object() {
        assert!(Command::new("x").arguments(json!([1])).is_err());
        assert_eq!(Command::new("x").arguments(()).unwrap().arguments, None);
        assert_eq!(Command::new("x").arguments(json!({})).unwrap().arguments, None);
    }
}
