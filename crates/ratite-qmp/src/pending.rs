//! Commands that wait for their replies: register, complete, give up. Pure.

use std::collections::HashMap;

/// The commands that were given an id and have no reply yet; `W` is whoever waits for one.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    next: u64,
    waiting: HashMap<u64, W>,
}

impl<W> Pending<W> {
    /// Ids count from `first`. An id is never given twice, so a late reply finds nobody rather than somebody else.
    pub(crate) fn counting_from(first: u64) -> Self {
        Self { next: first, waiting: HashMap::new() }
    }

    /// The id for the next command.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn register(&mut self, id: u64, waiter: W) {
        self.waiting.insert(id, waiter);
    }

    /// Whoever waits for the reply to `id`, if anybody does.
    pub(crate) fn complete(&mut self, id: u64) -> Option<W> {
        self.waiting.remove(&id)
    }

    /// Everybody who waits, in the order of their commands.
    pub(crate) fn take_all(&mut self) -> Vec<W> {
        let mut all: Vec<(u64, W)> = self.waiting.drain().collect();
        all.sort_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, waiter)| waiter).collect()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &W> {
        self.waiting.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_finds_its_command_once() {
        let mut pending = Pending::counting_from(0);
        let (first, second) = (pending.next_id(), pending.next_id());
        pending.register(first, "first");
        pending.register(second, "second");

        assert_eq!(pending.complete(second), Some("second"));
        assert_eq!(pending.complete(second), None);
        assert_eq!(pending.complete(77), None);
        assert_eq!(pending.take_all(), ["first"]);
        assert_eq!(pending.next_id(), 2);
    }
}
