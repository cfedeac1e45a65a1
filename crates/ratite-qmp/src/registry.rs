//! The listeners of one connection: registered by clients, served by the connection.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::error::Disconnect;
use crate::event::Batch;
use crate::listener::Subscription;

/// Who gets the events of one connection. Cheap to clone; clones are one registry.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<Subscribers>>);

#[derive(Debug, Default)]
struct Subscribers {
    subscriptions: Vec<Subscription>,
    ended: Option<Disconnect>,
}

impl Registry {
    /// Delivers to `subscription` from now on; a connection that has ended ends it at once.
    pub(crate) fn add(&self, subscription: Subscription) {
        let mut subscribers = self.lock();
        if let Some(why) = &subscribers.ended {
            return subscription.end(why);
        }
        if subscribers.subscriptions.len() == subscribers.subscriptions.capacity() {
            // Those whose listeners are gone would only be found when an event comes.
            subscribers.subscriptions.retain(Subscription::is_heard);
        }
        subscribers.subscriptions.push(subscription);
    }

    /// Whether anybody may want events.
    pub(crate) fn is_heard(&self) -> bool {
        !self.lock().subscriptions.is_empty()
    }

    pub(crate) fn deliver(&self, batches: &[Arc<Batch>]) {
        self.lock().subscriptions.retain(|subscription| subscription.deliver_batches(batches));
    }

    pub(crate) fn end(&self, why: &Disconnect) {
        let mut subscribers = self.lock();
        subscribers.ended = Some(why.clone());
        for subscription in subscribers.subscriptions.drain(..) {
            subscription.end(why);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Subscribers> {
        // Nothing under this lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
