//! What kind of message a text is. No I/O.
//!
//! A message is kept as the text it arrived as. Only its envelope is read at once (what kind it is, whose reply it
//! is); a payload becomes values when somebody asks for them, because building trees costs more than everything
//! else. Neither reader of envelopes is recursive, so no nesting can overflow the stack.

use crate::envelope::Envelope;
use crate::event::Event;
use crate::greeting::Greeting;
use crate::malformed::Malformed;
use crate::reply::Reply;

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
        let envelope = Envelope::parse(text)?;
        Self::of(text, &envelope)
    }

    fn of(text: &str, envelope: &Envelope) -> Result<Self, Malformed> {
        // "event" decides whatever else is there, as in QEMU's own client; and a reply is one whatever it has besides.
        if let Some(name) = envelope.event.of(text) {
            return Ok(Self::Event(Event::new(text, name)));
        }
        match envelope.qmp.of(text) {
            Some(greeting) if !envelope.result.is_there() && !envelope.error.is_there() => {
                Greeting::parse(text, greeting).map(Self::Greeting)
            }
            _ => Reply::parse(text, envelope).map(Self::Reply),
        }
    }
}

/// A message that has arrived and of which only the envelope was read.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) text: &'a str,
    pub(crate) envelope: Envelope,
    /// The deepest nesting of a reply that is turned into values.
    pub(crate) depth_limit: usize,
}

impl Arrival<'_> {
    pub(crate) fn is_event(&self) -> bool {
        self.envelope.event.is_there()
    }

    pub(crate) fn into_message(self) -> Result<Message, Malformed> {
        match Message::of(self.text, &self.envelope)? {
            Message::Reply(reply) => Ok(Message::Reply(reply.with_depth_limit(self.depth_limit))),
            other => Ok(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;
    use crate::json::DEFAULT_DEPTH;
    use crate::reply::ReplyError;
    use crate::reply::ReplyId;
    use serde_json::Value;
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

        let Message::Greeting(greeting) = Message::parse(text).unwrap() else { panic!("no greeting") };

        assert_eq!(greeting.version.to_string(), "7.2.22 (Debian)");
        assert_eq!(greeting.capabilities, ["oob"]);
    }

    #[test]
    fn capabilities_given_as_a_string_are_refused() {
        let text = r#"{"QMP":{"version":{},"capabilities":"oob"}}"#;

        assert!(matches!(Message::parse(text), Err(Malformed::UnexpectedShape { .. })));
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
            assert_eq!(reply(&format!(r#"{{"return":{{}},"id":{id}}}"#)).id(), ReplyId::Foreign, "{id}");
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

            assert!(matches!(reply.decode::<Value>(), Err(ReplyError::Malformed(_))), "{error}");
        }
    }

    #[test]
    fn of_a_member_that_stands_twice_the_last_counts() {
        assert_eq!(reply(r#"{"return":1,"return":2,"id":9,"id":1}"#).return_text(), Some("2"));
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
        assert_eq!(event.timestamp(), Some(Timestamp { seconds: -1, microseconds: -1 }));
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

        assert!(matches!(outcome, Err(ReplyError::Malformed(Malformed::TooDeep { limit: DEFAULT_DEPTH }))));
    }

    #[test]
    fn a_lone_surrogate_spoils_only_the_value_that_holds_it() {
        let reply = reply(r#"{"return":{"a":"\ud800"},"id":1}"#);

        assert!(reply.decode::<Value>().is_err());
        assert_eq!(reply.return_text(), Some(r#"{"a":"\ud800"}"#));
    }
}
