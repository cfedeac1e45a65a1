//! The events that wait in a queue, oldest first. Pure.
//!
//! Batches are kept whole, and shared with the other queues, as long as most of them is wanted here.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::event::Batch;
use crate::event::Event;

#[derive(Debug, Default)]
pub(in crate::listener) struct Unread {
    stretches: VecDeque<Stretch>,
    count: usize,
    bytes: usize,
}

/// Those events of a batch that wait: at least one.
#[derive(Debug)]
struct Stretch {
    batch: Arc<Batch>,
    from: u32,
    to: u32,
}

impl Unread {
    pub(in crate::listener) fn len(&self) -> usize {
        self.count
    }

    /// How long the texts of the events are together.
    pub(in crate::listener) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::listener) fn push(&mut self, batch: Arc<Batch>) {
        self.count += batch.len();
        self.bytes += batch.bytes();
        let to = batch.len().try_into().expect("a batch has no more events than bytes");
        self.stretches.push_back(Stretch { batch, from: 0, to });
    }

    /// The oldest event, without taking it.
    pub(in crate::listener) fn first(&self) -> Option<Event> {
        self.stretches.front().map(|first| Event::of(&first.batch, first.from as usize))
    }

    /// Takes the oldest event.
    pub(in crate::listener) fn pop(&mut self) -> Option<Event> {
        let first = self.stretches.front_mut()?;
        let number = first.from as usize;
        self.count -= 1;
        self.bytes -= first.batch.length(number);
        first.from += 1;
        if first.from < first.to {
            return Some(Event::of(&first.batch, number));
        }
        self.stretches.pop_front().map(|last| Event::owning(last.batch, number))
    }

    /// Finds the oldest event that `wanted` takes, by its name and text, but for the first `passed`.
    pub(in crate::listener) fn find(
        &self,
        mut passed: usize,
        wanted: impl Fn(&str, &str) -> bool,
    ) -> Option<Found> {
        for (stretch, it) in self.stretches.iter().enumerate() {
            let numbers = it.numbers();
            let begin = numbers.start + passed.min(numbers.len());
            passed -= begin - numbers.start;
            let fits = |number: &usize| wanted(it.batch.name(*number), it.batch.text(*number));
            if let Some(number) = (begin..numbers.end).find(fits) {
                return Some(Found { stretch, number });
            }
        }
        None
    }

    /// Takes the event that was found.
    pub(in crate::listener) fn remove(&mut self, found: Found) -> Option<Event> {
        let Found { stretch: at, number } = found;
        let stretch = self.stretches.get(at)?;
        let event = Event::of(&stretch.batch, number);
        let rests = [stretch.from as usize..number, number + 1..stretch.to as usize];
        self.count -= 1;
        self.bytes -= event.text().len();
        let rests = rests.map(|rest| Stretch::of(&stretch.batch, rest));
        self.stretches.remove(at);
        for rest in rests.into_iter().rev().flatten() {
            self.stretches.insert(at, rest);
        }
        Some(event)
    }
}

/// Where an event waits.
#[derive(Debug, Clone, Copy)]
pub(in crate::listener) struct Found {
    stretch: usize,
    number: usize,
}

impl Stretch {
    /// What is left of a batch; in a batch of its own when that is less than half.
    fn of(batch: &Arc<Batch>, numbers: Range<usize>) -> Option<Self> {
        if numbers.is_empty() {
            return None;
        }
        let (batch, numbers) = match numbers.len() * 2 < batch.len() {
            true => (batch.only(numbers.clone()), 0..numbers.len()),
            false => (Arc::clone(batch), numbers),
        };
        let number = |number: usize| number.try_into().expect("a batch has no more events than bytes");
        Some(Self { batch, from: number(numbers.start), to: number(numbers.end) })
    }

    fn numbers(&self) -> Range<usize> {
        self.from as usize..self.to as usize
    }
}
