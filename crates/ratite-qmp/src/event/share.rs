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
