//! One bounded queue for each subscriber.
//!
//! A [`Listener`] is the reading half, a [`Subscription`] the half that a connection fills. They are made as a pair,
//! so that a subscriber is armed before anything is sent. A full queue drops its oldest event and counts it; an
//! ended connection closes the queue behind what it delivered.

mod unread;

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use tokio::sync::Notify;

use crate::deadline::TimedOut;
use crate::deadline::within;
use crate::error::Disconnect;
use crate::error::ListenError;
use crate::event::Batch;
use crate::event::Event;
use crate::filter::EventFilter;
use crate::listener::unread::Found;
use crate::listener::unread::Unread;

/// A reader of events, with a queue of its own.
///
/// All methods take `&self`: several tasks may wait on one listener, and each event goes to one of them. Cancelling
/// a wait loses no event. Dropping the listener ends the subscription.
pub struct Listener(Arc<Queue>);

/// The half of a listener that a connection fills; hand it to [`crate::Options::subscribe`] or
/// [`crate::Client::subscribe`].
#[derive(Debug)]
pub struct Subscription(Weak<Queue>);

struct Queue {
    filter: EventFilter,
    capacity: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    events: Unread,
    /// How many events have come, so that a wait goes on where it had looked.
    accepted: u64,
    dropped: u64,
    reported: u64,
    ended: Option<Disconnect>,
}

/// How many unread events a queue holds when nothing else is said.
pub(crate) const DEFAULT_CAPACITY: usize = 16 << 10;

/// How long the texts of the events in one queue may be together, so that a few huge events cannot fill the memory.
const MOST_BYTES: usize = 64 << 20;

impl Listener {
    /// A listener for the events that `filter` takes, with a queue of 16384 events (and at most 64 MiB), and the half that
    /// feeds it.
    #[must_use]
    pub fn new(filter: EventFilter) -> (Self, Subscription) {
        Self::with_capacity(filter, DEFAULT_CAPACITY)
    }

    /// The same with a queue of `capacity` events (at least 1).
    #[must_use]
    pub fn with_capacity(filter: EventFilter, capacity: usize) -> (Self, Subscription) {
        let queue = Arc::new(Queue {
            filter,
            capacity: capacity.max(1),
            state: Mutex::default(),
            changed: Notify::new(),
        });
        let subscription = Subscription(Arc::downgrade(&queue));
        (Self(queue), subscription)
    }

    /// Takes the oldest event, waiting for one at most `limit`.
    ///
    /// # Errors
    /// [`ListenError::Lagged`] once after events were dropped; [`ListenError::TimedOut`];
    /// [`ListenError::Disconnected`] after everything that had arrived was delivered.
    pub async fn next(&self, limit: Duration) -> Result<Event, ListenError> {
        // Here already, since a flood is taken in by this path.
        if let Some(found) = self.try_next().transpose() {
            return found;
        }
        self.wait(limit, || self.0.filter.describe(), |_| self.try_next()).await
    }

    /// Takes the oldest event if there is one.
    ///
    /// # Errors
    /// As [`Listener::next`], except that it never times out.
    pub fn try_next(&self) -> Result<Option<Event>, ListenError> {
        let mut state = self.0.lock();
        if state.dropped > state.reported {
            let dropped = state.dropped - state.reported;
            state.reported = state.dropped;
            return Err(ListenError::Lagged { dropped });
        }
        match (state.events.pop(), &state.ended) {
            (Some(event), _) => Ok(Some(event)),
            (None, None) => Ok(None),
            (None, Some(why)) => Err(ListenError::Disconnected(why.clone())),
        }
    }

    /// Takes the oldest event that `filter` takes, waiting for one at most `limit`. Events that are passed over stay,
    /// in their order, for later reads.
    ///
    /// # Errors
    /// [`ListenError::TimedOut`], which says how many events were dropped; [`ListenError::Disconnected`] at once when
    /// the connection has ended and nothing that arrived fits.
    pub async fn next_matching(&self, filter: &EventFilter, limit: Duration) -> Result<Event, ListenError> {
        self.wait(limit, || filter.describe(), |seen| self.0.lock().take_matching(filter, seen)).await
    }

    /// Takes the oldest event that `filter` takes, if there is one; the others stay.
    ///
    /// # Errors
    /// [`ListenError::Disconnected`] when the connection has ended and nothing that arrived fits.
    pub fn try_next_matching(&self, filter: &EventFilter) -> Result<Option<Event>, ListenError> {
        self.0.lock().take_matching(filter, &mut 0)
    }

    /// Waits until there is an event that `filter` takes, at most for `limit`, and takes nothing: for those who can be
    /// interrupted between an event and its use.
    ///
    /// # Errors
    /// As [`Listener::next_matching`].
    pub async fn ready(&self, filter: &EventFilter, limit: Duration) -> Result<(), ListenError> {
        let look = |seen: &mut u64| Ok(self.0.lock().find(filter, seen)?.map(|_| ()));
        self.wait(limit, || filter.describe(), look).await
    }

