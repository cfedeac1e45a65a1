//! Bytes to messages and back, with limits. Pure: no I/O.
//!
//! QEMU ends a message with CRLF, other peers with LF or nothing, and `pretty=on` spreads one over many lines. So a
//! message ends where its outermost brace closes, whatever stands between. A line that is one message, which is what
//! QEMU sends, is found by its end and read once; for everything else a scanner keeps its place across reads and looks at
//! every byte once. A growing message costs linear time.

mod buffer;
mod encode;
mod limits;
mod run;
mod scan;

use memchr::memchr;
use memchr::memchr2;
use memchr::memchr3;

use crate::codec::buffer::Buffer;
use crate::envelope::Envelope;
use crate::envelope::LONGEST_MESSAGE;
use crate::event::Place;
use crate::malformed::Malformed;
use crate::malformed::excerpt;
pub(crate) use encode::encode;
pub(crate) use encode::encode_for_agent;
pub use limits::Limits;
pub(crate) use run::Run;

/// Cuts a stream of bytes into messages.
///
/// Bytes go in through [`Decoder::space`] and [`Decoder::filled`]; messages come out of [`Decoder::next`].
#[derive(Debug)]
pub struct Decoder {
    buffer: Buffer,
    /// How far behind the first unread byte the scanner has looked, and how far there is no end of a line.
    scanned: usize,
    searched: usize,
    /// Whether the line in which the message begins was read, and is no message.
    is_odd: bool,
    /// Whether the end of a line is worth waiting for.
    is_patient: bool,
    state: State,
    depth: usize,
    limit: usize,
    /// Whether [`SENTINEL`] ends whatever had begun.
    delimited: bool,
    /// Whether a sentinel has come since the last message.
    sentinel: bool,
    /// Whether one had come before the message that was handed out last.
    after_sentinel: bool,
    /// Where the events of the last run stand; kept for its room.
    places: Vec<Place>,
    /// Why nothing comes behind that run.
    spoiled: Option<Malformed>,
}

/// The byte by which a guest agent says "here a message begins, forget what came before". No UTF-8 holds it.
pub(crate) const SENTINEL: u8 = 0xff;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Whatever comes before the next sentinel is of no interest.
    Skipping,
    Between,
    Structure,
    String,
    Escape,
}

/// So much without the end of a line is looked at by who is patient, too.
const LOOKED_AT: usize = 256 << 10;

