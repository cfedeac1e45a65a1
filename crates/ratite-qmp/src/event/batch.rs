//! Events that were read together, in one text.
//!
//! A flood is taken in by the batch: one allocation for some events, which all queues share. A batch is short, since whoever
//! keeps one event of it keeps it all.

use std::ops::Range;
use std::sync::Arc;

use crate::envelope::Span;

/// How long the text of a batch is at most, unless it is that of a single event.
pub(crate) const LONGEST_BATCH: usize = 1 << 10;

/// At least one event, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Batch {
    text: Box<str>,
    places: Box<[Place]>,
    /// How long the texts of the events are together.
    bytes: usize,
}

/// Where an event stands in the text of its batch, and where its name does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) text: Span,
    pub(crate) name: Span,
}

impl Batch {
    pub(crate) fn new(text: impl Into<Box<str>>, places: &[Place]) -> Arc<Self> {
        let bytes = places.iter().map(|place| place.text.range().len()).sum();
        Arc::new(Self { text: text.into(), places: places.into(), bytes })
    }

    /// How many events it has.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn numbers(&self) -> Range<u32> {
        0..self.places.len().try_into().expect("a batch has no more events than bytes")
    }

    /// How long the texts of its events are together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How long the text of one event is.
    #[inline]
    pub(crate) fn length(&self, number: u32) -> usize {
        self.places[number as usize].text.range().len()
    }

    pub(crate) fn text(&self, number: u32) -> &str {
        &self.text[self.places[number as usize].text.range()]
    }

    pub(crate) fn name(&self, number: u32) -> &str {
        &self.text[self.places[number as usize].name.range()]
    }

    /// A batch of its own for those of its events that are called for, by their numbers.
    pub(crate) fn only(&self, numbers: impl Iterator<Item = u32>) -> Arc<Self> {
        let (mut text, mut places) = (String::new(), Vec::new());
        for number in numbers {
            let Place { text: whole, name } = self.places[number as usize];
            // A name may stand apart, behind the text.
            let is_within = name.range().end <= whole.range().end;
            let start = text.len();
            text.push_str(self.text(number));
            let end = text.len();
            let name_start = match is_within {
                true => start + (name.range().start - whole.range().start),
                false => end,
            };
            if !is_within {
                text.push_str(self.name(number));
            }
            let place = |start, length| Span::new(start..start + length).expect("no longer than it was");
            places
                .push(Place { text: place(start, end - start), name: place(name_start, name.range().len()) });
        }
        Self::new(text, &places)
    }
}
