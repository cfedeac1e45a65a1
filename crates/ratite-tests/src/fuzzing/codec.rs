//! Bytes to messages: the decoder against a naive one, and what a message gives against plain JSON.
//!
//! An input is: cuts; the limit, 2 to the power of the low four bits of one byte (0 for the default); how often the
//! stream comes, 1 or 32 times, by bit 0 of one byte; the stream.

use std::collections::BTreeMap;

use ratite_qmp::Decoder;
use ratite_qmp::Event;
use ratite_qmp::Greeting;
use ratite_qmp::Limits;
use ratite_qmp::Malformed;
use ratite_qmp::Message;
use ratite_qmp::Reply;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fuzzing::pieces::Cuts;
use crate::fuzzing::pieces::low_bits;

/// Checks that a stream gives the messages it holds, however it is cut, within the limit; and looks into each.
///
/// # Panics
/// When a promise is broken.
pub fn codec(data: &[u8]) {
    let (cuts, rest) = Cuts::take(data);
    let [limit, repeat, stream @ ..] = rest else { return };
    let limits = limits(low_bits(*limit));
    let stream = stream.repeat(if repeat & 1 == 0 { 1 } else { 32 });
    let expected = reference(&stream, limits.message);

    let whole = decode(limits, [stream.as_slice()]);
    let cut = decode(limits, cuts.pieces(&stream));

    assert_eq!(whole.messages, expected.messages, "fed whole");
    assert_eq!(cut.messages, expected.messages, "fed in pieces");
    check_end(&whole.end, &expected);
    check_end(&cut.end, &expected);
    expected.messages.iter().take(64).for_each(|text| check_message(text));
}

fn limits(exponent: usize) -> Limits {
    let mut limits = Limits::default();
    if exponent > 0 {
        limits.message = 1 << exponent;
    }
    limits
}

/// What a decoder made of a stream.
#[derive(Debug)]
struct Decoded {
    messages: Vec<String>,
    end: Result<(), Malformed>,
}

fn decode<'a>(limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = Decoder::new(limits);
    let mut messages = Vec::new();
    let mut fed = 0;
    for piece in pieces {
        feed(&mut decoder, piece);
        fed += piece.len();
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message.to_owned()),
                Ok(None) => break,
                Err(malformed) => {
                    check_after_error(&mut decoder, fed);
                    return Decoded { messages, end: Err(malformed) };
                }
            }
        }
        // Doubling from 128 KiB: never more than twice what is there and what one read wants; or a buffer that another had.
        assert!(decoder.space().len() <= (4 * (fed + (128 << 10))).max(1 << 20), "room beyond all need");
    }
    Decoded { messages, end: decoder.finish() }
}

/// Fills the decoder as a reader does: in as many reads as its space makes of `bytes`.
fn feed(decoder: &mut Decoder, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let space = decoder.space();
        assert!(!space.is_empty(), "no room to read into");
        let (now, later) = bytes.split_at(bytes.len().min(space.len()));
        space[..now.len()].copy_from_slice(now);
        decoder.filled(now.len());
        bytes = later;
    }
}

/// There is no way to go on after an error, but trying to must not hurt.
fn check_after_error(decoder: &mut Decoder, fed: usize) {
    decoder.feed(b"\"}]{} ");
    for _ in 0..=fed {
        if !matches!(decoder.next(), Ok(Some(_))) {
            break;
        }
    }
    let _either = decoder.finish();
}

/// What a stream holds, and how it ends.
struct Expected {
    messages: Vec<String>,
    end: End,
    limit: usize,
}

enum End {
    Between,
    Within,
    TooLong,
    NotUtf8 { at: usize },
    NotAnObject { line: Vec<u8> },
}

/// The naive decoder: it has the whole stream, and begins each message anew.
fn reference(stream: &[u8], limit: usize) -> Expected {
    let mut messages = Vec::new();
    let mut rest = stream;
    let end = loop {
        rest = rest.trim_ascii_start_of_json();
        if rest.is_empty() {
            break End::Between;
        }
        if rest[0] != b'{' {
            let line = rest.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
            break End::NotAnObject { line: line.to_vec() };
        }
        let length = length_of_message(rest);
        if length.unwrap_or(rest.len()) > limit {
            break End::TooLong;
        }
        let Some(length) = length else { break End::Within };
        match str::from_utf8(&rest[..length]) {
            Ok(text) => messages.push(text.to_owned()),
            Err(error) => break End::NotUtf8 { at: error.valid_up_to() },
        }
        rest = &rest[length..];
    };
    Expected { messages, end, limit }
}

trait JsonBlanks {
    fn trim_ascii_start_of_json(&self) -> &Self;
}

impl JsonBlanks for [u8] {
    /// Without the blanks of JSON in front; `trim_ascii_start` would also take a form feed.
    fn trim_ascii_start_of_json(&self) -> &Self {
        let blanks = self.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
        &self[blanks..]
    }
}

/// Where the outermost brace closes.
fn length_of_message(bytes: &[u8]) -> Option<usize> {
    let mut open = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at += length_of_string(&bytes[at..])? - 1,
            b'{' | b'[' => open += 1,
            b'}' | b']' => open -= 1,
            _ => {}
        }
        at += 1;
        if open == 0 {
            return Some(at);
        }
    }
    None
}

