//! Commands from being asked to being answered. Pure.
//!
//! ```text
//! asked ─► waiting (in band, or urgent) ─► in flight ─► answered
//!             └────────────┴── given up ──────┘
//! ```

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;

use crate::command::Command;

/// The commands of one connection that have no reply yet; `W` is whoever waits for one.
///
/// Ids are the caller's to give, and never given twice, so a late reply finds nobody rather than somebody else.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    urgent: Queue<W>,
    waiting: Queue<W>,
    in_flight: HashMap<u64, Waiter<W>, BuildHasherDefault<OwnIds>>,
    in_band_in_flight: usize,
    window: usize,
    /// How many have been asked at once since there was none, and whether that was more than one the last time.
    at_once: usize,
    is_crowd: bool,
}

/// Commands in the order of their ids, which is mostly that in which they come.
#[derive(Debug)]
struct Queue<W>(VecDeque<(u64, Command, W)>);

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<W> Queue<W> {
    fn insert(&mut self, id: u64, command: Command, who: W) {
        let place = match self.0.back() {
            Some((last, ..)) if *last > id => self.0.partition_point(|(other, ..)| *other < id),
            _ => self.0.len(),
        };
        self.0.insert(place, (id, command, who));
    }

    fn pop_first(&mut self) -> Option<(u64, Command, W)> {
        self.0.pop_front()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it was there.
    fn remove(&mut self, id: u64) -> bool {
        let place = self.0.binary_search_by_key(&id, |(other, ..)| *other);
        place.is_ok_and(|place| self.0.remove(place).is_some())
    }
}

/// Spreads ids that we count up ourselves, so that nobody can choose those that meet.
#[derive(Debug, Default)]
struct OwnIds(u64);

impl Hasher for OwnIds {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // An odd number whose bits look random (2^64 over the golden ratio): the table looks at the highest bits and the lowest.
        self.0 = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Whoever waits for the reply to a command that was sent.
#[derive(Debug)]
pub(crate) struct Waiter<W> {
    pub(crate) name: String,
    pub(crate) who: W,
    in_band: bool,
}

impl<W> Pending<W> {
    /// No commands; of those in band, at most `window` are to be in flight at once.
    pub(crate) fn with_window(window: usize) -> Self {
        Self {
            urgent: Queue::default(),
            waiting: Queue::default(),
            in_flight: HashMap::default(),
            in_band_in_flight: 0,
            window,
            at_once: 0,
            is_crowd: false,
        }
    }

    /// Whether nobody waits for anything, and most probably only one will, since it was so before.
    pub(crate) fn is_lonely(&self) -> bool {
        self.is_empty() && !self.is_crowd
    }

    fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.waiting.is_empty() && self.urgent.is_empty()
    }

    /// Looks whether there is nothing left of what was asked.
    fn look(&mut self) {
        if self.at_once > 0 && self.is_empty() {
            self.is_crowd = self.at_once > 1;
            self.at_once = 0;
        }
    }

    /// Takes a command that is to be sent when its turn comes.
    pub(crate) fn ask(&mut self, id: u64, command: Command, who: W) {
        let queue = if command.oob { &mut self.urgent } else { &mut self.waiting };
        queue.insert(id, command, who);
        self.at_once += 1;
    }

    /// Takes a command of this `name` that was sent in band as soon as it was asked.
    pub(crate) fn begin(&mut self, id: u64, name: String, who: W) {
        self.in_band_in_flight += 1;
        self.in_flight.insert(id, Waiter { name, who, in_band: true });
        self.at_once += 1;
    }

    /// The next command to be sent, which is in flight from now on. Those out of band come first.
    pub(crate) fn next(&mut self) -> Option<(u64, Command)> {
        let (id, command, who) = match self.urgent.pop_first() {
            Some(urgent) => urgent,
            None if self.in_band_in_flight < self.window => self.waiting.pop_first()?,
            None => return None,
        };
        let in_band = !command.oob;
        self.in_band_in_flight += usize::from(in_band);
        self.in_flight.insert(id, Waiter { name: command.name.clone(), who, in_band });
        Some((id, command))
    }

    /// Whoever waits for the reply to `id`, if anybody does.
    pub(crate) fn complete(&mut self, id: u64) -> Option<Waiter<W>> {
        let waiter = self.in_flight.remove(&id)?;
        self.in_band_in_flight -= usize::from(waiter.in_band);
        self.look();
        Some(waiter)
    }

    /// Forgets a command that nobody waits for any more; it takes no place in the window.
    pub(crate) fn give_up(&mut self, id: u64) {
        if !self.urgent.remove(id) && !self.waiting.remove(id) {
            self.complete(id);
        }
        self.look();
    }

    /// Everybody whose command is in flight, in the order of their commands.
    pub(crate) fn take_in_flight(&mut self) -> Vec<Waiter<W>> {
        self.in_band_in_flight = 0;
        let mut all: Vec<(u64, Waiter<W>)> = self.in_flight.drain().collect();
        self.look();
        all.sort_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, waiter)| waiter).collect()
    }

    /// Everybody who waits, those first whose command is in flight.
    pub(crate) fn take_all(&mut self) -> Vec<Waiter<W>> {
        let mut all = self.take_in_flight();
        let unsent =
            std::mem::take(&mut self.urgent).0.into_iter().chain(std::mem::take(&mut self.waiting).0);
        all.extend(unsent.map(|(_, command, who)| Waiter { in_band: !command.oob, name: command.name, who }));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(name: &str) -> Command {
        Command::new(name)
    }

    fn sent(pending: &mut Pending<&str>) -> Vec<u64> {
        std::iter::from_fn(|| pending.next()).map(|(id, _)| id).collect()
    }

    #[test]
    fn a_reply_finds_its_command_once() {
        let mut pending = Pending::with_window(9);
        pending.ask(1, command("a"), "first");
        pending.ask(2, command("b"), "second");
        assert_eq!(sent(&mut pending), [1, 2]);

        assert_eq!(pending.complete(2).map(|waiter| waiter.who), Some("second"));
        assert!(pending.complete(2).is_none());
        assert!(pending.complete(77).is_none());
        assert_eq!(pending.take_all().len(), 1);
    }

    #[test]
    fn the_window_holds_back_what_is_in_band() {
        let mut pending = Pending::with_window(2);
        (1..=3).for_each(|id| pending.ask(id, command("x"), "who"));
        pending.ask(4, command("x").oob(), "urgent");

        assert_eq!(sent(&mut pending), [4, 1, 2]);
        pending.complete(4);
        assert!(sent(&mut pending).is_empty());
        pending.complete(1);
        assert_eq!(sent(&mut pending), [3]);
    }

    #[test]
    fn it_is_lonely_again_once_one_alone_was_answered() {
        let mut pending = Pending::with_window(9);
        assert!(pending.is_lonely());
        (1..=3).for_each(|id| pending.ask(id, command("x"), "who"));
        assert_eq!(sent(&mut pending), [1, 2, 3]);
        assert!(!pending.is_lonely());

        (1..=2).for_each(|id| drop(pending.complete(id)));
        pending.give_up(3);
        assert!(!pending.is_lonely());
        pending.begin(4, "x".into(), "who");
        assert!(!pending.is_lonely());
        pending.complete(4);

        assert!(pending.is_lonely());
    }

    #[test]
    fn what_is_given_up_is_never_sent_and_takes_no_place() {
        let mut pending = Pending::with_window(1);
        (1..=3).for_each(|id| pending.ask(id, command("x"), "who"));
        assert_eq!(sent(&mut pending), [1]);

        pending.give_up(2);
        pending.give_up(1);

        assert_eq!(sent(&mut pending), [3]);
        assert!(pending.complete(1).is_none());
    }
}