impl Decoder {
    /// A decoder that refuses messages longer than `limits.message`.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            buffer: Buffer::default(),
            scanned: 0,
            searched: 0,
            is_odd: false,
            is_patient: false,
            state: State::Between,
            depth: 0,
            limit: limits.message.min(LONGEST_MESSAGE),
            delimited: false,
            sentinel: false,
            after_sentinel: false,
            places: Vec::new(),
            spoiled: None,
        }
    }

    /// A decoder for what a guest agent says: a [`SENTINEL`] ends whatever had begun.
    pub(crate) fn delimited(limits: Limits) -> Self {
        Self { delimited: true, ..Self::new(limits) }
    }

    /// Drops what is there and what comes, up to the next sentinel; also after an error.
    pub(crate) fn skip_to_sentinel(&mut self) {
        self.forget(0);
        self.state = State::Skipping;
    }

    /// Whether there is more than blanks that no message was made of yet.
    pub(crate) fn has_more(&self) -> bool {
        !self.buffer.unread().trim_ascii().is_empty()
    }

    /// Whether a sentinel stood before the message that [`Decoder::next`] yielded last.
    pub(crate) fn was_after_sentinel(&self) -> bool {
        self.after_sentinel
    }

    /// Room for the next read: at least one byte, usually 32 KiB or more.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.space()
    }

    /// Says that `count` bytes of [`Decoder::space`] now hold what was read.
    ///
    /// # Panics
    /// When `count` is more than the space was long.
    pub fn filled(&mut self, count: usize) {
        self.buffer.filled(count);
    }

    /// Says that there may be more to read at once: what has no line end yet need not be looked at before.
    pub(crate) fn be_patient(&mut self) {
        self.is_patient = true;
    }

    /// Says that nothing more can be read for now; whether a message may be there all the same.
    pub(crate) fn rest(&mut self) -> bool {
        let waited = self.is_patient && self.waits_for_line_end();
        self.is_patient = false;
        self.buffer.rest();
        waited
    }

    /// Gives the room for reading to others if there is nothing in it; the next read has some again.
    pub(crate) fn give_room_back(&mut self) {
        if self.state == State::Between {
            self.skip_blanks();
        }
        self.buffer.rest();
    }

    /// Adds bytes that are already in memory.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.filled(count);
            bytes = &bytes[count..];
        }
    }

    /// The next complete message, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that cannot be a message; there is no way to go on after that.
    #[expect(clippy::should_implement_trait, reason = "what it yields borrows from the decoder")]
    pub fn next(&mut self) -> Result<Option<&str>, Malformed> {
        Ok(self.next_read()?.map(|(text, _)| text))
    }

    /// The same, with its envelope if that was read on the way.
    pub(crate) fn next_read(&mut self) -> Result<Option<(&str, Option<Envelope>)>, Malformed> {
        let (length, envelope) = match self.line() {
            Some((length, envelope)) => (length, Some(envelope)),
            None if self.is_patient && self.waits_for_line_end() => return Ok(None),
            None => match self.scan()? {
                Some(length) => (length, None),
                None => return Ok(None),
            },
        };
        self.forget(0);
        self.state = State::Between;
        self.after_sentinel = std::mem::take(&mut self.sentinel);
        self.searched = self.searched.saturating_sub(length);
        let bytes = self.buffer.take(length);
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some((text, envelope))),
            Err(error) => {
                let at = error.valid_up_to();
                Err(Malformed::NotUtf8 { at, excerpt: excerpt(&bytes[at.saturating_sub(20)..]) })
            }
        }
    }

    /// The length of the line that is one message, if it is there.
    fn line(&mut self) -> Option<(usize, Envelope)> {
        if self.delimited || self.is_odd {
            return None;
        }
        if self.state == State::Between {
            self.skip_blanks();
        }
        let unread = self.buffer.unread();
        let end = memchr(b'\n', &unread[self.searched..]);
        self.searched = end.map_or(unread.len(), |end| self.searched + end);
        let line = &unread[..end.map(|_| self.searched)?];
        let length = line.trim_ascii_end().len();
        let envelope = if length <= self.limit { Envelope::read(line) } else { None };
        self.is_odd = envelope.is_none();
        envelope.map(|envelope| (length, envelope))
    }

    fn skip_blanks(&mut self) {
        let blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.forget(self.buffer.unread().iter().take_while(blank).count());
    }

    /// Whether a line has begun whose end may show that it is one message.
    fn waits_for_line_end(&self) -> bool {
        let length = self.buffer.unread().len();
        !self.delimited && !self.is_odd && (1..=LOOKED_AT.min(self.limit)).contains(&length)
    }

    /// Goes on behind the line in which no message begins; what of that line is yet to come will be refused, too.
    pub(crate) fn skip_line(&mut self) {
        let rest = &self.buffer.unread()[self.scanned..];
        let end = match self.delimited {
            true => memchr3(b'\r', b'\n', SENTINEL, rest),
            false => memchr2(b'\r', b'\n', rest),
        };
        self.forget(self.scanned + end.unwrap_or(rest.len()));
    }

    /// Says that no more bytes will come.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when a message had begun.
    pub fn finish(&self) -> Result<(), Malformed> {
        if self.state != State::Skipping && !self.has_more() {
            return Ok(());
        }
        Err(Malformed::Truncated { excerpt: excerpt(self.buffer.unread()) })
    }

    /// Hands out `count` bytes to nobody, and begins anew behind them.
    fn forget(&mut self, count: usize) {
        self.buffer.skip(count);
        self.searched = self.searched.saturating_sub(count);
        (self.scanned, self.is_odd) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::buffer::KEPT_CAPACITY;
    use proptest::prelude::*;
    use serde_json::json;

    fn all(decoder: &mut Decoder) -> Vec<String> {
        let mut messages = Vec::new();
        while let Some(message) = decoder.next().unwrap() {
            messages.push(message.to_owned());
        }
        messages
    }

    fn decode(bytes: &[u8]) -> Result<Vec<String>, Malformed> {
        let mut decoder = Decoder::new(Limits::default());
        decoder.feed(bytes);
        let mut messages = Vec::new();
        while let Some(message) = decoder.next()? {
            messages.push(message.to_owned());
        }
        decoder.finish().map(|()| messages)
    }

    #[test]
    fn any_line_end_and_none_separate_messages() {
        let messages = decode(b"{\"a\":1}\r\n{\"b\":2}\n\n{}{\"c\":[{}]} \t{\"d\":\"}\\\"{\"}").unwrap();

        assert_eq!(messages, ["{\"a\":1}", "{\"b\":2}", "{}", "{\"c\":[{}]}", "{\"d\":\"}\\\"{\"}"]);
    }

    #[test]
    fn a_pretty_message_is_one_message() {
        let pretty = serde_json::to_string_pretty(&json!({"return": [{"a": "}\n{"}, []], "id": 1})).unwrap();

        assert_eq!(decode(format!("{pretty}\r\n{{}}").as_bytes()).unwrap(), [pretty.as_str(), "{}"]);
    }

    #[test]
    fn garbage_is_named_up_to_its_line_end() {
        let error = decode(b"\r\nhello \x07\r\n{}").unwrap_err();

        assert_eq!(error, Malformed::NotAnObject { excerpt: "hello \\x07".into() });
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_place() {
        let error = decode(b"{\"a\":\"\xff\"}").unwrap_err();

        assert_eq!(error, Malformed::NotUtf8 { at: 6, excerpt: "{\\\"a\\\":\\\"\\xff\\\"}".into() });
    }

    #[test]
    fn half_a_message_at_the_end_is_told() {
        assert!(
            matches!(decode(b"{}{\"a\""), Err(Malformed::Truncated { excerpt }) if excerpt == "{\\\"a\\\"")
        );
    }

    #[test]
    fn the_limit_holds_to_the_byte() {
        let limits = Limits { message: 9, ..Limits::default() };
        let mut decoder = Decoder::new(limits);
        decoder.feed(b"   {\"a\":123}");
        assert_eq!(all(&mut decoder), ["{\"a\":123}"]);

        decoder.feed(b"{\"a\":1234");

        assert!(decoder.next().is_ok());
        decoder.feed(b"5");
        assert_eq!(decoder.next().unwrap_err(), Malformed::TooLong { limit: 9 });
    }

    #[test]
    fn the_buffer_of_a_long_message_is_given_back() {
        let mut decoder = Decoder::new(Limits::default());
        decoder.feed(format!("{{\"a\":\"{}\"}}", "x".repeat(8 << 20)).as_bytes());
        assert_eq!(all(&mut decoder).len(), 1);

        decoder.feed(b"{}");

        assert!(decoder.buffer.len() <= KEPT_CAPACITY);
        assert_eq!(all(&mut decoder), ["{}"]);
    }

    fn agents_words(pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let mut decoder = Decoder::delimited(Limits::default());
        decoder.skip_to_sentinel();
        let mut words = Vec::new();
        for piece in pieces {
            decoder.feed(piece);
            while let Some(text) = decoder.next().unwrap().map(str::to_owned) {
                words.push((text, decoder.was_after_sentinel()));
            }
        }
        words
    }

    #[test]
    fn what_comes_before_a_sentinel_is_skipped() {
        let words =
            agents_words(&[b"no {\"return\": \"half a mess", b"age", b"\n\xff", b"{\"a\":1}\n{\"b\":2}"]);

        assert_eq!(words, [("{\"a\":1}".into(), true), ("{\"b\":2}".into(), false)]);
    }

    #[test]
    fn a_sentinel_ends_what_had_begun_wherever_it_stands() {
        for begun in ["", "{", "{\"a", "{\"a\":\"\\", "{\"a\":[[{\"b\":1"] {
            let stream = [b"\xff\xff", begun.as_bytes(), b"\xff \n{\"c\":3}"].concat();

            assert_eq!(agents_words(&[&stream]), [("{\"c\":3}".into(), true)], "{begun}");
        }
    }

    #[test]
    fn garbage_after_a_sentinel_is_an_error_that_skipping_mends() {
        let mut decoder = Decoder::delimited(Limits::default());
        decoder.feed(b"\xffwhat\xff{\"c\":3}");
        assert!(decoder.next().is_err());

        decoder.skip_to_sentinel();

        assert_eq!(all(&mut decoder), ["{\"c\":3}"]);
    }

    #[test]
    fn what_is_skipped_takes_no_room() {
        let mut decoder = Decoder::delimited(Limits { message: 100, ..Limits::default() });
        decoder.skip_to_sentinel();
        for _ in 0..1000 {
            decoder.feed(&[b'x'; 10_000]);
            assert_eq!(decoder.next(), Ok(None));
        }

        decoder.feed(b"\xff{}");

        assert_eq!(all(&mut decoder), ["{}"]);
        assert!(decoder.buffer.len() <= KEPT_CAPACITY);
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_the_messages_are_the_same(
            texts in prop::collection::vec("[a-z\\[\\]{}\"\\\\é\n]{0,12}", 0..8),
            cuts in prop::collection::vec(1_usize..7, 1..40),
        ) {
            let sent: Vec<String> = texts.iter().map(|text| json!({ "k": [text, {"n": text}] }).to_string()).collect();
            let stream = sent.join("\r\n");
            let mut decoder = Decoder::new(Limits::default());
            let mut received = Vec::new();
            let (mut rest, mut cut) = (stream.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(rest.len().min(*cut.next().unwrap()));
                decoder.feed(head);
                received.extend(all(&mut decoder));
                rest = tail;
            }
            prop_assert_eq!(received, sent);
            prop_assert!(decoder.finish().is_ok());
        }

        #[test]
        fn whatever_comes_before_a_sentinel_the_message_behind_it_is_read(
            before in prop::collection::vec(any::<u8>(), 0..200),
            cut in 1_usize..40,
        ) {
            let stream = [before.as_slice(), b"\xff{\"return\":1}"].concat();
            let mut decoder = Decoder::delimited(Limits::default());
            let mut last = None;
            for piece in stream.chunks(cut) {
                decoder.feed(piece);
                loop {
                    match decoder.next().map(|text| text.map(str::to_owned)) {
                        Ok(Some(text)) => last = Some((text, decoder.was_after_sentinel())),
                        Ok(None) => break,
                        Err(_) => decoder.skip_to_sentinel(),
                    }
                }
            }
            prop_assert_eq!(last, Some(("{\"return\":1}".to_owned(), true)));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
