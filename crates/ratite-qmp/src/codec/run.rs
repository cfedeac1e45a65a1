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
        if let Some(why) = self.spoiled.take() {
            return Err(why);
        }
        self.places.clear();
        let length = self.read_run();
        let run = self.buffer.behind(length);
        match std::str::from_utf8(run) {
            Ok(text) => Ok((!text.is_empty()).then_some(Run { text, places: &self.places })),
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
