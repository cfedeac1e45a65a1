//! A share of a batch, which a thread that takes one event after the other uses again.
//!
//! Counting the owners of a batch up for each event and down again, which other cores have to agree to, costs more than all else about
//! taking an event. So a thread keeps the share that it gave back last, and takes the next event with it.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;

use crate::event::batch::Batch;

thread_local! {
    /// The share that was given back last: of a batch of several events, which are short.
    static SPARE: Cell<Option<Arc<Batch>>> = const { Cell::new(None) };
}

#[derive(Debug)]
pub(in crate::event) struct Share(Option<Arc<Batch>>);

impl Share {
    #[inline]
    pub(in crate::event) fn of(batch: &Arc<Batch>) -> Self {
        match SPARE.try_with(Cell::take) {
            Ok(Some(spare)) if Arc::ptr_eq(&spare, batch) => Self(Some(spare)),
            _ => Self(Some(Arc::clone(batch))),
        }
    }

    pub(in crate::event) fn owned(&self) -> &Arc<Batch> {
        self.0.as_ref().expect("it is there until the drop")
    }
}

impl From<Arc<Batch>> for Share {
    fn from(batch: Arc<Batch>) -> Self {
        Self(Some(batch))
    }
}

impl Clone for Share {
    fn clone(&self) -> Self {
        Self::of(self.owned())
    }
}

impl Deref for Share {
    type Target = Batch;

    #[inline]
    fn deref(&self) -> &Batch {
        self.owned()
    }
}

impl Drop for Share {
    #[inline]
    fn drop(&mut self) {
        // A thread that is about to end has no place for it any more. What is alone in its batch may be long.
        if self.len() > 1 {
            let _ends = SPARE.try_with(|spare| spare.replace(self.0.take()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Span;
    use crate::event::Place;

    fn batch(events: usize) -> Arc<Batch> {
        let place = Span::new(0..2).unwrap();
        Batch::new("{}", &vec![Place { text: place, name: place }; events])
    }

    #[test]
    fn a_thread_keeps_one_share_and_takes_the_next_event_with_it() {
        let (first, second) = (batch(2), batch(2));

        drop(Share::of(&first));
        assert_eq!(Arc::strong_count(&first), 2);
        let share = Share::of(&first);
        assert_eq!(Arc::strong_count(&first), 2);
        drop((share.clone(), share));
        assert_eq!(Arc::strong_count(&first), 2);

        drop(Share::of(&second));
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 2));
    }

    #[test]
    fn an_event_that_is_alone_is_not_kept() {
        let batch = batch(1);

        drop(Share::of(&batch));

        assert_eq!(Arc::strong_count(&batch), 1);
    }

    #[test]
    fn a_share_may_end_on_another_thread_also_while_that_ends() {
        thread_local!(static LAST: Cell<Option<Share>> = const { Cell::new(None) });
        let batch = batch(2);
        let share = Share::of(&batch);

        std::thread::spawn(move || LAST.set(Some(share))).join().unwrap();

        assert_eq!(Arc::strong_count(&batch), 1);
    }
}
