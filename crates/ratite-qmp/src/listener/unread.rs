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
        let Range { start: from, end: to } = batch.numbers();
        self.stretches.push_back(Stretch { batch, from, to });
    }

    /// The oldest event, without taking it.
    pub(in crate::listener) fn first(&self) -> Option<Event> {
        self.stretches.front().map(|first| Event::of(&first.batch, first.from))
    }

    /// Takes the oldest event.
    #[inline]
    pub(in crate::listener) fn pop(&mut self) -> Option<Event> {
        let first = self.stretches.front_mut()?;
        let number = first.from;
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
            let looked_at = passed.min(numbers.len());
            passed -= looked_at;
            let fits = |number: &u32| wanted(it.batch.name(*number), it.batch.text(*number));
            if let Some(number) = numbers.skip(looked_at).find(fits) {
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
        let rests = [stretch.from..number, number + 1..stretch.to];
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
    number: u32,
}

impl Stretch {
    /// What is left of a batch; in a batch of its own when that is less than half.
    fn of(batch: &Arc<Batch>, numbers: Range<u32>) -> Option<Self> {
        if numbers.is_empty() {
            return None;
        }
        if numbers.len() * 2 < batch.len() {
            let batch = batch.only(numbers);
            let Range { start: from, end: to } = batch.numbers();
            return Some(Self { batch, from, to });
        }
        Some(Self { batch: Arc::clone(batch), from: numbers.start, to: numbers.end })
    }

    fn numbers(&self) -> Range<u32> {
        self.from..self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Span;
    use crate::event::Place;
    use proptest::prelude::*;

    /// A batch of events whose texts are their names, each with a line end behind it.
    fn batch(names: &[String]) -> Arc<Batch> {
        let mut text = String::new();
        let places: Vec<_> = names
            .iter()
            .map(|name| {
                let place = Span::new(text.len()..text.len() + name.len()).unwrap();
                text += &format!("{name}\r\n");
                Place { text: place, name: place }
            })
            .collect();
        Batch::new(text, &places)
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(Vec<String>),
        Pop,
        Remove { name: String, passed: usize },
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop::collection::vec("[a-d]{1,3}", 1..9).prop_map(Step::Push),
            Just(Step::Pop),
            ("[a-d]", 0_usize..9).prop_map(|(name, passed)| Step::Remove { name, passed }),
        ]
    }

    proptest! {
        #[test]
        fn batches_are_taken_from_as_if_each_event_were_alone(steps in prop::collection::vec(any_step(), 0..40)) {
            let (mut unread, mut model) = (Unread::default(), VecDeque::new());
            let mut kept = Vec::new();
            for step in steps {
                match step {
                    Step::Push(names) => {
                        unread.push(batch(&names));
                        model.extend(names);
                    }
                    Step::Pop => {
                        prop_assert_eq!(unread.first().map(|event| event.text().to_owned()), model.front().cloned());
                        kept.push((unread.pop(), model.pop_front()));
                    }
                    Step::Remove { name, passed } => {
                        let wanted = |it: &str| it.starts_with(&name);
                        let found = unread.find(passed, |name, text| name == text && wanted(name));
                        let at = model.iter().skip(passed).position(|it| wanted(it)).map(|at| passed + at);
                        kept.push((found.and_then(|found| unread.remove(found)), at.and_then(|at| model.remove(at))));
                    }
                }
                prop_assert_eq!(unread.len(), model.len());
                prop_assert_eq!(unread.bytes(), model.iter().map(String::len).sum::<usize>());
            }
            for (event, text) in kept {
                prop_assert_eq!(event.map(|event| event.name().to_owned()), text);
            }
        }
    }
}