    /// Waits until an event was dropped that no read has told of, and says how many there are; takes nothing.
    pub(crate) async fn lag(&self) -> u64 {
        let lagged = self.wait(Duration::MAX, String::new, |_| {
            let state = self.0.lock();
            Ok(Some(state.dropped - state.reported).filter(|dropped| *dropped > 0))
        });
        // It neither fails nor has a limit.
        lagged.await.unwrap_or_default()
    }

    /// The oldest event that is there, without taking it.
    #[must_use]
    pub fn peek(&self) -> Option<Event> {
        self.0.lock().events.first()
    }

    /// Takes all events that are there, oldest first.
    #[must_use]
    pub fn take_all(&self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.0.lock().events);
        std::iter::from_fn(|| events.pop()).collect()
    }

    /// How many events were dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }

    /// How many events wait to be read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().events.len()
    }

    /// Whether no event waits to be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks with `take`, and again after each change, until it yields something or `limit` is over.
    ///
    /// `take` gets the number of the first event it has not looked at yet.
    async fn wait<T>(
        &self,
        limit: Duration,
        what: impl FnOnce() -> String,
        mut take: impl FnMut(&mut u64) -> Result<Option<T>, ListenError>,
    ) -> Result<T, ListenError> {
        let mut seen = 0;
        // What is there already needs neither a timer nor a place among those who wait.
        if let Some(found) = take(&mut seen).transpose() {
            return found;
        }
        let search = async {
            loop {
                // Registered before looking, so that nothing can come unnoticed in between.
                let mut changed = std::pin::pin!(self.0.changed.notified());
                changed.as_mut().enable();
                if let Some(found) = take(&mut seen).transpose() {
                    return found;
                }
                changed.await;
            }
        };
        match within(limit, "", search).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(ListenError::TimedOut { dropped: self.dropped(), wait: TimedOut::new(what(), limit) })
            }
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("filter", &self.0.filter).field("waiting", &self.len()).finish()
    }
}

impl Subscription {
    /// Delivers those of `events` that are wanted; false once the listener is gone.
    pub(crate) fn deliver(&self, events: &[Event]) -> bool {
        let batches: Vec<_> = events.iter().map(Event::alone).collect();
        self.deliver_batches(&batches)
    }

    /// The same for events that were read together.
    pub(crate) fn deliver_batches(&self, batches: &[Arc<Batch>]) -> bool {
        let Some(queue) = self.0.upgrade() else {
            return false;
        };
        let is_changed = if queue.filter.takes_all() {
            queue.push(batches.iter().map(Arc::clone))
        } else {
            let wanted: Vec<_> = batches.iter().filter_map(|batch| queue.wanted(batch)).collect();
            queue.push(wanted.into_iter())
        };
        if is_changed {
            queue.changed.notify_waiters();
        }
        true
    }

