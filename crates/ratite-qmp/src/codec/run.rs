//! Events that come one behind the other as QEMU writes them, read together.

use crate::codec::Decoder;
use crate::codec::State;
use crate::envelope::Shape;
use crate::event::LONGEST_BATCH;
use crate::event::Place;
use crate::malformed::Malformed;
use crate::malformed::excerpt;

/// At least one event: their text, and where each stands in it.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) text: &'a str,
    pub(crate) places: &'a [Place],
}

/// An event that is longer is read as any other message: what is not all there is looked at anew when more comes.
const LONGEST_SHAPE: usize = 4 << 10;

impl Decoder {
    /// Takes the next messages as long as they are events, not too many at once; `None` when the next message is none that is read
    /// here.
    ///
    /// # Errors
    /// As [`Decoder::next`].
    pub(crate) fn next_events(&mut self) -> Result<Option<Run<'_>>, Malformed> {
        if self.spoiled.is_some() {
            return self.spoiled.take().map_or(Ok(None), Err);
        }
        // Looked at for each reply, too, which is no event.
        if !matches!(self.buffer.unread(), [b'{', b'"', b't', ..] | [b' ' | b'\r' | b'\n' | b'\t', ..]) {
            return Ok(None);
        }
        match self.read_run() {
            0 => Ok(None),
            length => self.checked_run(length),
        }
    }

    /// The run of this length that was handed out, as text.
    fn checked_run(&mut self, length: usize) -> Result<Option<Run<'_>>, Malformed> {
        let run = self.buffer.behind(length);
        match std::str::from_utf8(run) {
            Ok(text) => Ok(Some(Run { text, places: &self.places })),
            Err(error) => {
                // Those before the first that is spoiled are events all the same.
                let valid = error.valid_up_to();
                let fine = self.places.partition_point(|place| place.text.range().end <= valid);
                let spoiled = &run[self.places[fine].text.range()];
                let at = valid - self.places[fine].text.range().start;
                let why = Malformed::NotUtf8 { at, excerpt: excerpt(&spoiled[at.saturating_sub(20)..]) };
                self.places.truncate(fine);
                if fine == 0 {
                    return Err(why);
                }
                self.spoiled = Some(why);
                let text = std::str::from_utf8(&run[..valid]).unwrap_or_default();
                Ok(Some(Run { text, places: &self.places }))
            }
        }
    }

    /// Hands out a run and notes the places of its events; how long it is.
    fn read_run(&mut self) -> usize {
        if self.delimited || self.is_odd || self.state != State::Between {
            return 0;
        }
        self.skip_blanks();
        self.places.clear();
        // What was searched in vain for the end of a line is not all there.
        if self.searched > 0 {
            return 0;
        }
        let unread = self.buffer.unread();
        let (mut length, mut last) = (0, 0);
        // The next one is probably as long as the last, and none is read in vain.
        while length + last <= LONGEST_BATCH
            && let Some(shape) = Shape::read(&unread[length..unread.len().min(length + LONGEST_SHAPE)])
            && shape.length <= self.limit
            && (length == 0 || length + shape.length <= LONGEST_BATCH)
        {
            self.places.push(Place { text: shape.text.moved(length), name: shape.name.moved(length) });
            length += shape.with_line_end;
            last = shape.length;
        }
        self.forget(length);
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Limits;
    use proptest::prelude::*;

    fn event(name: &str, data: &str) -> Vec<u8> {
        let head = r#"{"timestamp": {"seconds": 1700000000, "microseconds": 1}, "event": "#;
        format!("{head}\"{name}\"{data}}}\r\n").into_bytes()
    }

    /// One line of a stream: an event as QEMU writes it, or what is none in one way or another.
    fn any_line() -> impl Strategy<Value = Vec<u8>> {
        let data = prop_oneof![
            Just(String::new()),
            "[a-zé\u{1f600}]{0,40}"
                .prop_map(|text| format!(", \"data\": {{\"a\": [\"{text}\", -1.5e3, null]}}")),
        ];
        prop_oneof![
            8 => ("[A-Z_]{0,9}", data).prop_map(|(name, data)| event(&name, &data)),
            1 => Just(event("LONG", &format!(", \"data\": \"{}\"", "x".repeat(5000)))),
            1 => Just(b"{\"return\": {}, \"id\": 1}\r\n".to_vec()),
            1 => Just(b"{\"event\":\"COMPACT\"}\n".to_vec()),
            1 => Just(b" \r\n{\"event\":\n\"PRETTY\"}".to_vec()),
            1 => any::<u8>().prop_map(|byte| {
                let mut spoiled = event("SPOILED", "");
                spoiled[75] = byte;
                spoiled
            }),
        ]
    }

    type Read = (Vec<String>, Option<Malformed>);

    fn read(stream: &[u8], limits: Limits, cut: usize, by_runs: bool) -> Read {
        let (mut decoder, mut texts) = (Decoder::new(limits), Vec::new());
        let mut take_all = |decoder: &mut Decoder| -> Result<(), Malformed> {
            loop {
                if by_runs && let Some(run) = decoder.next_events()? {
                    assert!(
                        !run.places.is_empty()
                            && (run.places.len() == 1 || run.text.len() < LONGEST_BATCH + 2)
                    );
                    texts.extend(
                        run.places.iter().filter_map(|place| place.text.of(run.text)).map(str::to_owned),
                    );
                    continue;
                }
                match decoder.next()? {
                    Some(text) => texts.push(text.to_owned()),
                    None => return Ok(()),
                }
            }
        };
        for piece in stream.chunks(cut) {
            decoder.feed(piece);
            if let Err(why) = take_all(&mut decoder) {
                return (texts, Some(why));
            }
        }
        let end = decoder.finish().err();
        (texts, end)
    }

    #[test]
    fn a_flood_is_read_by_the_batch() {
        let mut decoder = Decoder::new(Limits::default());
        decoder.feed(&event("RESET", "").repeat(50));
        let mut runs = 0;
        while let Some(run) = decoder.next_events().unwrap() {
            assert_eq!(run.places[0].name.of(run.text), Some("RESET"));
            runs += 1;
        }
        assert!((2..10).contains(&runs), "{runs} runs");
        assert_eq!(decoder.next(), Ok(None));
    }

    proptest! {
        #[test]
        fn what_is_read_by_the_batch_is_what_is_read_one_by_one(
            lines in prop::collection::vec(any_line(), 0..40), cut in 1_usize..3000, limit in prop::sample::select(vec![90, 120, 64 << 20]),
        ) {
            let (stream, limits) = (lines.concat(), Limits { message: limit, ..Limits::default() });

            prop_assert_eq!(read(&stream, limits, cut, true), read(&stream, limits, cut, false));
        }
    }
}