/// From the opening quote to behind the closing one.
fn length_of_string(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn check_end(end: &Result<(), Malformed>, expected: &Expected) {
    match (&expected.end, end) {
        (End::Between, Ok(())) | (End::Within, Err(Malformed::Truncated { .. })) => {}
        (End::TooLong, Err(Malformed::TooLong { limit })) => assert_eq!(*limit, expected.limit),
        (End::NotUtf8 { at }, Err(Malformed::NotUtf8 { at: told, .. })) => assert_eq!(told, at),
        (End::NotAnObject { line }, Err(Malformed::NotAnObject { excerpt })) => {
            // Only what has arrived by then can be shown; of a long line only the beginning.
            let told = excerpt.split('…').next().unwrap_or_default();
            let line = if line.is_empty() { "\\n".into() } else { line.escape_ascii().to_string() };
            assert!(!told.is_empty() && line.starts_with(told), "{told:?} of {line:?}");
        }
        _ => panic!("ended with {end:?}"),
    }
    if let Err(malformed) = end {
        let text = malformed.to_string();
        assert!(text.len() < 1000 && !text.contains(char::is_control), "not one short line: {text:?}");
    }
}

/// The members of a message as plain serde_json reads them: of two with one name, the last.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Checks that a message is JSON if serde_json says so, and gives what stands in it.
fn check_message(text: &str) {
    let outcome = Message::parse(text);
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    let refused = matches!(outcome, Err(Malformed::NotJson { .. }));
    // Names are read as bytes, control characters and all.
    let lenient = !refused && text.contains(|c: char| c.is_ascii_control());
    assert!(is_json != refused || lenient, "{outcome:?} from {text:?}");
    // Fails besides only for a name that is no Unicode.
    let Ok(members) = serde_json::from_str::<Members<'_>>(text) else { return };
    match outcome {
        Ok(Message::Greeting(greeting)) => check_greeting(&greeting, text, &members),
        Ok(Message::Event(event)) => check_event(&event, text, &members),
        Ok(Message::Reply(reply)) => check_reply(&reply, text, &members),
        Err(malformed) => check_refused(&malformed, &members),
    }
}

/// Has anything that makes it no greeting, whatever else it has.
fn is_answer(members: &Members<'_>) -> bool {
    ["event", "return", "error"].iter().any(|name| members.contains_key(*name))
}

/// What is JSON but no message: an odd greeting, or an odd error that belongs to no command.
fn check_refused(malformed: &Malformed, members: &Members<'_>) {
    let Malformed::UnexpectedShape { .. } = malformed else { panic!("{malformed:?}") };
    let has = |name: &str| members.contains_key(name);
    let greeting = has("QMP") && !is_answer(members);
    assert!(greeting || (has("error") && !has("id") && !has("event")), "{malformed:?}");
}

fn check_greeting(greeting: &Greeting, text: &str, members: &Members<'_>) {
    assert!(members.contains_key("QMP") && !is_answer(members));
    assert_eq!(greeting.text(), text);
    let version = greeting.version.to_string();
    assert!(version.starts_with(&format!("{}.{}.", greeting.version.major, greeting.version.minor)));
    let offered = members["QMP"].get();
    assert!(greeting.capabilities.len() <= offered.len(), "more capabilities than bytes");
}

fn check_event(event: &Event, text: &str, members: &Members<'_>) {
    let name = members["event"].get();
    assert_eq!(event.name(), serde_json::from_str::<String>(name).unwrap_or(name.to_owned()));
    assert_eq!(event.text(), text);
    assert_eq!(event.data_text(), members.get("data").map(|data| data.get()));
    let plain = |text: &str| serde_json::from_str::<Value>(text).ok();
    if let Some(message) = plain(text) {
        assert_eq!(event.message(), message);
    }
    if let Some(data) = event.data_text().and_then(plain) {
        assert_eq!(event.data(), data);
        assert_eq!(event.data_as::<Value>().expect("it could be read just now"), data);
    }
    if let Some(told) = event.timestamp() {
        let clock: Value = serde_json::from_str(members["timestamp"].get()).expect("a timestamp is JSON");
        assert_eq!(clock["seconds"].as_i64(), Some(told.seconds));
        assert_eq!(clock["microseconds"].as_i64(), Some(told.microseconds));
    }
    let _either = event.data_as::<BTreeMap<String, u8>>();
}

fn check_reply(reply: &Reply, text: &str, members: &Members<'_>) {
    assert!(!members.contains_key("event"));
    assert!(!members.contains_key("QMP") || is_answer(members));
    assert_eq!(reply.text(), text);
    let (returned, error) = (members.get("return"), members.get("error"));
    assert_eq!(reply.return_text(), returned.filter(|_| error.is_none()).map(|raw| raw.get()));
    match (reply.error(), error) {
        (Some(told), Some(raw)) => {
            let parts = serde_json::from_str(raw.get()).ok().and_then(class_and_desc);
            assert_eq!(Some((told.class.clone(), told.desc.clone())), parts);
        }
        (Some(told), None) => panic!("{told:?} out of nothing"),
        (None, _) => {}
    }
    match (reply.message(), serde_json::from_str::<Value>(text)) {
        (Ok(value), Ok(plain)) => {
            assert_eq!(value, plain);
            check_round_trip(&value);
        }
        (Err(malformed), Ok(_)) => panic!("{malformed:?} from {text:?}"),
        // serde_json alone stops at 128 levels.
        (Ok(value), Err(_)) => check_round_trip(&value),
        (Err(_), Err(_)) => {}
    }
}

fn class_and_desc(error: Value) -> Option<(String, String)> {
    Some((error["class"].as_str()?.to_owned(), error["desc"].as_str()?.to_owned()))
}

/// What was read, written, and read again is the same.
fn check_round_trip(value: &Value) {
    let text = format!(r#"{{"return":{value},"id":1}}"#);
    let Ok(Message::Reply(reply)) = Message::parse(&text) else { panic!("no reply: {text:?}") };
    if let Ok(again) = reply.message() {
        assert_eq!(again["return"].to_string(), value.to_string());
    }
}