    /// Whether there is somebody to deliver to.
    pub(crate) fn is_heard(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Closes the queue behind what was delivered.
    pub(crate) fn end(&self, why: &Disconnect) {
        if let Some(queue) = self.0.upgrade() {
            queue.lock().ended.get_or_insert_with(|| why.clone());
            queue.changed.notify_waiters();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Its connection ends it with a reason; what never came to a connection must not be waited for either.
        self.end(&Disconnect::NeverBegan);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the filter takes of `batch`; a part of it is copied, so that nobody keeps what he did not ask for.
    fn wanted(&self, batch: &Arc<Batch>) -> Option<Arc<Batch>> {
        let takes = |number: &u32| self.filter.takes(batch.name(*number), batch.text(*number));
        let wanted: Vec<u32> = batch.numbers().filter(takes).collect();
        match wanted.len() {
            0 => None,
            all if all == batch.len() => Some(Arc::clone(batch)),
            _ => Some(batch.only(wanted.into_iter())),
        }
    }

    /// Takes `batches` in; whether there were any.
    fn push(&self, batches: impl ExactSizeIterator<Item = Arc<Batch>>) -> bool {
        let is_changed = batches.len() > 0;
        if is_changed {
            let mut state = self.lock();
            batches.for_each(|batch| state.push(batch, self.capacity));
        }
        is_changed
    }
}

impl State {
    fn push(&mut self, batch: Arc<Batch>, capacity: usize) {
        self.accepted += batch.len() as u64;
        self.events.push(batch);
        // The last one stays, however long it is.
        while self.events.len() > capacity || (self.events.bytes() > MOST_BYTES && self.events.len() > 1) {
            self.events.pop();
            self.dropped += 1;
        }
    }

    fn take_matching(&mut self, filter: &EventFilter, seen: &mut u64) -> Result<Option<Event>, ListenError> {
        let found = self.find(filter, seen)?;
        Ok(found.and_then(|found| self.events.remove(found)))
    }

    /// Where the oldest event lies that `filter` takes.
    fn find(&self, filter: &EventFilter, seen: &mut u64) -> Result<Option<Found>, ListenError> {
        // No more than this many have come since; some of them may have been taken.
        let unseen = usize::try_from(self.accepted - *seen).unwrap_or(usize::MAX);
        let passed = self.events.len().saturating_sub(unseen);
        let found = self.events.find(passed, |name, text| filter.takes(name, text));
        *seen = self.accepted;
        match (found, &self.ended) {
            (Some(found), _) => Ok(Some(found)),
            (None, None) => Ok(None),
            (None, Some(why)) => Err(ListenError::Disconnected(why.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    const LIMIT: Duration = Duration::from_secs(5);

    fn event(name: &str) -> Event {
        match Message::parse(&format!("{{\"event\":\"{name}\"}}")).unwrap() {
            Message::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    fn names(events: &[Event]) -> Vec<&str> {
        events.iter().map(Event::name).collect()
    }

    #[tokio::test]
    async fn what_a_wait_passes_over_stays_in_order() {
        let (listener, subscription) = Listener::new(EventFilter::any());
        for name in ["A", "B", "C", "D"] {
            subscription.deliver(&[event(name)]);
        }

        let found = listener.next_matching(&EventFilter::named("C"), LIMIT).await.unwrap();

        assert_eq!(found.name(), "C");
        assert_eq!(names(&listener.take_all()), ["A", "B", "D"]);
    }

    #[tokio::test]
    async fn an_event_that_is_ready_is_still_there() {
        let (listener, subscription) = Listener::new(EventFilter::any());
        let b = EventFilter::named("B");
        subscription.deliver(&[event("A")]);
        assert!(listener.ready(&b, Duration::ZERO).await.is_err());
        subscription.deliver(&[event("B")]);

        listener.ready(&b, LIMIT).await.unwrap();
        listener.ready(&b, LIMIT).await.unwrap();

        assert_eq!(listener.try_next_matching(&b).unwrap().unwrap().name(), "B");
        assert!(listener.try_next_matching(&b).unwrap().is_none());
        assert_eq!(names(&listener.take_all()), ["A"]);
    }

    #[tokio::test]
    async fn a_full_queue_drops_its_oldest_and_says_how_many() {
        let (listener, subscription) = Listener::with_capacity(EventFilter::any(), 2);
        for name in ["A", "B", "C", "D"] {
            subscription.deliver(&[event(name)]);
        }

        assert!(matches!(listener.try_next(), Err(ListenError::Lagged { dropped: 2 })));
        assert_eq!(names(&listener.take_all()), ["C", "D"]);
        assert_eq!(listener.dropped(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_does_not_restart_with_each_event() {
        let (listener, subscription) = Listener::new(EventFilter::any());
        let flood = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            while subscription.deliver(&[event("OTHER")]) {
                ticks.tick().await;
            }
        });
        let start = tokio::time::Instant::now();

        let outcome = listener.next_matching(&EventFilter::named("X"), Duration::from_secs(1)).await;

        assert_eq!(outcome.unwrap_err().to_string(), "no event `X` within 1s");
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        flood.abort();
    }

    #[tokio::test]
    async fn the_end_wakes_a_waiter_after_what_was_received() {
        let (listener, subscription) = Listener::new(EventFilter::any());
        let waiter = tokio::spawn(async move {
            let outcome = listener.next_matching(&EventFilter::named("X"), LIMIT).await;
            (outcome.map(|_| ()), listener.next(LIMIT).await.map(|event| event.name().to_owned()))
        });
        tokio::task::yield_now().await;

        subscription.deliver(&[event("A")]);
        subscription.end(&Disconnect::ByPeer);

        let (outcome, next) = waiter.await.unwrap();
        assert!(matches!(outcome, Err(ListenError::Disconnected(Disconnect::ByPeer))));
        assert_eq!(next.unwrap(), "A");
    }

    #[tokio::test]
    async fn a_cancelled_wait_takes_no_event() {
        let (listener, subscription) = Listener::new(EventFilter::any());
        let cancelled = tokio::time::timeout(Duration::ZERO, listener.next(LIMIT)).await;
        assert!(cancelled.is_err());

        subscription.deliver(&[event("A")]);

        assert_eq!(listener.next(LIMIT).await.unwrap().name(), "A");
    }

    #[tokio::test]
    async fn a_dropped_listener_is_forgotten() {
        let (listener, subscription) = Listener::new(EventFilter::any());
        drop(listener);

        assert!(!subscription.deliver(&[event("A")]));
    }
}
